"""What to send of every site: how many directions, at how many bits.

Knows numbers only; not names, shapes, bytes, or who decided them.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import index

from airtune.errors import PayloadError

BIT_WIDTHS = (4, 8, 16, 32)
"""Bits per number a payload can hold: 4 and 8 in blocks with a scale, 16 and 32 as IEEE floats."""

MAX_RANK = 2**16 - 1
"""The largest rank the container can write down (u16)."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """A rank and a number of bits for every site, in the order of the sites.

    Rank 0 sends nothing of that site. The codec honours an allocation exactly.

    Raises:
        PayloadError: unequal lengths, a rank outside 0..65535, or a bit width not in `BIT_WIDTHS`.
    """

    ranks: tuple[int, ...]
    bits: tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            ranks, bits = tuple(map(index, self.ranks)), tuple(map(index, self.bits))
        except TypeError:
            raise PayloadError("an allocation holds something that is not a whole number; give ints") from None
        if len(ranks) != len(bits):
            raise PayloadError(f"an allocation has {len(ranks)} ranks and {len(bits)} bit widths; give both per site")
        if ranks and not 0 <= min(ranks) <= max(ranks) <= MAX_RANK:
            raise PayloadError(f"an allocation has ranks {min(ranks)} to {max(ranks)}; choose 0 to {MAX_RANK}")
        if unknown := set(bits).difference(BIT_WIDTHS):
            raise PayloadError(f"an allocation has {min(unknown)} bits at a site; choose one of {BIT_WIDTHS}")
        object.__setattr__(self, "ranks", ranks)
        object.__setattr__(self, "bits", bits)

    @classmethod
    def uniform(cls, rank: int, bits: int, *, sites: int) -> Allocation:
        """The same rank and bits at every one of `sites` sites."""
        return cls((rank,) * sites, (bits,) * sites)

    @property
    def total_rank(self) -> int:
        return sum(self.ranks)

    @property
    def dense_bits(self) -> int:
        """Bits per number of the dense tensors: 32 where every site is at 32, 16 where one has 16 or more, else 8."""
        if all(width == 32 for width in self.bits):
            return 32
        return 16 if max(self.bits) >= 16 else 8

    def capped(self, levels: int) -> Allocation:
        """What is left when only the first `levels` directions of every site arrive."""
        return Allocation(tuple(min(rank, levels) for rank in self.ranks), self.bits)

    def __len__(self) -> int:
        return len(self.ranks)
