"""Exact sizes without encoding: what an allocation costs in bytes, and how its levels fall into chunks.

Knows shapes, ranks and bits; not values. Level k is direction k of every site with a rank above k, in the order of the
sites; consecutive levels share a chunk until it holds at least 4096 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from airtune.codec.blockwise.allocation import BIT_WIDTHS, Allocation
from airtune.codec.blockwise.container import CHUNK_INDEX, CHUNK_OVERHEAD, header_bytes
from airtune.codec.blockwise.packing import direction_bytes, tensor_bytes
from airtune.codec.blockwise.quantise import BLOCK
from airtune.codec.contents import Binding, Contents, Meta
from airtune.codec.static_part import Packing, compress_contents
from airtune.errors import PayloadError

PACKING: Packing = {"codec": "blockwise", "block": BLOCK}
"""What the static part says of how numbers are packed."""

CHUNK_BYTES = 4096
"""A chunk takes in level after level until it holds this much."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Sizes of payloads with these contents. Building one compresses the static part once; asking it is fast.

    Example:
        >>> layout = Layout.of({"query": (384, 384)}, {}, Binding("0" * 64, "1" * 64), {})
        >>> layout.payload_bits(Allocation((2,), (8,))) - layout.payload_bits(Allocation((1,), (8,)))
        6368
        >>> layout.site_bits(8)  # 32 for lam, then 384 numbers in 6 blocks, twice: 32 + 2 * (6 * 16 + 384 * 8)
        array([6368])
    """

    contents: Contents
    static: bytes = field(init=False, repr=False)
    _costs: Counts = field(init=False, repr=False)  # bytes of a direction, by (bits, site)
    _caps: Counts = field(init=False, repr=False)
    _places: Counts = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sites = self.contents.sites
        costs = np.zeros((max(BIT_WIDTHS) + 1, len(sites)), np.int64)
        for bits in BIT_WIDTHS:
            costs[bits] = [direction_bytes(site, bits) for site in sites]
        object.__setattr__(self, "static", compress_contents(self.contents, PACKING))
        object.__setattr__(self, "_costs", costs)
        object.__setattr__(self, "_caps", np.array([site.cap for site in sites], np.int64))
        object.__setattr__(self, "_places", np.arange(len(sites)))

    @classmethod
    def of(
        cls,
        sites: Mapping[str, tuple[int, int]],
        dense: Mapping[str, tuple[int, ...]],
        binding: Binding,
        meta: Meta,
    ) -> Layout:
        """From shapes by name: (out, in) of every site, and the shape of every dense tensor."""
        return cls(Contents.of(sites, dense, binding, meta))

    def payload_bits(self, allocation: Allocation) -> int:
        """Exactly 8 * len(encode(...).data): adapter, dense tensors and container.

        Raises:
            PayloadError: another number of sites, or a rank above min(out, in).
        """
        check_allocation(self.contents, allocation, self._caps)
        ranks = np.array(allocation.ranks, np.int64)
        costs = self._costs[np.array(allocation.bits, np.int64), self._places]
        dense = self._dense_bytes(allocation.dense_bits)
        chunks = (dense > 0) + count_chunks(level_bytes(ranks, costs))
        body = dense + int(ranks @ costs) + CHUNK_OVERHEAD * chunks
        return 8 * (header_bytes(len(self.static), len(ranks), 0) + body)

    def container_bits(self, bits: int = 16) -> int:
        """What a payload costs with rank 0 everywhere and every site at `bits`: header and dense tensors."""
        return self.payload_bits(Allocation.uniform(0, bits, sites=len(self.contents.sites)))

    def site_bits(self, bits: int) -> Counts:
        """What one more direction of each site costs at `bits` bits per number, shape (sites,).

        The payload also grows by `8 * CHUNK_OVERHEAD` bits whenever a direction opens a new chunk.
        """
        if bits not in BIT_WIDTHS:
            raise PayloadError(f"found {bits} bits per number; choose one of {BIT_WIDTHS}")
        return 8 * self._costs[bits]

    def parameters(self, allocation: Allocation) -> int:
        """Numbers the adapter sends, r (in + out + 1) a site (Eq. 6 for any shape), dense tensors not counted."""
        check_allocation(self.contents, allocation, self._caps)
        return parameters(self.contents, allocation)

    def _dense_bytes(self, bits: int) -> int:
        return sum(tensor_bytes(tensor, bits) for tensor in self.contents.dense)


@dataclass(frozen=True, slots=True)
class Chunks:
    """How a payload's bodies are cut: the dense tensors, if any, then groups of levels.

    Args:
        dense_bytes: Bytes of all dense tensors.
        levels: How many levels every chunk of levels holds.
        level_bytes: Bytes of every level.
    """

    dense_bytes: int
    levels: tuple[int, ...]
    level_bytes: tuple[int, ...]

    @classmethod
    def of(cls, contents: Contents, allocation: Allocation) -> Chunks:
        """Raises `PayloadError` where the allocation does not fit the sites."""
        check_allocation(contents, allocation, np.array([site.cap for site in contents.sites], np.int64))
        costs = [direction_bytes(site, bits) for site, bits in zip(contents.sites, allocation.bits, strict=True)]
        sizes = level_bytes(np.array(allocation.ranks, np.int64), np.array(costs, np.int64)).tolist()
        dense = sum(tensor_bytes(tensor, allocation.dense_bits) for tensor in contents.dense)
        return cls(dense, group_levels(sizes), tuple(sizes))

    @property
    def starts(self) -> tuple[int, ...]:
        """First level of every chunk of levels, then the number of levels."""
        return tuple(accumulate(self.levels, initial=0))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Bytes of every chunk as sent."""
        bodies = [sum(self.level_bytes[start:stop]) for start, stop in pairwise(self.starts)]
        return tuple(CHUNK_INDEX.size + body for body in ([self.dense_bytes] if self.dense_bytes else []) + bodies)


