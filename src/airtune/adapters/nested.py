"""Nested training: one adapter of which every prefix of ranks is a valid adapter.

Each step, or each item of its batch, is trained under rank vectors drawn for it, so that early directions learn to
work without later ones. Knows ranks; not layers, tasks or links.
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
    of its own at every site. k is log-uniform: low ranks, which carry most, are drawn most.
    """

    full: float = 0.5
    uniform: float = 0.25
    per_item: bool = False

    def __post_init__(self) -> None:
        if not (self.full >= 0 and self.uniform >= 0 and self.full + self.uniform <= 1):
            raise ConfigError(
                f"nested shares are full {self.full}, uniform {self.uniform}; choose shares >= 0 that sum to at most 1"
            )

    def draw(self, caps: RankVector, items: int, rng: np.random.Generator, *, copies: int = 1) -> list[RankVector]:
        """Draw the vectors of a batch, every rank between 1 and its cap: one for each item, or for each copy of it.

        `items` counts every copy. The vectors are of the three kinds by their shares, to within one; in random order.
        """
        count = items if self.per_item else copies
        return [self._one(caps, kind, rng) for kind in rng.permutation((np.arange(count) + rng.random()) / count)]

    def _one(self, caps: RankVector, kind: float, rng: np.random.Generator) -> RankVector:
        top = np.array(caps.ranks)
        if kind < self.full:
            return caps
        size = 1 if kind < self.full + self.uniform else len(top)
        drawn = np.floor(np.exp(rng.random(size) * np.log(top.max() + 1))).astype(int)
        return RankVector.of(np.clip(drawn, 1, top))
