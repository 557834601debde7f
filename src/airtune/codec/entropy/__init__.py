"""Codes to words and back, within 1 % of what their tables say they cost.

tables.py   START: discrete Gaussians in whole numbers; the table under which some codes cost least
lanes.py    asymmetric numeral systems, many streams side by side in NumPy
native.py   the same words by constriction, where it is installed
"""

from __future__ import annotations

from collections.abc import Sequence

from airtune.codec.entropy import lanes as _lanes
from airtune.codec.entropy import native as _native
from airtune.codec.entropy.lanes import Words
from airtune.codec.entropy.tables import (
    LARGEST_CODE,
    TABLES,
    Codes,
    TableIndices,
    best_table,
    code_bits,
    largest_code,
)

LANE_CODES = 8192
"""Codes of a lane, about: a lane costs some 5 bytes beyond its codes, and as many steps to decode as it has codes."""


def encode_lanes(lanes: Sequence[tuple[Codes, TableIndices]]) -> list[Words]:
    """The words of every lane; see `lanes.encode_lanes`."""
    return (_native if _native.AVAILABLE else _lanes).encode_lanes(lanes)


def decode_lanes(lanes: Sequence[tuple[Words, TableIndices]]) -> list[Codes]:
    """The codes of every lane; see `lanes.decode_lanes`."""
    return (_native if _native.AVAILABLE else _lanes).decode_lanes(lanes)


__all__ = [
    "LANE_CODES",
    "LARGEST_CODE",
    "TABLES",
    "Codes",
    "TableIndices",
    "Words",
    "best_table",
    "code_bits",
    "decode_lanes",
    "encode_lanes",
    "largest_code",
]
