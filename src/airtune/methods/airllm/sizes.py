"""What a rank vector weighs: bits of its payload and on the air, known exactly before anything is encoded.

Knows shapes and the message that carries a payload; not values, losses or links.
"""

from __future__ import annotations

import numpy as np

from airtune.adapters import RankVector
from airtune.codec import Layout
from airtune.transport import JSON, air_overhead_bits


class Sizes:
    """Bits of the prefixes of an adapter.

    Args:
        layout: Shapes of sites and head, and what the header says.
        bits: Bits per number of a factor.
    """

    def __init__(self, layout: Layout, bits: int) -> None:
        self.layout, self.bits = layout, bits
        self._overhead_bits = adapter_overhead_bits()
        self._known: dict[RankVector, int] = {}

    def payload_bits(self, ranks: RankVector) -> int:
        """Bits of the payload: adapter, head, container."""
        if ranks not in self._known:
            self._known[ranks] = self.layout.payload_bits(ranks.allocation(self.bits))
        return self._known[ranks]

    def air_bits(self, ranks: RankVector) -> int:
        """Bits on the air: the payload, its manifest and the request that carries it."""
        return self.payload_bits(ranks) + self._overhead_bits

    @property
    def direction_bits(self) -> np.ndarray:
        """Bits of one direction at each site, shape ``(sites,)``."""
        return self.layout.site_bits(self.bits)


def adapter_header(payload_sha256: str) -> dict[str, JSON]:
    """The header of the message that delivers a payload."""
    return {"payload_sha256": payload_sha256}


def adapter_overhead_bits() -> int:
    """Bits on the air beside the payload's own: manifest, message frame, request head."""
    return air_overhead_bits("adapter", adapter_header("0" * 64))
