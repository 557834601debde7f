"""What a payload holds and what each part costs, for a table. Knows sizes; unpacks no numbers."""

from __future__ import annotations

from dataclasses import dataclass

from airtune.codec.blockwise.container import VERSION, Data
from airtune.codec.blockwise.encoding import open_payload
from airtune.codec.blockwise.packing import direction_bytes, tensor_bytes
from airtune.codec.contents import Binding, Limits, Meta


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One site: its shape (out, in), received rank of the declared one, and its bytes as a share of the payload."""

    name: str
    shape: tuple[int, int]
    rank: int
    declared_rank: int
    bits: int
    bytes: int
    share: float


@dataclass(frozen=True, slots=True)
class DenseRow:
    """One dense tensor; 0 bytes where it did not arrive."""

    name: str
    shape: tuple[int, ...]
    bits: int
    bytes: int
    share: float


@dataclass(frozen=True, slots=True)
class PayloadInfo:
    """A payload's table of contents.

    Args:
        total_bytes: What was inspected: header, and per chunk its index and its rows' bytes.
        chunk_count: Chunks the whole payload has.
        chunks_received: Chunks that are here.
    """

    version: int
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
) -> PayloadInfo:
    """List what a payload holds, after the same checks as `decode`, but for the binding and the numbers.

    Raises:
        PayloadError: as `decode`.
    """
    parts = open_payload(data, limits, allow_prefix=allow_prefix)
    declared, total = parts.header.allocation, len(memoryview(data).cast("B"))
    sites = []
    for site, rank, bits in zip(parts.contents.sites, declared.ranks, declared.bits, strict=True):
        received = min(rank, parts.levels)
        size = received * direction_bytes(site, bits)
        sites.append(SiteRow(site.name, (site.fan_out, site.fan_in), received, rank, bits, size, size / total))
    dense = []
    for tensor in parts.contents.dense:
        size = tensor_bytes(tensor, declared.dense_bits) if parts.dense is not None else 0
        dense.append(DenseRow(tensor.name, tensor.shape, declared.dense_bits, size, size / total))
    return PayloadInfo(
        version=VERSION,
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
