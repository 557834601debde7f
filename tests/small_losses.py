"""Losses one can write down, for searches to be tried on, and bits that are a sum over sites."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from airtune.adapters import RankVector
from airtune.links import ChannelState
from airtune.methods.airllm.allocation import AllocationState, Trial
from airtune.methods.airllm.search.acquisition import Acquisition
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.space import Space
from airtune.tasks import Complexity

OVERHEAD = 100
STATE = AllocationState(ChannelState(0.0, 1e6), Complexity(5.0, 0.1, 50), RankVector((1, 1, 1)))


class ByFormula:
    """A trainee, and a surrogate that knows it all, whose loss is a function of the ranks."""

    def __init__(self, loss: Callable[[np.ndarray], float]) -> None:
        self.loss = loss
        self.tried: list[RankVector] = []

    def fit(self, trials: Sequence[Trial]) -> None:
        """There is nothing to learn."""

    def predict(self, ranks: np.ndarray) -> np.ndarray:
        return np.array([self.loss(row) for row in ranks], dtype=float)

    def try_ranks(self, ranks: RankVector) -> Trial:
        self.tried.append(ranks)
        return Trial(ranks, self.at(ranks))

    def at(self, ranks: RankVector) -> float:
        return float(self.loss(np.array(ranks.ranks)))


class Separable(ByFormula):
    """Loss as a sum over sites; `falls[s][k]` is what direction k of site s takes off, less with every k."""

    def __init__(self, falls: list[list[float]]) -> None:
        self.falls = [sorted(site, reverse=True) for site in falls]
        super().__init__(lambda ranks: sum(sum(fall[rank:]) for fall, rank in zip(self.falls, ranks, strict=True)))

    @property
    def caps(self) -> RankVector:
        return RankVector(tuple(len(site) for site in self.falls))


def linear_space(caps: RankVector, costs: Sequence[int] | np.ndarray) -> Space:
    """Every direction of a site weighs the same, besides 100 bits for everything else."""
    weights = np.array(costs)
    return Space(caps, lambda ranks: OVERHEAD + int(np.array(ranks.ranks) @ weights), weights)


def acquisition_on(losses: ByFormula, space: Space, surrogate: ByFormula | None = None) -> Acquisition:
    """Predicts by the losses themselves unless another surrogate is given."""
    return Acquisition(space, surrogate or losses, Archive(losses, space.air_bits))


def all_ranks(caps: RankVector) -> Iterator[RankVector]:
    return (RankVector(ranks) for ranks in itertools.product(*(range(cap + 1) for cap in caps.ranks)))


def best_loss(losses: ByFormula, space: Space, budget_bits: int) -> float:
    """By enumeration."""
    return min(losses.at(ranks) for ranks in all_ranks(space.caps) if space.air_bits(ranks) <= budget_bits)
