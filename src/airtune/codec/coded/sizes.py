"""What payloads of an adapter weigh before they are encoded: a bound, from what each direction's codes cost.

Knows bits; not codes. A payload stays under its bound by less than 1 % and some bytes a chunk: coded lengths depend on
the numbers. So a sender, or a saved policy, can decide without encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from airtune.codec.coded.bodies import Direction
from airtune.codec.coded.framing import CHUNK_ROW, frame_bytes
from airtune.codec.coded.order import by_level, chunk_of
from airtune.codec.coded.streams import BODY_BYTES, LANE_BYTES, Run, lanes_of
from airtune.codec.contents import Contents
from airtune.errors import PayloadError


@dataclass(frozen=True, slots=True, eq=False)
class CodedSizes:
    """Sizes of an adapter's payloads.

    Args:
        bits: What a direction costs with its scale and tables, shape (sites, largest rank); 0 where a site has none.
        codes: How many codes it sends, of the same shape.
        ranks: How many directions each site has.
        header_bytes: Header with the static part, without the chunk table.
        dense_bytes: Body of the dense chunk; 0 where there is none.
    """

    bits: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int64]
    ranks: tuple[int, ...]
    header_bytes: int
    dense_bytes: int

    @property
    def direction_bits(self) -> npt.NDArray[np.int64]:
        """Mean bits of a direction at each site, rounded up, shape (sites,); 1 where it has none."""
        return np.ceil(np.maximum(self.bits.sum(axis=1) / np.maximum(self.ranks, 1), 1)).astype(np.int64)

    def payload_bits(self, ranks: Sequence[int]) -> int:
        """A bound on the bits of a payload with the first ranks[i] directions of site i.

        Raises:
            PayloadError: another number of sites, or more directions than a site has.
        """
        self.check(ranks)
        return self.order_bits(by_level(ranks))

    def order_bits(self, order: Sequence[Direction]) -> int:
        """The same for any directions, in the order in which they are sent."""
        chunks = self.chunks(order)
        size = self.header_bytes + self.dense_bytes + CHUNK_ROW * (len(chunks) + (self.dense_bytes > 0))
        for chunk in chunks:
            sites, levels = np.array(chunk).T
            counts = np.bincount(sites, minlength=len(self.ranks))
            bits = Run.of(counts).bits(counts).sum() + self.bits[sites, levels].sum()
            lanes = 1 + len(lanes_of(int(self.codes[sites, levels].sum())))
            size += BODY_BYTES + lanes * LANE_BYTES + int(np.ceil(bits / 8))
        return 8 * size

    def chunks(self, order: Sequence[Direction]) -> list[list[Direction]]:
        """How an order is cut into chunks; inside a chunk directions come by site."""
        if not order:
            return []
        sites, levels = np.array(order).T
        of = chunk_of(self.bits[sites, levels])
        cuts = [0, *(np.flatnonzero(np.diff(of)) + 1).tolist(), len(order)]
        return [sorted(order[start:stop]) for start, stop in pairwise(cuts)]

    def check(self, ranks: Sequence[int]) -> None:
        """Refuse ranks that these directions cannot give; errors as `payload_bits`."""
        if len(ranks) != len(self.ranks):
            raise PayloadError(f"{len(ranks)} ranks are given, the adapter has {len(self.ranks)} sites; give one each")
        for site, (rank, most) in enumerate(zip(ranks, self.ranks, strict=True)):
            if not 0 <= rank <= most:
                raise PayloadError(f"rank {rank} is asked of site {site}, which has {most} directions; ask for less")


SIDE_BITS = 16
"""What scale and tables of a direction cost, about."""
DENSE_BITS = 6.5
"""What a number of a dense tensor costs, about: log2(16) and a Gaussian's log2(sqrt(2 pi e)), and scales."""


def estimated_sizes(contents: Contents, ranks: Sequence[int], bits_per_number: float) -> CodedSizes:
    """About what payloads that name their static part will weigh at a mean number of bits, before any numbers."""
    most = max(ranks, default=0)
    there = np.arange(most)[None, :] < np.array(ranks, np.int64)[:, None]
    numbers = np.array([[site.fan_out + site.fan_in] for site in contents.sites], np.int64).reshape(-1, 1)
    dense = sum(tensor.numbers for tensor in contents.dense)
    return CodedSizes(
        bits=there * (numbers * bits_per_number + SIDE_BITS),
        codes=there * numbers,
        ranks=tuple(ranks),
        header_bytes=frame_bytes(0, 0),
        dense_bytes=int(np.ceil(dense * DENSE_BITS / 8)) + BODY_BYTES if dense else 0,
    )
