"""Ranks, one per adapter site, and what they cost in parameters. Knows sites; not layers, bits or links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from airtune.codec import Allocation
from airtune.errors import ConfigError

if TYPE_CHECKING:
    from airtune.models import Site

Count = Literal["exact", "paper"]


@dataclass(frozen=True, slots=True)
class RankVector:
    """One rank per adapter site, r_{l,m} in the paper, in the order of the sites."""

    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(not isinstance(rank, int) or rank < 0 for rank in self.ranks):
            raise ConfigError(f"ranks are {list(self.ranks)[:8]}...; expected whole numbers of at least 0")

    @classmethod
    def of(cls, ranks: Sequence[int] | np.ndarray) -> RankVector:
        """Take ranks from any sequence of whole numbers."""
        return cls(tuple(int(rank) for rank in ranks))

    @classmethod
    def uniform(cls, sites: Sequence[Site], rank: int) -> RankVector:
        """The same rank everywhere, no site above its cap min(fan_in, fan_out)."""
        return cls(tuple(min(rank, site.cap) for site in sites))

    @property
    def total(self) -> int:
        return sum(self.ranks)

    def __len__(self) -> int:
        return len(self.ranks)

    def allocation(self, bits: int) -> Allocation:
        """Send these ranks, every site at `bits` bits per number."""
        return Allocation(self.ranks, (bits,) * len(self.ranks))

    def parameters(self, sites: Sequence[Site], *, count: Count = "exact", hidden_size: int | None = None) -> int:
        """Count the adapter's numbers.

        Args:
            count: `exact` is r (fan_in + fan_out + 1) from real shapes (Eq. 6, corrected for non-square projections);
                `paper` is r * 2 d_h for every projection, which is what Table IV counts.
            hidden_size: d_h; needed for `paper`.

        Raises:
            ConfigError: the sites do not match, or `paper` without `hidden_size`.
        """
        check_sites(self, sites)
        if count == "paper":
            if hidden_size is None:
                raise ConfigError("the paper's count needs hidden_size (d_h); give the model's width")
            return self.total * 2 * hidden_size
        return sum(rank * (site.fan_in + site.fan_out + 1) for rank, site in zip(self.ranks, sites, strict=True))


def rank_caps(sites: Sequence[Site], max_rank: int) -> RankVector:
    """The largest rank of every site: r_max, or min(fan_in, fan_out) where that is smaller.

    Raises:
        ConfigError: max_rank is below 1.
    """
    if max_rank < 1:
        raise ConfigError(f"r_max is {max_rank}; choose at least 1")
    return RankVector.uniform(sites, max_rank)


def check_sites(ranks: RankVector, sites: Sequence[Site]) -> None:
    """Refuse a rank vector that is not for these sites."""
    if len(ranks) != len(sites):
        raise ConfigError(f"the rank vector has {len(ranks)} ranks, the model {len(sites)} sites; give one rank a site")
    for rank, site in zip(ranks.ranks, sites, strict=True):
        if rank > site.cap:
            raise ConfigError(f"rank {rank} at {site.path} is above its cap {site.cap}; choose at most that")
