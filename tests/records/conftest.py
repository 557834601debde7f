"""Faults a disk can have, and a way to run a few lines in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def elsewhere() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python source in a process of its own, to its end."""

    def run(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", source, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(_SOURCE)}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return run
