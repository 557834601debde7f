"""What a rank vector weighs: bits of its payload and on the air, known before anything is encoded.

Knows what directions weigh and the message that carries a payload; not values, losses or links.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from airtune.adapters import RankVector
from airtune.codec import Allocation, CodedSizes, Contents, Layout
from airtune.transport import JSON, air_overhead_bits

BITS, CODES = "sizes.bits", "sizes.codes"
"""Names of arrays beside a policy's."""


class Weigh(Protocol):
    """What payloads of an adapter weigh: `Blocks`, or `codec.CodedSizes`."""

    def payload_bits(self, ranks: Sequence[int]) -> int:
        """Bits of a payload with these ranks, exactly or at most."""

    @property
    def direction_bits(self) -> np.ndarray:
        """Bits of one direction at each site, shape ``(sites,)``; their mean where directions differ."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Format 1, at so many bits per number: exact, from shapes alone."""

    layout: Layout
    bits: int

    def payload_bits(self, ranks: Sequence[int]) -> int:
        return self.layout.payload_bits(Allocation(tuple(ranks), (self.bits,) * len(ranks)))

    @property
    def direction_bits(self) -> np.ndarray:
        return self.layout.site_bits(self.bits)


def weighing(weigh: Weigh) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a file must hold of it: settings and arrays. The inverse of `weighed`."""
    if isinstance(weigh, Blocks):
        return {"bits": weigh.bits}, {}
    assert isinstance(weigh, CodedSizes)
    told = {"ranks": weigh.ranks, "header_bytes": weigh.header_bytes, "dense_bytes": weigh.dense_bytes}
    return {"coded": told}, {BITS: weigh.bits, CODES: weigh.codes}


def weighed(told: Mapping[str, Any], arrays: dict[str, np.ndarray], contents: Contents) -> Weigh:
    """What a file holds of it; its arrays are taken out of `arrays`.

    Raises:
        KeyError, TypeError, ValueError, AirtuneError: the file is damaged.
    """
    if "coded" not in told:
        return Blocks(Layout(contents), told["bits"])
    coded, bits, codes = told["coded"], arrays.pop(BITS), arrays.pop(CODES)
    ranks = tuple(int(rank) for rank in coded["ranks"])
    shape = len(contents.sites), max(ranks, default=0)
    if not (bits.shape == codes.shape == shape and np.isfinite(bits).all() and bits.min(initial=0) >= 0):
        raise ValueError(f"sizes have shapes {bits.shape} and {codes.shape}, expected {shape} and finite numbers")
    return CodedSizes(bits, codes, ranks, int(coded["header_bytes"]), int(coded["dense_bytes"]))


class Sizes:
    """Bits of the prefixes of an adapter.

    Args:
        contents: Its sites, head, and what the header says.
        weigh: What its payloads weigh.
    """

    def __init__(self, contents: Contents, weigh: Weigh) -> None:
        self.contents, self.weigh = contents, weigh
        self.overhead_bits = adapter_overhead_bits()
        self._known: dict[RankVector, int] = {}

    def payload_bits(self, ranks: RankVector) -> int:
        """Bits of the payload: adapter, head, container."""
        if ranks not in self._known:
            self._known[ranks] = self.weigh.payload_bits(ranks.ranks)
        return self._known[ranks]

    def air_bits(self, ranks: RankVector) -> int:
        """Bits on the air: the payload, its manifest and the request that carries it."""
        return self.payload_bits(ranks) + self.overhead_bits

    @property
    def direction_bits(self) -> np.ndarray:
        """Bits of one direction at each site, shape ``(sites,)``."""
        return self.weigh.direction_bits


def adapter_header(payload_sha256: str) -> dict[str, JSON]:
    """The header of the message that delivers a payload."""
    return {"payload_sha256": payload_sha256}


def adapter_overhead_bits() -> int:
    """Bits on the air beside the payload's own: manifest, message frame, request head."""
    return air_overhead_bits("adapter", adapter_header("0" * 64))
