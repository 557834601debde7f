"""Searches over rank vectors by predicted objectives: elimination, filling, exchange. They measure nothing.

The objective is J = U + price x bits, the price being lambda over the budget (Eq. 10); with price 0 it is the loss.
Knows the space and a function of losses; not models, states or links.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from airtune.adapters import RankVector
from airtune.methods.airllm.search.space import Space

PredictLoss = Callable[[np.ndarray], np.ndarray]
"""Losses of rank vectors, ``(n, sites)`` -> ``(n,)``."""
LOOKED_AT = 4
"""Exchange moves whose freed bits are spent before the best of them is taken."""
LEAST_GAIN = 1e-9
"""Nat by which a direction more has to lower the predicted objective."""
LEAST_EXCHANGE = 1e-4
"""Nat by which an exchange has to: far below any surrogate's error, and so the walk ends at large ranks too."""


def priced(space: Space, predict: PredictLoss, price: float) -> PredictLoss:
    """Predicted losses plus `price` (nat per bit) times the bits of all directions; containers are not counted."""
    if price == 0:
        return predict
    return lambda ranks: predict(ranks) + price * (ranks @ space.direction_bits)


def eliminate(space: Space, predict: PredictLoss) -> list[np.ndarray]:
    """Full adapter to none, one direction less at a time, always the one that costs least loss per bit saved."""
    path = [space.top]
    while (ranks := path[-1]).any():
        lowered, sites = space.lowered(ranks)
        path.append(lowered[np.argmin((predict(lowered) - predict(ranks[None])) / space.direction_bits[sites])])
    return path


def best_fitting(space: Space, path: list[np.ndarray], budget_bits: int, predict: PredictLoss) -> np.ndarray:
    """Of a falling path, what fits and promises most; the first of equals, and its last vector if none fits."""
    at = bisect_left(path, True, key=lambda ranks: space.fits(ranks, budget_bits))
    fitting = path[min(at, len(path) - 1) :]
    return fitting[int(np.argmin(predict(np.array(fitting))))]


def fill(space: Space, ranks: np.ndarray, budget_bits: int, predict: PredictLoss) -> np.ndarray:
    """Spend what is left of the budget, one direction at a time, on what promises most per bit, while anything does."""
    while True:
        raised, sites = space.raised(ranks, budget_bits)
        if not len(raised):
            return ranks
        gains = predict(ranks[None]) - predict(raised)
        if gains.max() < LEAST_GAIN:
            return ranks
        ranks = raised[np.argmax(gains / space.direction_bits[sites])]


def exchange(space: Space, ranks: np.ndarray, budget_bits: int, predict: PredictLoss) -> np.ndarray:
    """Move directions between sites, and spend what that frees, while the predicted loss falls."""
    loss = float(predict(ranks[None])[0])
    while moved := list(islice(neighbours(space, ranks, budget_bits, predict), LOOKED_AT)):
        after = predict(np.array(moved))
        if after.min() >= loss - LEAST_EXCHANGE:
            break
        ranks, loss = moved[int(after.argmin())], float(after.min())
    return ranks


def neighbours(space: Space, ranks: np.ndarray, budget_bits: int, predict: PredictLoss) -> Iterator[np.ndarray]:
    """Vectors one exchange away that fit, most promising first, what the exchange frees being spent again."""
    moved = space.exchanged(ranks, budget_bits)
    if len(moved):
        for row in np.argsort(predict(moved), kind="stable"):
            if space.fits(moved[row], budget_bits):
                yield fill(space, moved[row], budget_bits, predict)


def propose(space: Space, path: list[np.ndarray], budget_bits: int, predict: PredictLoss) -> RankVector:
    """What elimination and exchange find for a budget: `path` is that of `eliminate`."""
    start = fill(space, best_fitting(space, path, budget_bits, predict), budget_bits, predict)
    return RankVector.of(exchange(space, start, budget_bits, predict))


def forward(space: Space, budget_bits: int, predict: PredictLoss) -> RankVector:
    """Forward greedy: from rank 0 everywhere, always the direction that promises most per bit."""
    return RankVector.of(fill(space, np.zeros_like(space.top), budget_bits, predict))
