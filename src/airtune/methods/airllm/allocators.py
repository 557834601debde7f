"""Who decides the ranks: uniform, random, and AirLLM's policy. Each answers one question, `decide`.

An answer is what the allocator asks for; projection onto the deadline comes after it, the same for all. Those that
search are in `greedy`, `lookup` and `oracle`. Knows states; not models, codecs or transports.
"""

from __future__ import annotations

from typing import Protocol, final

import numpy as np

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import AllocationState
from airtune.methods.airllm.encoding import decode
from airtune.methods.airllm.environment import AllocationEnv, Decoder
from airtune.records import generator


class Allocator(Protocol):
    """Chooses ranks for a state and a budget of bits on the air."""

    name: str

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector: ...


@final
class Uniform:
    """r_max everywhere: what a user does who does not think about it. Projection cuts it evenly."""

    name = "uniform"

    def __init__(self, caps: RankVector) -> None:
        self._caps = caps

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        return self._caps


@final
class Random:
    """Every rank drawn uniformly from least..cap."""

    name = "random"

    def __init__(self, caps: RankVector, rng: np.random.Generator, least: int = 0) -> None:
        self._caps, self._rng, self._least = caps, rng, np.minimum(least, caps.ranks)

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        return RankVector.of(self._rng.integers(self._least, np.array(self._caps.ranks), endpoint=True))


class Policy(Protocol):
    """Acts on what it observes."""

    def act(self, states: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        """States ``(n, d_s)`` to normalised ranks ``(n, sites)``."""
        ...


@final
class AirLLM:
    """A trained policy from fixed noise, decoded by Eq. 18: the same state, the same ranks.

    Args:
        seed: Draws the noise.
        name: Tells variants of the policy apart.
        decoder: Actions to ranks.
    """

    def __init__(
        self, caps: RankVector, policy: Policy, seed: int, name: str = "airllm", decoder: Decoder = decode
    ) -> None:
        self._caps, self.policy, self._seed, self.name, self._decoder = caps, policy, seed, name, decoder

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        action = self.policy.act(state.vector(self._caps)[None], generator(self._seed, "decide"))[0]
        return RankVector.of(self._decoder(action, np.array(self._caps.ranks)))


def mean_reward(env: AllocationEnv, allocator: Allocator, *, episodes: int, seed: int) -> float:
    """Mean reward of an allocator's first decisions over episodes of an environment."""
    rewards = []
    for episode in range(episodes):
        env.reset(seed=None if episode else seed)
        rewards.append(env.execute(allocator.decide(env.state, env.budget_bits)).reward)
    return float(np.mean(rewards))
