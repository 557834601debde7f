"""Adapters <-> bytes that say whose they are, prove they are whole, and decode from any chunk boundary.

Knows no links, models or torch. Reading map, from the outside in:

    codec.py        START: encode, decode
    inspection.py   inspect: a table of what a payload holds
    layout.py       exact sizes without encoding, and how levels fall into chunks
    payload.py      Payload, Decoded
    container.py    header, chunk table, hashes
    contents.py     the static part: Binding, names and shapes, Limits
    packing.py      a site's directions and dense tensors as rows of bytes
    quantise.py     float32, float16, 8 and 4 bits in blocks
    allocation.py   Allocation: ranks and bits per site
    factors.py      Factors: P, lam, Q of a site

The format is specified in docs/payload.md.
"""

from __future__ import annotations

from airtune.codec.allocation import BIT_WIDTHS, Allocation
from airtune.codec.codec import decode, encode, layout_of
from airtune.codec.contents import Binding, Limits
from airtune.codec.factors import Factors
from airtune.codec.inspection import DenseRow, PayloadInfo, SiteRow, inspect
from airtune.codec.layout import Layout
from airtune.codec.payload import Decoded, Payload

__all__ = [
    "BIT_WIDTHS",
    "Allocation",
    "Binding",
    "Decoded",
    "DenseRow",
    "Factors",
    "Layout",
    "Limits",
    "Payload",
    "PayloadInfo",
    "SiteRow",
    "decode",
    "encode",
    "inspect",
    "layout_of",
]
