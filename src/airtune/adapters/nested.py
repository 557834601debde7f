"""Nested training: one adapter of which every prefix of ranks is a valid adapter.

Each step draws a rank vector and trains under it, so that early directions learn to work without later ones. Knows
adapters and fitting; not tasks or links.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airtune.adapters.ranks import RankVector
from airtune.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RankSampler:
    """Draws the rank vector of each training step.

    A step trains all directions with probability `full`, the same rank k everywhere with probability `uniform`, and a
    rank of its own at every site otherwise. k is log-uniform: low ranks, which carry most, are drawn most.
    """

    full: float = 0.5
    uniform: float = 0.25

    def __post_init__(self) -> None:
        if not (self.full >= 0 and self.uniform >= 0 and self.full + self.uniform <= 1):
            raise ConfigError(
                f"nested shares are full {self.full}, uniform {self.uniform}; choose shares >= 0 that sum to at most 1"
            )

    def draw(self, caps: RankVector, rng: np.random.Generator) -> RankVector:
        """Draw one rank vector, every rank between 1 and its cap."""
        top = np.array(caps.ranks)
        kind = rng.random()
        if kind < self.full:
            return caps
        size = 1 if kind < self.full + self.uniform else len(top)
        drawn = np.floor(np.exp(rng.random(size) * np.log(top.max() + 1))).astype(int)
        return RankVector.of(np.clip(drawn, 1, top))
