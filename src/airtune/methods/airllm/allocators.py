"""Who decides the ranks: uniform, random, greedy, and AirLLM's policy. Each answers one question, `decide`.

An answer is what the allocator asks for; projection onto the deadline comes after it, the same for all. Knows states
and predicted losses; not models, codecs or transports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final

import numpy as np

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import AllocationState, BitsOf, TryRanks, project
from airtune.methods.airllm.coarse import CoarsePolicy
from airtune.methods.airllm.encoding import decode
from airtune.methods.airllm.refine import Refiner

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
    """Backward elimination, then exchange moves between sites (ARCHITECTURE.md, rules of measurement).

    Starting from the full adapter, the direction whose loss per bit is least goes first; the path does not depend on
    the budget, so it is walked once. At a budget, moves of one rank from site to site follow while the predicted loss
    falls. The real loss has the last word: the proposal, projected uniform, and the most promising moves from the
    better of the two are measured, and the best measured vector is the answer.

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

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        if self._air_bits(self._caps) <= budget_bits:
            return self._caps
        proposal = self._exchange(self._fill(self._on_path(budget_bits), budget_bits), budget_bits)
        uniform = project(self._caps, self._air_bits, budget_bits)
        best = min((self._trainee.try_ranks(ranks) for ranks in (proposal, uniform)), key=lambda trial: trial.loss)
        for ranks in self._feasible_moves(np.array(best.ranks.ranks), budget_bits)[: self._moves]:
            trial = self._trainee.try_ranks(RankVector.of(ranks))
            best = min(best, trial, key=lambda found: found.loss)
        return best.ranks

    def _eliminate(self) -> list[RankVector]:
        """Full adapter to none, one direction less at a time, always the one that costs least loss per bit saved."""
        ranks = np.array(self._caps.ranks)
        path = [RankVector.of(ranks)]
        while ranks.any():
            sites = np.flatnonzero(ranks)
            candidates = np.repeat(ranks[None], len(sites), axis=0)
            candidates[np.arange(len(sites)), sites] -= 1
            rises = self._predict(candidates) - self._predict(ranks[None])
            ranks = candidates[np.argmin(rises / self._direction_bits[sites])]
            path.append(RankVector.of(ranks))
        return path

    def _on_path(self, budget_bits: int) -> np.ndarray:
        low, high = 0, len(self._path) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._air_bits(self._path[middle]) <= budget_bits else (middle + 1, high)
        return np.array(self._path[low].ranks)

    def _fill(self, ranks: np.ndarray, budget_bits: int) -> np.ndarray:
        """Spend what is left on the directions that promise most per bit."""
        caps = np.array(self._caps.ranks)
        while True:
            sites = [s for s in np.flatnonzero(ranks < caps) if self._fits(ranks, budget_bits, up=int(s))]
            if not sites:
                return ranks
            candidates = np.repeat(ranks[None], len(sites), axis=0)
            candidates[np.arange(len(sites)), sites] += 1
            ranks = candidates[
                np.argmin((self._predict(candidates) - self._predict(ranks[None])) / self._direction_bits[sites])
            ]

    def _exchange(self, ranks: np.ndarray, budget_bits: int) -> RankVector:
        """Move directions between sites while the predicted loss falls."""
        best = float(self._predict(ranks[None])[0])
        while moves := self._feasible_moves(ranks, budget_bits)[:1]:
            loss = float(self._predict(moves[0][None])[0])
            if loss >= best - 1e-9:
                break
            ranks, best = self._fill(moves[0], budget_bits), loss
        return RankVector.of(ranks)

    def _feasible_moves(self, ranks: np.ndarray, budget_bits: int) -> list[np.ndarray]:
        """Vectors one move away that fit, most promising first, as many as are ever measured."""
        givers, takers = np.flatnonzero(ranks), np.flatnonzero(ranks < np.array(self._caps.ranks))
        pairs = [(giver, taker) for giver in givers for taker in takers if giver != taker]
        if not pairs:
            return []
        candidates = np.repeat(ranks[None], len(pairs), axis=0)
        for row, (giver, taker) in enumerate(pairs):
            candidates[row, giver] -= 1
            candidates[row, taker] += 1
        found: list[np.ndarray] = []
        for row in np.argsort(self._predict(candidates), kind="stable"):
            if self._fits(candidates[row], budget_bits):
                found.append(candidates[row])
            if len(found) >= max(1, self._moves):
                break
        return found

    def _fits(self, ranks: np.ndarray, budget_bits: int, up: int | None = None) -> bool:
        if up is not None:
            ranks = ranks.copy()
            ranks[up] += 1
        return self._air_bits(RankVector.of(ranks)) <= budget_bits


@final
class AirLLM:
    """PPO's mean latent, refined by the DDIM from fixed noise, decoded by Eq. 18."""

    name = "airllm"

    def __init__(self, caps: RankVector, coarse: CoarsePolicy, refiner: Refiner, rng: np.random.Generator) -> None:
        self._caps, self._coarse, self._refiner, self._rng = caps, coarse, refiner, rng

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        observation = state.vector(self._caps)[None]
        refined = self._refiner.refine(observation, self._coarse.act(observation), self._rng)
        return RankVector.of(decode(refined[0], np.array(self._caps.ranks)))
