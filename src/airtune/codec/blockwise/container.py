"""The bytes around the numbers: preamble, static part, ranks and bits, chunk table, hashes.

Knows offsets, lengths and SHA-256; not how a chunk's numbers are packed. `docs/payload.md` specifies every byte.
Reading trusts nothing: lengths are compared with the bytes at hand before anything is cut out, the header's hash is
checked before its JSON is parsed, and a chunk's hash before the chunk is used.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate

import numpy as np

from airtune.codec.blockwise.allocation import Allocation
from airtune.codec.contents import Limits
from airtune.codec.payload import MAGIC, Data
from airtune.errors import PayloadError

VERSION = 1

CHUNK_INDEX = struct.Struct("<I")
"""What every chunk begins with, so that chunks cannot be swapped unseen."""

_PREAMBLE = struct.Struct("<4sHHII")  # magic, version, sites, bytes of the static part, chunks
_DIGEST = sha256().digest_size
_CHUNK_ROW = CHUNK_INDEX.size + _DIGEST  # length u32, SHA-256
CHUNK_OVERHEAD = CHUNK_INDEX.size + _CHUNK_ROW
"""Bytes a chunk costs beyond its numbers."""

_SITE_ROW = 3  # rank u16, bits u8
_MAX_CHUNK = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Header:
    """The checked header of a payload: everything before the first chunk.

    Args:
        static: The static part, still compressed.
        allocation: The declared ranks and bits.
        lengths: Bytes of every chunk.
        digests: SHA-256 of every chunk.
    """

    static: bytes
    allocation: Allocation
    lengths: tuple[int, ...]
    digests: tuple[bytes, ...]

    @property
    def size(self) -> int:
        return header_bytes(len(self.static), len(self.allocation), len(self.lengths))

    @property
    def chunk_ends(self) -> tuple[int, ...]:
        """Where a prefix may end: after the header, then after every chunk."""
        return tuple(accumulate(self.lengths, initial=self.size))


def header_bytes(static: int, sites: int, chunks: int) -> int:
    """Length of a header with that many bytes of static part, sites and chunks."""
    return _PREAMBLE.size + static + _SITE_ROW * sites + _CHUNK_ROW * chunks + _DIGEST


def write(static: bytes, allocation: Allocation, bodies: Sequence[bytes]) -> bytes:
    """Put a header before the chunks' bodies, and each chunk's index before its body."""
    chunks = [CHUNK_INDEX.pack(index) + body for index, body in enumerate(bodies)]
    if (longest := max(map(len, chunks), default=0)) > _MAX_CHUNK:
        raise PayloadError(f"a chunk has {longest} bytes, the format holds {_MAX_CHUNK}; send fewer bits")
    header = b"".join(
        (
            _PREAMBLE.pack(MAGIC, VERSION, len(allocation), len(static), len(chunks)),
            static,
            np.array(allocation.ranks, "<u2").tobytes(),
            bytes(allocation.bits),
            *(CHUNK_INDEX.pack(len(chunk)) + sha256(chunk).digest() for chunk in chunks),
        )
    )
    return b"".join((header, sha256(header).digest(), *chunks))


def read_header(data: Data, limits: Limits) -> Header:
    """Check and take apart the header.

    Raises:
        PayloadError: wrong magic, another version, truncated, altered, or beyond `limits`.
    """
    view = memoryview(data).cast("B")
    if len(view) < _PREAMBLE.size:
        raise PayloadError(f"found {len(view)} bytes, a payload has at least {_PREAMBLE.size}; get the payload again")
    magic, version, sites, static, chunks = _PREAMBLE.unpack_from(view)
    if magic != MAGIC:
        raise PayloadError(f"found magic {magic!r}, a payload begins with {MAGIC!r}; give an .atn file")
    if version != VERSION:
        advice = "update airtune" if version > VERSION else "encode it again"
        raise PayloadError(f"the payload has format version {version}, this airtune reads {VERSION}; {advice}")
    for what, found, most in (
        ("bytes", len(view), limits.max_bytes),
        ("sites", sites, limits.max_sites),
        ("bytes of static part", static, limits.max_static_bytes),
    ):
        if found > most:
            raise PayloadError(f"the payload has {found} {what}, the limit is {most}; raise it in Limits")
    size = header_bytes(static, sites, chunks)
    if size > len(view):
        raise PayloadError(f"found {len(view)} bytes, the header alone declares {size}; get the payload again")
    if sha256(view[: size - _DIGEST]).digest() != view[size - _DIGEST : size]:
        raise PayloadError("the header does not match its SHA-256: it was altered on the way; get the payload again")
    at_ranks = _PREAMBLE.size + static
    at_bits, at_table = at_ranks + 2 * sites, at_ranks + _SITE_ROW * sites
    rows = [view[start : start + _CHUNK_ROW] for start in range(at_table, size - _DIGEST, _CHUNK_ROW)]
    return Header(
        static=bytes(view[_PREAMBLE.size : at_ranks]),
        allocation=Allocation(
            tuple(np.frombuffer(view[at_ranks:at_bits], "<u2").tolist()), tuple(view[at_bits:at_table])
        ),
        lengths=tuple(CHUNK_INDEX.unpack_from(row)[0] for row in rows),
        digests=tuple(bytes(row[CHUNK_INDEX.size :]) for row in rows),
    )


def read_chunks(data: Data, header: Header, *, allow_prefix: bool) -> tuple[memoryview, ...]:
    """Cut out and check the chunks that arrived; returns their bodies.

    Raises:
        PayloadError: trailing bytes; a chunk that is altered or out of order; bytes that are missing, unless
            `allow_prefix` and the bytes end where a chunk does.
    """
    view, ends = memoryview(data).cast("B"), header.chunk_ends
    if len(view) > ends[-1]:
        raise PayloadError(f"found {len(view)} bytes, the payload has {ends[-1]}; cut off what follows it")
    if len(view) < ends[-1] and not allow_prefix:
        raise PayloadError(f"found {len(view)} of {ends[-1]} bytes; get the rest, or allow a prefix")
    if len(view) not in ends:
        whole = max(end for end in ends if end < len(view))
        raise PayloadError(f"found {len(view)} bytes, which end inside a chunk; cut the prefix to {whole} bytes")
    bodies = []
    for index, (start, length, digest) in enumerate(zip(ends, header.lengths, header.digests, strict=False)):
        chunk = view[start : start + length]
        if start == len(view):
            break
        if sha256(chunk).digest() != digest:
            raise PayloadError(f"chunk {index} does not match its SHA-256: it was altered; get the payload again")
        if chunk[: CHUNK_INDEX.size] != CHUNK_INDEX.pack(index):
            raise PayloadError(f"chunk {index} does not begin with its index: chunks were moved; get the payload again")
        bodies.append(chunk[CHUNK_INDEX.size :])
    return tuple(bodies)
