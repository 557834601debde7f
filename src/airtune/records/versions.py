"""Which software was in force. It asks the installed packages' metadata and imports none of them."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

_PACKAGES: Final = (
    "airtune",
    "torch",
    "transformers",
    "peft",
    "numpy",
    "scipy",
    "gymnasium",
    "stable-baselines3",
)


def versions_in_force() -> dict[str, str | int]:
    """Python, platform, number of processors, and the version of each package of interest that is installed."""
    found: dict[str, str | int] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count() or 1,
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
