"""Fixtures for every room: the data beside the project, where there is any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # before torch loads: sums split over more threads round differently


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and models beside the project; a test that needs it is skipped where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder.name}/ beside the project, which is not here")
    return folder
