"""Improved targets: the best of some changes of an action, for the refiner to denoise towards (Eq. 19, `improved`).

A refiner that only imitates its own actions cannot get better than they are. Here each action is compared with feasible
changes of itself, with uniform ranks and with what a search finds, and the best is what the refiner learns to make.
Knows the environment's three calls; not networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np

from airtune.adapters import RankVector
from airtune.methods.airllm.environment import AllocationEnv, Executed

FACTORS = (0.0, 0.5, 0.75, 1.5, 2.0)
"""What a group's ranks are multiplied by in one proposal."""
STRETCH = (1.0, 2.0, 4.0)
"""What all ranks are multiplied by before projection, so that a proposal can also spend what the action left over."""


@final
class Improver:
    """Proposes changes of rank vectors: a site, a layer or a kind of module up or down, or all of them.

    Args:
        caps: Largest rank of each site.
        groups: Group index of each site, one row per grouping (layers, kinds); single sites are always one.
        expert: Ranks that a search on the same losses finds for a budget in bits; tried besides, as uniform is.
        proposals: Random changes tried per action.
    """

    def __init__(
        self,
        caps: RankVector,
        groups: Sequence[Sequence[int]],
        expert: Callable[[int], RankVector],
        *,
        proposals: int,
    ) -> None:
        self._caps, self._expert = np.array(caps.ranks), expert
        self._groups = [np.arange(len(caps)), *(np.array(group) for group in groups)]
        self._proposals = proposals

    def best(self, env: AllocationEnv, asked: RankVector, uniform: Executed, rng: np.random.Generator) -> Executed:
        """The best, by reward in the environment's present state, of uniform, expert, and changes of what was asked.

        The asked action itself is left to whoever executes it.
        """
        near = env.project(asked, env.budget_bits)
        tried = [env.execute(self._propose(near, rng)) for _ in range(self._proposals)]
        expert = env.execute(self._expert(env.budget_bits))
        return max([uniform, expert, *tried], key=lambda found: found.reward)

    def _propose(self, ranks: RankVector, rng: np.random.Generator) -> RankVector:
        grouping = self._groups[rng.integers(len(self._groups))]
        members = grouping == rng.choice(grouping)
        wanted = np.array(ranks.ranks) * rng.choice(STRETCH)
        wanted[members] = wanted[members] * rng.choice(FACTORS) + rng.integers(0, 2)
        return RankVector.of(np.clip(np.round(wanted), 0, self._caps))
