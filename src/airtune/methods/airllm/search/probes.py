"""Allocations worth measuring before anything is known. Knows caps; not losses or bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from airtune.adapters import RankVector


def probes(caps: RankVector, shares: Sequence[float], count: int, rng: np.random.Generator) -> list[RankVector]:
    """Draw allocations worth measuring: the full adapter, then some around every share of it, even and uneven.

    Args:
        shares: Of the full adapter's directions, in [0, 1]: those of the budgets that will be asked for.
    """
    top = np.array(caps.ranks, dtype=float)
    drawn = [caps]
    while len(drawn) < count:
        share = shares[len(drawn) % len(shares)] * rng.uniform(0.7, 1.4)
        spread = rng.choice([0.0, 0.5, 1.0])
        weights = np.exp(spread * rng.normal(size=len(top)))
        weights[rng.random(len(top)) < rng.choice([0.0, 0.1])] = 0.0
        ranks = share * top * weights / max(float(weights.mean()), 1e-9)
        drawn.append(RankVector.of(np.clip(np.floor(ranks + rng.random(len(top))), 0, top)))
    return drawn
