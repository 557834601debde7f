"""What encoding gives and what decoding gives back. Knows no numbers' packing; see `container` for the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from airtune.codec.container import read_header
from airtune.codec.contents import Binding, Limits, Meta
from airtune.codec.factors import Factors


@dataclass(frozen=True, slots=True)
class Payload:
    """An encoded adapter: the bytes of an `.atn` file."""

    data: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, 64 hex digits."""
        return sha256(self.data).hexdigest()

    @property
    def bits(self) -> int:
        return 8 * len(self.data)

    @property
    def chunk_ends(self) -> tuple[int, ...]:
        """Lengths at which a prefix is a valid adapter: after the header, then after every chunk; the last is all."""
        size = len(self.data)
        limits = Limits(max_bytes=size, max_static_bytes=size, max_sites=size)
        if format_of(self.data) == framing.VERSION:
            return framing.read_ends(self.data, limits)
        return read_header(self.data, limits).chunk_ends


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A decoded adapter, every tensor float32.

    Args:
        factors: Each site's update, as many directions as arrived.
        dense: The dense tensors, empty where their chunk did not arrive.
        binding: The base model and tokenizer it is for.
        meta: The sender's notes.
        complete: Whether nothing is missing.
    """

    factors: Mapping[str, Factors]
    dense: Mapping[str, npt.NDArray[np.float32]]
    binding: Binding
    meta: Meta
    complete: bool

    @property
    def ranks(self) -> tuple[int, ...]:
        """How many directions of each site arrived."""
        return tuple(site.rank for site in self.factors.values())
