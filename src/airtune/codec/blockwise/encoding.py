"""Adapter -> payload of format 1 -> adapter. START HERE.

Knows the order of directions: level k is direction k of every site with a rank above k. Not links, models or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from airtune.codec.blockwise.allocation import Allocation
from airtune.codec.blockwise.container import Header, read_chunks, read_header, write
from airtune.codec.blockwise.layout import PACKING, Chunks, Layout, parameters
from airtune.codec.blockwise.packing import (
    direction_bytes,
    pack_dense,
    pack_site,
    tensor_bytes,
    unpack_dense,
    unpack_site,
)
from airtune.codec.blockwise.quantise import Bytes, Rows
from airtune.codec.contents import Binding, Contents, Limits, Meta
from airtune.codec.factors import Factors
from airtune.codec.payload import Data, Decoded, Payload
from airtune.codec.static_part import decompress_contents
from airtune.errors import PayloadError


def encode(
    factors: Mapping[str, Factors],
    dense: Mapping[str, npt.NDArray],
    allocation: Allocation,
    binding: Binding,
    meta: Meta,
) -> Payload:
    """Pack the first ranks[i] directions of site i at bits[i] bits per number, and the dense tensors.

    lam is always float32. Dense tensors have 8 bits where every site has 4 or 8, 32 where every site has 32, 16
    otherwise. At 32 bits decoding gives back exactly what went in; below, a direction whose P or Q peaks outside
    2^-10..2^10 is scaled by a power of two that lam takes over, and P diag(lam) Q keeps the bounds of `quantise.pack`.

    Args:
        factors: Updates by site, in the order of the allocation; any real dtype, any strides.
        dense: Tensors sent whole, by name; may be empty.
        meta: Notes such as the base model's name; text, integers, finite floats.

    Raises:
        PayloadError: the allocation does not fit the factors; a value is not finite or does not fit its type.
    """
    layout = layout_of(factors, dense, binding, meta)
    chunks = Chunks.of(layout.contents, allocation)
    sites = []
    for (name, site), rank, bits in zip(factors.items(), allocation.ranks, allocation.bits, strict=True):
        if rank > site.rank:
            raise PayloadError(f"the allocation asks for rank {rank} of {name}, which has {site.rank}; ask for less")
        sites.append(pack_site(name, site, rank, bits))
    bodies = [
        b"".join(rows[level].tobytes() for level in range(start, stop) for rows in sites if len(rows) > level)
        for start, stop in pairwise(chunks.starts)
    ]
    if dense:
        bodies.insert(0, b"".join(pack_dense(name, value, allocation.dense_bits) for name, value in dense.items()))
    return Payload(write(layout.static, allocation, bodies))


def layout_of(factors: Mapping[str, Factors], dense: Mapping[str, npt.NDArray], binding: Binding, meta: Meta) -> Layout:
    """The layout of payloads with these factors and tensors."""
    sites = {name: site.shape for name, site in factors.items()}
    return Layout.of(sites, {name: np.shape(tensor) for name, tensor in dense.items()}, binding, meta)


def decode_blockwise(data: Data, binding: Binding | None, limits: Limits, *, allow_prefix: bool) -> Decoded:
    """What a receiver has of a payload of format 1; arguments and errors as `codec.decode`."""
    parts = open_payload(data, limits, allow_prefix=allow_prefix)
    contents, header = parts.contents, parts.header
    if binding is not None:
        binding.check(contents.binding)
    received = header.allocation.capped(parts.levels)
    numbers = parameters(contents, received)
    numbers += sum(tensor.numbers for tensor in contents.dense) if parts.dense is not None else 0
    if 4 * numbers > limits.max_decoded_bytes:
        raise PayloadError(
            f"the payload decodes to {4 * numbers} bytes, the limit is {limits.max_decoded_bytes}; "
            "raise Limits.max_decoded_bytes"
        )
    return Decoded(
        factors={
            site.name: unpack_site(site, rows, bits)
            for site, rows, bits in zip(contents.sites, parts.rows(), received.bits, strict=True)
        },
        dense=parts.unpack_dense(),
        binding=contents.binding,
        meta=contents.meta,
        complete=parts.complete,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A checked payload, not yet unpacked.

    Args:
        dense: Body of the dense chunk; None where there is none or it did not arrive.
        bodies: Bodies of the chunks of levels that arrived.
        levels: How many levels they hold.
        complete: Whether every chunk arrived.
    """

    header: Header
    contents: Contents
    dense: memoryview | None
    bodies: tuple[memoryview, ...]
    levels: int
    complete: bool

    def rows(self) -> list[Bytes]:
        """Each site's directions as they were packed, shape (received rank, direction_bytes)."""
        allocation = self.header.allocation
        sizes = [direction_bytes(site, bits) for site, bits in zip(self.contents.sites, allocation.bits, strict=True)]
        rows: list[list[memoryview]] = [[] for _ in sizes]
        stream, at = memoryview(b"".join(self.bodies)), 0
        for level in range(self.levels):
            for place, rank in enumerate(allocation.ranks):
                if rank > level:
                    rows[place].append(stream[at : at + sizes[place]])
                    at += sizes[place]
        return [
            np.frombuffer(b"".join(site), np.uint8).reshape(len(site), size)
            for site, size in zip(rows, sizes, strict=True)
        ]

    def unpack_dense(self) -> dict[str, Rows]:
        """The dense tensors by name; empty where they did not arrive."""
        tensors: dict[str, Rows] = {}
        if self.dense is None:
            return tensors
        body, at, bits = np.frombuffer(self.dense, np.uint8), 0, self.header.allocation.dense_bits
        for tensor in self.contents.dense:
            size = tensor_bytes(tensor, bits)
            tensors[tensor.name] = unpack_dense(tensor, body[at : at + size], bits)
            at += size
        return tensors


def open_payload(data: Data, limits: Limits, *, allow_prefix: bool) -> Parts:
    """Check header, static part, sizes and every chunk that arrived, before anything is unpacked.

    Raises:
        PayloadError: as `decode`, but for the binding and the numbers themselves.
    """
    header = read_header(data, limits)
    contents = decompress_contents(header.static, limits, PACKING)
    if (rank := max(header.allocation.ranks, default=0)) > limits.max_rank:
        raise PayloadError(f"the payload has rank {rank}, the limit is {limits.max_rank}; raise Limits.max_rank")
    chunks = Chunks.of(contents, header.allocation)
    if chunks.lengths != header.lengths:
        raise PayloadError("the chunk table does not match the declared shapes, ranks and bits; get the payload again")
    bodies = read_chunks(data, header, allow_prefix=allow_prefix)
    first = 1 if contents.dense else 0
    arrived = max(len(bodies) - first, 0)
    return Parts(
        header=header,
        contents=contents,
        dense=bodies[0] if first and bodies else None,
        bodies=bodies[first:],
        levels=chunks.starts[arrived],
        complete=len(bodies) == len(header.lengths),
    )
