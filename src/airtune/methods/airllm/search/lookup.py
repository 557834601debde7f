"""Allocators that answer from measured allocations alone: random search, and a table by SNR.

They need no surrogate and no policy: what either is worth has to show beside them at equal measurements.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import final

import numpy as np

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm.allocation import AllocationState, project
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.space import Space


@final
class RandomSearch:
    """The best of uniform and of ranks drawn uniformly from 0..cap, projected onto the budget.

    Args:
        archive: Its own: what others measured would not be random.
        evaluations: Losses measured for each budget, uniform's included; what an earlier budget measured counts too
            where it fits.
        cost_weight: lambda of Eq. 10.
    """

    name = "random-search"

    def __init__(
        self,
        space: Space,
        archive: Archive,
        rng: np.random.Generator,
        *,
        evaluations: int,
        cost_weight: float = 0.0,
    ) -> None:
        self._space, self._archive, self._rng = space, archive, rng
        self._evaluations, self._cost_weight = evaluations, cost_weight
        self._searched: set[int] = set()

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        if budget_bits not in self._searched:
            self._searched.add(budget_bits)
            self._archive.measure(self._space.uniform(budget_bits))
            for _ in range(self._evaluations - 1):
                drawn = RankVector.of(self._rng.integers(0, self._space.top, endpoint=True))
                self._archive.measure(project(drawn, self._space.air_bits, budget_bits))
        return self._archive.best(budget_bits, self._cost_weight).ranks


@final
class LookupTable:
    """One allocation per SNR of a grid: the best measured that fits there. A state takes the nearest SNR not above it.

    A state below the grid takes the lowest SNR's, for projection to cut. With `above` a state takes the nearest SNR not
    below it, for projection to cut, and one above the grid the highest.

    Args:
        archive: What was measured until now; later trials do not change the table.
        budgets: SNR in dB -> bits on the air that a decision may spend there.
        cost_weight: lambda of Eq. 10.

    Raises:
        ConfigError: the grid is empty, or nothing that was measured fits at one of its SNRs.
    """

    name = "lookup"

    def __init__(
        self, archive: Archive, budgets: Mapping[float, int], *, cost_weight: float = 0.0, above: bool = False
    ) -> None:
        if not budgets:
            raise ConfigError("the table was given no SNR; give at least one, with its budget in bits")
        self._snrs, self._above = sorted(budgets), above
        self._ranks = [archive.best(budgets[snr_db], cost_weight).ranks for snr_db in self._snrs]

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        snr_db, last = state.channel.snr_db, len(self._snrs) - 1
        if self._above:
            return self._ranks[min(last, bisect_left(self._snrs, snr_db))]
        return self._ranks[max(0, bisect_right(self._snrs, snr_db) - 1)]
