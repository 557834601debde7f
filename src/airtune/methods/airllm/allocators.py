"""Who decides the ranks: uniform, random, greedy, and AirLLM's policy. Each answers one question, `decide`.

An answer is what the allocator asks for; projection onto the deadline comes after it, the same for all. Knows states
and predicted losses; not models, codecs or transports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol, final

import numpy as np

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import AllocationEnv, AllocationState, BitsOf, Trial, TryRanks, project
from airtune.methods.airllm.encoding import decode
from airtune.records import generator

PredictLoss = Callable[[np.ndarray], np.ndarray]
"""Losses of rank vectors, ``(n, sites)`` -> ``(n,)``."""


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
    """Every rank drawn uniformly from 0..cap."""

    name = "random"

    def __init__(self, caps: RankVector, rng: np.random.Generator) -> None:
        self._caps, self._rng = caps, rng

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        return RankVector.of(self._rng.integers(0, np.array(self._caps.ranks), endpoint=True))


@final
class Greedy:
    """Backward elimination, then moves of one rank from site to site.

    Starting from the full adapter, the direction whose loss per bit is least goes first; the path does not depend on
    the budget, so it is walked once. At a budget, moves follow while the predicted loss falls. The real loss has the
    last word: the proposal, projected uniform, and the most promising moves from the better of the two are measured,
    and the best measured vector is the answer. It depends on the budget alone, so each budget is searched once.

    Args:
        caps: Largest rank of each site.
        air_bits: Bits on the air of a rank vector.
        direction_bits: Bits of one direction at each site, shape ``(sites,)``.
        predict: Predicted losses, from the surrogate.
        trainee: Measures real losses.
        moves: How many moves are measured, at most.
    """

    name = "greedy"

    def __init__(
        self,
        caps: RankVector,
        air_bits: BitsOf,
        direction_bits: np.ndarray,
        predict: PredictLoss,
        trainee: TryRanks,
        *,
        moves: int,
    ) -> None:
        self._caps, self._air_bits, self._direction_bits = caps, air_bits, direction_bits
        self._predict, self._trainee, self._moves = predict, trainee, moves
        self._path = self._eliminate()
        self._proposed: dict[int, RankVector] = {}
        self._decided: dict[int, RankVector] = {}

    def propose(self, budget_bits: int) -> RankVector:
        """What elimination and exchange find for a budget by predicted losses alone."""
        if budget_bits not in self._proposed:
            found = np.array(self._caps.ranks)
            if not self._fits(found, budget_bits):
                found = self._exchange(self._fill(self._on_path(budget_bits), budget_bits), budget_bits)
            self._proposed[budget_bits] = RankVector.of(found)
        return self._proposed[budget_bits]

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        if budget_bits not in self._decided:
            self._decided[budget_bits] = self._search(budget_bits)
        return self._decided[budget_bits]

    def _search(self, budget_bits: int) -> RankVector:
        proposal = self.propose(budget_bits)
        if proposal == self._caps:
            return proposal
        uniform = project(self._caps, self._air_bits, budget_bits)
        trials = [self._trainee.try_ranks(ranks) for ranks in (proposal, uniform)]
        start = np.array(min(trials, key=_loss).ranks.ranks)
        moves = islice(self._moves_from(start, budget_bits), self._moves)
        trials += [self._trainee.try_ranks(RankVector.of(ranks)) for ranks in moves]
        return min(trials, key=_loss).ranks

    def _eliminate(self) -> list[np.ndarray]:
        """Full adapter to none, one direction less at a time, always the one that costs least loss per bit saved."""
        path = [np.array(self._caps.ranks)]
        while (ranks := path[-1]).any():
            sites = np.flatnonzero(ranks)
            lowered = np.repeat(ranks[None], len(sites), axis=0)
            lowered[np.arange(len(sites)), sites] -= 1
            rises = self._predict(lowered) - self._predict(ranks[None])
            path.append(lowered[np.argmin(rises / self._direction_bits[sites])])
        return path

    def _on_path(self, budget_bits: int) -> np.ndarray:
        low, high = 0, len(self._path) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fits(self._path[middle], budget_bits) else (middle + 1, high)
        return self._path[low]

    def _fill(self, ranks: np.ndarray, budget_bits: int) -> np.ndarray:
        """Spend what is left on the directions that promise most per bit."""
        caps = np.array(self._caps.ranks)
        while True:
            room = budget_bits - self._bits(ranks)
            sites = np.flatnonzero((ranks < caps) & (self._direction_bits <= room))
            raised = np.repeat(ranks[None], len(sites), axis=0)
            raised[np.arange(len(sites)), sites] += 1
            falls = (self._predict(ranks[None]) - self._predict(raised)) / self._direction_bits[sites]
            fitting = (raised[row] for row in np.argsort(-falls, kind="stable") if self._fits(raised[row], budget_bits))
            chosen = next(fitting, None)
            if chosen is None:
                return ranks
            ranks = chosen

    def _exchange(self, ranks: np.ndarray, budget_bits: int) -> np.ndarray:
        """Move directions between sites, and spend what that frees, while the predicted loss falls."""
        loss = float(self._predict(ranks[None])[0])
        while (moved := next(self._moves_from(ranks, budget_bits), None)) is not None:
            filled = self._fill(moved, budget_bits)
            after = float(self._predict(filled[None])[0])
            if after >= loss - 1e-9:
                break
            ranks, loss = filled, after
        return ranks

    def _moves_from(self, ranks: np.ndarray, budget_bits: int) -> Iterator[np.ndarray]:
        """Vectors one move away that fit, most promising first; none that would fit by saving a chunk header alone."""
        room = budget_bits - self._bits(ranks)
        grows = self._direction_bits[None, :] - self._direction_bits[:, None]  # (giver, taker)
        possible = np.outer(ranks > 0, ranks < np.array(self._caps.ranks)) & (grows <= room)
        np.fill_diagonal(possible, False)
        givers, takers = np.nonzero(possible)
        moved = np.repeat(ranks[None], len(givers), axis=0)
        moved[np.arange(len(givers)), givers] -= 1
        moved[np.arange(len(givers)), takers] += 1
        for row in np.argsort(self._predict(moved), kind="stable"):
            if self._fits(moved[row], budget_bits):
                yield moved[row]

    def _bits(self, ranks: np.ndarray) -> int:
        return self._air_bits(RankVector.of(ranks))

    def _fits(self, ranks: np.ndarray, budget_bits: int) -> bool:
        return self._bits(ranks) <= budget_bits


def _loss(trial: Trial) -> float:
    return trial.loss


@final
class AirLLM:
    """A trained policy from fixed noise, decoded by Eq. 18: the same state, the same ranks.

    Args:
        act: The policy: states ``(n, d_s)`` and noise to normalised ranks ``(n, sites)``.
        seed: Draws the noise.
        name: Tells variants of the policy apart.
    """

    def __init__(
        self,
        caps: RankVector,
        act: Callable[[np.ndarray, np.random.Generator], np.ndarray],
        seed: int,
        name: str = "airllm",
    ) -> None:
        self._caps, self._act, self._seed, self.name = caps, act, seed, name

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        action = self._act(state.vector(self._caps)[None], generator(self._seed, "decide"))[0]
        return RankVector.of(decode(action, np.array(self._caps.ranks)))


def mean_reward(env: AllocationEnv, allocator: Allocator, *, episodes: int, seed: int) -> float:
    """Mean reward of an allocator's first decisions over episodes of an environment."""
    rewards = []
    for episode in range(episodes):
        env.reset(seed=None if episode else seed)
        rewards.append(env.execute(allocator.decide(env.state, env.budget_bits)).reward)
    return float(np.mean(rewards))
