"""Intervals over seeds, crossed with items where there are some, and paired differences. No rank test: with five seeds
none can say more than these.

The plain percentile bootstrap of five values is too narrow, so percentiles are taken further out, by the factor that
would make a normal interval Student's (Hesterberg 2014, arXiv 1411.5279, expanded percentiles).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

DRAWS = 4000
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


def tail(seeds: int, level: float = LEVEL) -> float:
    """The share to cut off at each end: Phi(-sqrt(n / (n - 1)) t), with Student's t of n - 1 degrees of freedom."""
    quantile = stats.t.ppf(0.5 + level / 2, seeds - 1)
    return float(stats.norm.cdf(-np.sqrt(seeds / (seeds - 1)) * quantile))


def interval(values: np.ndarray, rng: np.random.Generator, *, draws: int = DRAWS) -> Interval:
    """Mean over seeds with its bootstrap interval; a single seed has none (low = high = mean).

    Args:
        values: One per seed ``(seeds,)``, or one per seed and item ``(seeds, items)``: then seeds and items are both
            drawn anew, crossed (Owen 2007), for the same items stand under every seed.
    """
    table = values[:, None] if values.ndim == 1 else values
    seeds, items = table.shape
    mean = float(table.mean())
    if seeds < 2:
        return Interval(mean, mean, mean, seeds)
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    if items == 1:
        means = weights @ table[:, 0]
    else:
        of_items = rng.multinomial(items, np.full(items, 1 / items), size=draws) / items
        means = np.einsum("ds,si,di->d", weights, table, of_items, optimize=True)
    share = tail(seeds)
    low, high = np.quantile(means, [share, 1 - share])
    return Interval(mean, float(low), float(high), seeds)
