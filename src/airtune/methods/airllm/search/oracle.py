"""The best there is, by trying every allocation: for small cases, to hold searches against.

Knows losses by measuring; refuses where there is too much to measure.
"""

from __future__ import annotations

import math
from itertools import product
from typing import final

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm.allocation import AllocationState
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.space import Space

MOST = 10_000
"""Allocations that are tried without being asked for more."""


def allocations(space: Space) -> int:
    """How many allocations there are, from rank 0 everywhere to the largest ranks everywhere."""
    return math.prod(cap + 1 for cap in space.caps.ranks)


@final
class Oracle:
    """The lowest real J = U + lambda eta among all allocations that fit.

    Args:
        cost_weight: lambda of Eq. 10.
        most: How many allocations it may have to try, fitting or not.

    Raises:
        ConfigError: there are more.
    """

    name = "oracle"

    def __init__(self, space: Space, archive: Archive, *, cost_weight: float = 0.0, most: int = MOST) -> None:
        if (count := allocations(space)) > most:
            raise ConfigError(
                f"{len(space.caps)} sites have {count:.3g} allocations, the oracle tries at most {most}; "
                "ask for fewer sites or a smaller r_max, or use greedy with many evaluations"
            )
        self._space, self._archive, self._cost_weight = space, archive, cost_weight

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        """Measure whatever fits and was not measured yet. Raises `ConfigError` where nothing fits."""
        for ranks in product(*(range(cap + 1) for cap in self._space.caps.ranks)):
            if self._space.air_bits(vector := RankVector(ranks)) <= budget_bits:
                self._archive.measure(vector)
        return self._archive.best(budget_bits, self._cost_weight).ranks
