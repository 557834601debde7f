"""Nested training: one adapter of which every prefix of ranks is a valid adapter.

Each step, or each item of its batch, is trained under a rank vector drawn for it, so that early directions learn to
work without later ones, in one pass over the batch; or every item at several ranks at once, in as many passes. Knows
ranks; not layers, tasks or links.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airtune.adapters.ranks import RankVector
from airtune.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RankSampler:
    """Draws the rank vectors of training batches: one for a whole batch, or with `per_item` one for each item.

    A share `full` of the vectors has all directions, a share `uniform` the same rank k everywhere, and the rest a rank
    of its own at every site. k is log-uniform: low ranks, which carry most, are drawn most. In a share `off` of those
    with ranks of their own, the largest rank is drawn first and sites are switched off besides, each with a chance that
    is drawn once for all; one stays on. So what little links carry is trained too.

    With `prefixes` above 1 nothing of this is left to chance: a batch is copied as often, and its copies have r_max,
    r_max / 2, r_max / 4, ... 1 everywhere; those beyond are mixed. (Yu and Huang 2019 sum the largest, the smallest and
    some random widths of a network; here those between are fixed too.) With `octaves` an item of a copy between takes
    any rank from its halving to below the one above, evenly drawn, so that no rank goes untrained.
    """

    full: float = 0.5
    uniform: float = 0.25
    per_item: bool = False
    prefixes: int = 1
    rank_one_weight: float = 2.0
    off: float = 0.0
    octaves: bool = False

    def __post_init__(self) -> None:
        if not (self.full >= 0 and self.uniform >= 0 and self.full + self.uniform <= 1):
            raise ConfigError(
                f"nested shares are full {self.full}, uniform {self.uniform}; choose shares >= 0 that sum to at most 1"
            )

    def draw(self, caps: RankVector, items: int, rng: np.random.Generator) -> list[RankVector]:
        """Draw the vectors of a batch, every rank at most its cap: one, or one for each item of each copy.

        Items get the three kinds by their shares, to within one in each batch; which item gets which is random.
        """
        if self.prefixes > 1:
            evens = self._halvings(caps)
            drawn = np.repeat(evens, items)
            if self.octaves:
                drawn = rng.integers(drawn, np.repeat([evens[0] + 1, *evens[:-1]], items))
            mixed = (self.prefixes - len(evens)) * items
            ranks = [RankVector.of(np.minimum(caps.ranks, k)) for k in drawn]
            return ranks + [self._one(caps, 1, rng) for _ in range(mixed)]
        count = items if self.per_item else 1
        return [self._one(caps, kind, rng) for kind in rng.permutation((np.arange(count) + rng.random()) / count)]

    def weights(self, caps: RankVector) -> tuple[float, ...]:
        """Weight of each copy in a step's loss, summing to 1: rank 1 counts `rank_one_weight` times what r_max counts.

        Between r_max and 1 it rises or falls evenly; a mixed copy counts as r_max does.
        """
        evens = len(self._halvings(caps))
        weights = np.ones(self.prefixes)
        weights[:evens] = np.linspace(1, self.rank_one_weight, evens) if evens > 1 else 1
        return tuple((weights / weights.sum()).tolist())

    def _halvings(self, caps: RankVector) -> list[int]:
        top = max(caps.ranks)
        return [top >> halved for halved in range(top.bit_length())][: self.prefixes]

    def _one(self, caps: RankVector, kind: float, rng: np.random.Generator) -> RankVector:
        top = np.array(caps.ranks)
        if kind < self.full:
            return caps
        size = 1 if kind < self.full + self.uniform else len(top)
        some_off = size > 1 and self.off > 0 and rng.random() < self.off
        most = self._log_uniform(top.max(), 1, rng)[0] if some_off else top.max()
        ranks = np.clip(self._log_uniform(most, size, rng), 1, top)
        if some_off:
            stays = rng.integers(len(top))
            ranks[(rng.random(len(top)) < rng.random()) & (np.arange(len(top)) != stays)] = 0
        return RankVector.of(ranks)

    @staticmethod
    def _log_uniform(most: int, size: int, rng: np.random.Generator) -> np.ndarray:
        """Whole numbers from 1 to `most`, shape ``(size,)``, low ones drawn most."""
        return np.floor(np.exp(rng.random(size) * np.log(most + 1))).astype(int)
