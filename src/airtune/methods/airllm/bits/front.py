"""What is best within a budget, and how many bits one front saves over another.

Choosing looks at one loss (dev), the comparison at another (test). Knows numbers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from airtune.errors import DataError


def best_within(bits: Sequence[float], losses: Sequence[float], budget: float) -> int | None:
    """Index of the least loss among those within a budget; None where nothing is."""
    within = [index for index, size in enumerate(bits) if size <= budget]
    return min(within, key=lambda index: losses[index], default=None)


def front(bits: Sequence[float], losses: Sequence[float]) -> list[int]:
    """Indices of those that nothing smaller or equal beats, by rising bits and falling loss."""
    found: list[int] = []
    for index in sorted(range(len(bits)), key=lambda index: (bits[index], losses[index])):
        if not found or losses[index] < losses[found[-1]]:
            found.append(index)
    return found


def spread(bits: Sequence[float], losses: Sequence[float], *, apart: float) -> list[int]:
    """The front; of what takes less than `apart` times the bits of the first of a cluster, only the last and best."""
    found: list[int] = []
    first = 0.0
    for index in front(bits, losses):
        if not found or bits[index] >= apart * first:
            first = bits[index]
            found.append(index)
        else:
            found[-1] = index
    return found


def unbeaten(bits: Sequence[float], losses: np.ndarray, *, errors: float) -> list[int]:
    """Indices of those that nothing smaller or equal beats by more than so many standard errors, on the same items.

    Args:
        bits: Of each, length n.
        losses: By item, shape (n, items).
    """
    sizes, means = np.asarray(bits, float), losses.mean(axis=1)

    def beaten(index: int) -> bool:
        better = losses[(sizes <= sizes[index]) & (means < means[index])]
        by = losses[index] - better
        return bool(np.any(by.mean(axis=1) > errors * by.std(axis=1, ddof=1) / np.sqrt(losses.shape[1])))

    return [index for index in range(len(sizes)) if not beaten(index)]


class Saving(NamedTuple):
    """Bits saved over a range of losses.

    Args:
        share: 0.3 where 30 % fewer bits are needed; negative where more are.
        low, high: Losses between which that is a mean.
    """

    share: float
    low: float
    high: float


def bits_saved(
    bits: Sequence[float],
    losses: Sequence[float],
    over_bits: Sequence[float],
    over_losses: Sequence[float],
    *,
    between: tuple[float, float] = (-np.inf, np.inf),
) -> Saving:
    """Mean share of the bits that one front saves over another at equal loss (Bjontegaard 2001, VCEG-M33).

    The logarithm of the bits is a piecewise cubic, monotone function of the loss (PCHIP); the difference of two such
    is averaged over the losses that both reach. Where losses do not fall with the bits, neighbours are averaged first.

    Args:
        between: Lowest and highest loss that count.

    Raises:
        DataError: a front of one point, or no loss that both reach.
    """
    first, second = _curve(bits, losses), _curve(over_bits, over_losses)
    low = float(max(first[0][0], second[0][0], between[0]))
    high = float(min(first[0][-1], second[0][-1], between[1]))
    if not low < high:
        raise DataError(f"the fronts share no loss: one ends at {high:.4g}, one begins at {low:.4g}; widen them")
    areas = [float(PchipInterpolator(*curve).integrate(low, high)) for curve in (first, second)]
    return Saving(1.0 - float(np.exp((areas[0] - areas[1]) / (high - low))), low, high)


def _curve(bits: Sequence[float], losses: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Rising losses and the logarithms of the bits they take; of equal losses the fewest bits."""
    order = np.argsort(bits)
    sizes = np.asarray(bits, float)[order]
    falling = isotonic_regression(np.asarray(losses, float)[order], increasing=False).x
    firsts = [index for index in range(len(falling)) if index == 0 or falling[index] < falling[index - 1]]
    if len(firsts) < 2:
        raise DataError(f"a front of {len(firsts)} losses bends nowhere; give two at least")
    return falling[firsts][::-1], np.log(sizes[firsts])[::-1]
