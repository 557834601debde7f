"""Adapters <-> bytes that say whose they are, prove they are whole, and decode from any chunk boundary.

Knows no links, models or torch. Reading map, from the outside in:

    codec.py        START: decode, whatever the format; held_after, chunk_ends, whole_prefix, self_contained
    coded/          format 2: whole numbers, entropy-coded, the most valuable first (Draft, code_adapter),
                    or changes of an adapter that is held (Refiner)
    blockwise/      format 1: blocks with a scale, or floats; sizes known from shapes alone (encode, Layout)
    entropy/        codes <-> words
    measured.py     fit_measured: of payloads that fill a budget, the one of least measured loss
    files.py        read_payload, read_held: payload files, with those that they change
    inspection.py   inspect: a table of what a payload holds
    payload.py      Payload, Decoded
    contents.py     what a payload is about: Binding, names and shapes, Limits
    static_part.py  that <-> JSON in zlib
    factors.py      Factors: P, lam, Q of a site

The formats are specified in docs/payload.md.
"""

from __future__ import annotations

from airtune.codec.blockwise.allocation import BIT_WIDTHS, Allocation
from airtune.codec.blockwise.encoding import encode, layout_of
from airtune.codec.blockwise.layout import Layout
from airtune.codec.codec import changes_of, chunk_ends, decode, held_after, left_out_of, self_contained, whole_prefix
from airtune.codec.coded.curvature import Curvature, expected_loss
from airtune.codec.coded.draft import Draft
from airtune.codec.coded.fit import fit_bits, fit_budget
from airtune.codec.coded.framing import held_static
from airtune.codec.coded.held import HeldAdapter
from airtune.codec.coded.quantiser import Quantised, Quantiser, code_adapter
from airtune.codec.coded.refining import Refiner
from airtune.codec.coded.sizes import CodedSizes, estimated_sizes
from airtune.codec.coded.values import (
    LARGEST_SCALE,
    SCALE_STEPS,
    Coded,
    CodedSite,
    CodedTensor,
    scale_values,
    tables_of,
)
from airtune.codec.contents import Binding, Contents, Limits
from airtune.codec.factors import Factors
from airtune.codec.files import read_held, read_payload
from airtune.codec.inspection import DenseRow, PayloadInfo, SiteRow, inspect
from airtune.codec.measured import DAMPINGS, Fit, damped, fit_measured, quantisers_of
from airtune.codec.payload import Decoded, Payload

__all__ = [
    "BIT_WIDTHS",
    "Allocation",
    "Binding",
    "Coded",
    "CodedSite",
    "CodedSizes",
    "CodedTensor",
    "Contents",
    "Curvature",
    "DAMPINGS",
    "Decoded",
    "DenseRow",
    "Draft",
    "Factors",
    "Fit",
    "HeldAdapter",
    "LARGEST_SCALE",
    "Layout",
    "Limits",
    "Payload",
    "PayloadInfo",
    "Quantised",
    "Quantiser",
    "Refiner",
    "SCALE_STEPS",
    "SiteRow",
    "changes_of",
    "chunk_ends",
    "code_adapter",
    "damped",
    "decode",
    "encode",
    "estimated_sizes",
    "expected_loss",
    "fit_bits",
    "fit_budget",
    "fit_measured",
    "held_after",
    "held_static",
    "inspect",
    "layout_of",
    "left_out_of",
    "quantisers_of",
    "read_held",
    "read_payload",
    "scale_values",
    "self_contained",
    "tables_of",
    "whole_prefix",
]
