"""Intervals for a mean over seeds, crossed with items where there are some, and paired differences. No rank test: with
five seeds none can say more than these.

Seeds and items are random effects that add up. The error of few seeds has Student's tails; that of many items, whose
mean is well known, nearly normal ones. So each gets a half-width of its own, and the two add in quadrature: one
quantile for both would be too wide where items vary most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
SEEDS_FOR_A_CLAIM = 5


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and where it may lie."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def real(self) -> bool:
        """Whether the interval, read as one of a difference, excludes 0 over enough seeds to say so."""
        return self.seeds >= SEEDS_FOR_A_CLAIM and (self.low > 0 or self.high < 0)


def interval(values: np.ndarray) -> Interval:
    """Mean over seeds with its 95 % interval; a single seed has none (low = high = mean).

    Args:
        values: One per seed ``(seeds,)``: Student's interval. Or one per seed and item ``(seeds, items)``, the same
            items under every seed: components of variance by the two-way analysis of variance without replication.
    """
    table = values[:, None] if values.ndim == 1 else values
    seeds, items = table.shape
    mean = float(table.mean())
    if seeds < 2:
        return Interval(mean, mean, mean, seeds)
    of_seed, of_item = table.mean(axis=1), table.mean(axis=0)
    square = _student(seeds) ** 2 * of_seed.var(ddof=1) / seeds
    if items > 1:
        residual = table - of_seed[:, None] - of_item + mean
        counted = (residual**2).sum() / ((seeds - 1) * (items - 1)) / (seeds * items)  # with the seeds already
        square += _student(items) ** 2 * max(of_item.var(ddof=1) / items - counted, 0)
    half = float(np.sqrt(square))
    return Interval(mean, mean - half, mean + half, seeds)


def _student(size: int) -> float:
    return float(stats.t.ppf(0.5 + LEVEL / 2, size - 1))
