"""Rivals timed in turn, so that whatever else the machine does meets all of them alike. Knows no ratio."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

__all__ = ["interleaved", "median"]


def interleaved(
    rivals: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Seconds of every repeat of every rival: first of each, second of each, and so on; the warm-up is not counted."""
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(warm_up + repeats):
        for name, rival in rivals.items():
            begun = clock()
            rival()
            if turn >= warm_up:
                found[name].append(clock() - begun)
    return found