def parameters(contents: Contents, allocation: Allocation) -> int:
    """Numbers of all factors: r (in + out + 1) a site."""
    pairs = zip(allocation.ranks, contents.sites, strict=True)
    return sum(rank * (site.fan_out + site.fan_in + 1) for rank, site in pairs)


def check_allocation(contents: Contents, allocation: Allocation, caps: Counts) -> None:
    """Refuse an allocation for another number of sites, or with a rank above a site's min(out, in)."""
    if len(allocation) != len(caps):
        raise PayloadError(f"the allocation is for {len(allocation)} sites, the adapter has {len(caps)}; give one each")
    above = np.flatnonzero(np.array(allocation.ranks, np.int64) > caps)
    if len(above):
        site = contents.sites[above[0]]
        raise PayloadError(
            f"rank {allocation.ranks[above[0]]} at {site.name} is above min(out, in) = {site.cap}; choose at most that"
        )


def level_bytes(ranks: Counts, costs: Counts) -> Counts:
    """Bytes of every level, shape (max rank,): level k sums the costs of the sites with a rank above k."""
    ending = np.bincount(ranks, weights=costs).astype(np.int64)  # costs by the level that no longer has the site
    return ending[::-1].cumsum()[::-1][1:] if len(ending) else ending


def group_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """How many consecutive levels each chunk holds: levels join until the chunk has `CHUNK_BYTES`."""
    groups, held, count = [], 0, 0
    for size in levels:
        held, count = held + size, count + 1
        if held >= CHUNK_BYTES:
            groups.append(count)
            held, count = 0, 0
    return (*groups, count) if count else tuple(groups)


def count_chunks(levels: Counts) -> int:
    """How many chunks `group_levels` makes. Levels never grow, so those that fill a chunk alone come first."""
    alone = int(np.count_nonzero(levels >= CHUNK_BYTES))
    return alone + len(group_levels(levels[alone:].tolist()))
