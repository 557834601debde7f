"""What a payload holds, what each part costs and, in format 2, what it is off by, for a table.

Knows sizes and codes. What the sender's numbers were is not in a payload, nor how the loss bends; what rounding lost is
told by the codes themselves: each stands for numbers spread evenly over one step, so for an error of a twelfth of the
step's square.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from airtune.codec.blockwise import container
from airtune.codec.blockwise.encoding import decode_blockwise, open_payload
from airtune.codec.blockwise.packing import direction_bytes, tensor_bytes
from airtune.codec.codec import chunk_ends, format_of
from airtune.codec.coded import framing
from airtune.codec.coded.held import HeldAdapter, HeldSite
from airtune.codec.coded.reading import open_coded
from airtune.codec.coded.values import CodedSite, scale_values
from airtune.codec.contents import Binding, Limits, Meta
from airtune.codec.payload import Data


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One site: its shape (out, in), rank as received, bits for each number of P and Q, bytes and their share.

    In format 2 bits and bytes are what its codes cost; scales, tables and what frames them come on top. Only there are
    known:

    Args:
        update: Share of the squared entries of all updates together, held ones that are changed included.
        error: Squared error to be expected of rounding, as a share of the site's own squared entries; not of changes.
    """

    name: str
    shape: tuple[int, int]
    rank: int
    bits: float
    bytes: int
    share: float
    update: float | None = None
    error: float | None = None


@dataclass(frozen=True, slots=True)
class DenseRow:
    """One dense tensor; 0 bytes where it did not arrive."""

    name: str
    shape: tuple[int, ...]
    bits: float
    bytes: int
    share: float


@dataclass(frozen=True, slots=True)
class PayloadInfo:
    """A payload's table of contents.

    Args:
        adapter: Name of the adapter that a receiver then holds, as far as it arrived, in hex; empty in format 1.
        changes: Name of the adapter that it must hold before, in hex; empty for a payload of its own.
        total_bytes: What was inspected.
        chunk_count: Chunks the whole payload has.
        chunks_received: Chunks that are here.
    """

    version: int
    adapter: str
    changes: str
    sites: tuple[SiteRow, ...]
    dense: tuple[DenseRow, ...]
    total_bytes: int
    header_bytes: int
    chunk_count: int
    chunks_received: int
    binding: Binding
    meta: Meta
    complete: bool


def inspect(
    data: Data,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    *,
    allow_prefix: bool = False,
    held: Mapping[bytes, bytes] | None = None,
    since: HeldAdapter | None = None,
) -> PayloadInfo:
    """List what a payload holds, after the same checks as `decode`, but for the binding.

    Raises:
        PayloadError: as `decode`.
    """
    if format_of(data) == framing.VERSION:
        return _inspect_coded(data, limits, held or {}, since, allow_prefix=allow_prefix)
    return _inspect_blockwise(data, limits, allow_prefix=allow_prefix)


def _inspect_blockwise(data: Data, limits: Limits, *, allow_prefix: bool) -> PayloadInfo:
    decode_blockwise(data, None, limits, allow_prefix=allow_prefix)  # refuses numbers that are none
    parts = open_payload(data, limits, allow_prefix=allow_prefix)
    declared, total = parts.header.allocation, len(memoryview(data).cast("B"))
    sites = []
    for site, rank, bits in zip(parts.contents.sites, declared.ranks, declared.bits, strict=True):
        received = min(rank, parts.levels)
        size = received * direction_bytes(site, bits)
        sites.append(SiteRow(site.name, (site.fan_out, site.fan_in), received, bits, size, size / total))
    dense = []
    for tensor in parts.contents.dense:
        size = tensor_bytes(tensor, declared.dense_bits) if parts.dense is not None else 0
        dense.append(DenseRow(tensor.name, tensor.shape, declared.dense_bits, size, size / total))
    return PayloadInfo(
        version=container.VERSION,
        adapter="",
        changes="",
        sites=tuple(sites),
        dense=tuple(dense),
        total_bytes=total,
        header_bytes=parts.header.size,
        chunk_count=len(parts.header.lengths),
        chunks_received=len(parts.bodies) + (parts.dense is not None),
        binding=parts.contents.binding,
        meta=parts.contents.meta,
        complete=parts.complete,
    )


def _inspect_coded(
    data: Data, limits: Limits, held: Mapping[bytes, bytes], since: HeldAdapter | None, *, allow_prefix: bool
) -> PayloadInfo:
    opened = open_coded(data, None, limits, held, since, allow_prefix=allow_prefix)
    contents = opened.held.contents
    total, ends = len(memoryview(data).cast("B")), chunk_ends(data)
    sites, squares = [], {name: _square(site) for name, site in opened.held.sites.items()}
    whole = sum(squares.values()) or 1.0
    for name, site in opened.coded.sites.items():
        bits, numbers = float(site.bits.sum()), site.rank * sum(site.shape)
        size = round(bits / 8)
        row = SiteRow(name, site.shape, site.rank, bits / max(numbers, 1), size, size / total, squares[name] / whole)
        sites.append(row if opened.frame.changes else replace(row, error=_error(site) / (squares[name] or 1.0)))
    dense = []
    for shape in contents.dense:
        tensor = opened.coded.dense.get(shape.name)
        bits = tensor.bits if tensor is not None else 0.0
        size = round(bits / 8)
        dense.append(DenseRow(shape.name, shape.shape, bits / shape.numbers, size, size / total))
    return PayloadInfo(
        version=framing.VERSION,
        adapter=opened.held.name.hex(),
        changes=opened.frame.changes.hex(),
        sites=tuple(sites),
        dense=tuple(dense),
        total_bytes=total,
        header_bytes=ends[0],
        chunk_count=len(ends) - 1,
        chunks_received=len(opened.frame.chunks),
        binding=contents.binding,
        meta=contents.meta,
        complete=opened.frame.complete,
    )


def _square(site: HeldSite) -> float:
    """Sum of an update's squared entries."""
    there = np.flatnonzero(site.p.any(axis=0) & site.q.any(axis=1))  # zeros cost no bytes, and take none here
    p, q = site.p[:, there].astype(np.float64), site.q[there].astype(np.float64)
    scales = scale_values(site.scales[there]).astype(np.float64)
    return max(float(scales @ ((p.T @ p) * (q @ q.T)) @ scales), 0.0)


def _error(site: CodedSite) -> float:
    """The squared error to be expected of rounding to these codes."""
    (fan_out, fan_in), there = site.shape, np.flatnonzero((site.p_tables > 0) & (site.q_tables > 0))
    p, q = site.p[:, there].astype(np.float64), site.q[there].astype(np.float64)
    scales = scale_values(site.scales[there]).astype(np.float64)
    error = fan_out * (q**2).sum(axis=1) + fan_in * (p**2).sum(axis=0) + fan_out * fan_in / 12
    return float((scales**2 * error).sum()) / 12
