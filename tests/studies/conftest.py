"""The study of sums, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from sums import Runs


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)
