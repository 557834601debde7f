"""Episodes of ranks that nobody learns: r_max everywhere, chance, or whatever a learner keeps to by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import AllocationState
from airtune.methods.airllm.allocators import Allocator
from airtune.methods.airllm.environment import AllocationEnv
from airtune.methods.airllm.paper.checkpoint import Kept
from airtune.records import seed_for


@final
class Rival:
    """An allocator asked at every step, on the channel draws that Algorithm 1 would meet.

    Args:
        new_allocator: From the number of an episode, whose draws must not depend on those before.
    """

    def __init__(self, env: AllocationEnv, new_allocator: Callable[[int], Allocator], *, seed: int) -> None:
        self._env, self._new_allocator, self._seed = env, new_allocator, seed
        self.name = new_allocator(0).name
        self.kept: Mapping[str, Kept] = {}

    def episode(self, number: int) -> float:
        allocator = self._new_allocator(number)
        self._env.reset(seed=seed_for(self._seed, "episode", number) % 2**31)
        for _ in range(self._env.horizon):
            self._env.advance(allocator.decide(self._env.state, 0))
        return 0.0

    def allocator(self) -> Allocator:
        return self._new_allocator(-1)


@final
class Holding:
    """The ranks that are in force, whatever the state."""

    def __init__(self, name: str, ranks: Callable[[], RankVector]) -> None:
        self.name, self._ranks = name, ranks

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        return self._ranks()
