"""What encoding gives and what decoding gives back. Knows no numbers' packing; nor their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from airtune.codec.contents import Binding, Meta
from airtune.codec.factors import Factors

if TYPE_CHECKING:
    from airtune.codec.coded.held import HeldAdapter

MAGIC = b"\x89atn"
"""What every payload begins with; its format's number follows as u16."""

Data = bytes | bytearray | memoryview


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


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A decoded adapter, every tensor float32.

    Args:
        factors: Each site's update, as many directions as arrived.
        dense: The dense tensors, empty where their chunk did not arrive.
        binding: The base model and tokenizer it is for.
        meta: The sender's notes.
        complete: Whether nothing is missing.
        held: The same in whole numbers, for later payloads that change it; None in format 1, whose adapters no
            payload changes.
    """

    factors: Mapping[str, Factors]
    dense: Mapping[str, npt.NDArray[np.float32]]
    binding: Binding
    meta: Meta
    complete: bool
    held: HeldAdapter | None = None

    @property
    def ranks(self) -> tuple[int, ...]:
        """How many directions of each site arrived."""
        return tuple(site.rank for site in self.factors.values())
