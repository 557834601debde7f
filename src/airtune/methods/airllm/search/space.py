"""The space that searches walk: rank vectors within the caps, what they weigh, and which are one move apart.

Knows caps and bits; not losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import BitsOf, project


@dataclass(frozen=True)
class Space:
    """Rank vectors of one adapter; vectors are arrays of shape ``(sites,)``, several of them ``(n, sites)``.

    Args:
        caps: Largest rank of each site.
        air_bits: Bits on the air of a rank vector.
        direction_bits: Bits of one direction at each site, shape ``(sites,)``.
    """

    caps: RankVector
    air_bits: BitsOf
    direction_bits: np.ndarray

    @property
    def top(self) -> np.ndarray:
        return np.array(self.caps.ranks)

    def bits(self, ranks: np.ndarray) -> int:
        return self.air_bits(RankVector.of(ranks))

    def fits(self, ranks: np.ndarray, budget_bits: int) -> bool:
        return self.bits(ranks) <= budget_bits

    def uniform(self, budget_bits: int) -> RankVector:
        """The caps, projected. Raises `DeadlineError` where nothing fits."""
        return project(self.caps, self.air_bits, budget_bits)

    def lowered(self, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vectors with one direction less, and the site each lost it at."""
        sites = np.flatnonzero(ranks)
        return _changed(ranks, sites, -1), sites

    def raised(self, ranks: np.ndarray, budget_bits: int) -> tuple[np.ndarray, np.ndarray]:
        """Vectors with one direction more that fit, and the site each got it at."""
        room = budget_bits - self.bits(ranks)
        sites = np.flatnonzero((ranks < self.top) & (self.direction_bits <= room))
        raised = _changed(ranks, sites, 1)
        kept = np.array([self.fits(row, budget_bits) for row in raised], dtype=bool)  # chunk headers weigh too
        return raised[kept], sites[kept]

    def exchanged(self, ranks: np.ndarray, budget_bits: int) -> np.ndarray:
        """Vectors with one direction more at a site, paid for by another site with as many as that takes.

        They fit by the bits of directions; a chunk header more can still be too much, so ask `fits` before use.
        """
        room = budget_bits - self.bits(ranks)
        missing = self.direction_bits[None, :] - room  # of each taker
        given = np.maximum(1, -(-missing // self.direction_bits[:, None]))  # (giver, taker)
        possible = (given <= ranks[:, None]) & (ranks < self.top)[None, :]
        np.fill_diagonal(possible, False)
        givers, takers = np.nonzero(possible)
        moved, rows = np.repeat(ranks[None], len(givers), axis=0), np.arange(len(givers))
        moved[rows, givers] -= given[givers, takers]
        moved[rows, takers] += 1
        return moved


def _changed(ranks: np.ndarray, sites: np.ndarray, by: int) -> np.ndarray:
    changed = np.repeat(ranks[None], len(sites), axis=0)
    changed[np.arange(len(sites)), sites] += by
    return changed
