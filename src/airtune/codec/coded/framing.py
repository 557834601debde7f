"""The bytes around format 2's chunks: static part or its name, chunk table, hashes.

Knows offsets, lengths and SHA-256; not what a chunk holds. Hashes are cut to 128 bits: a payload may be a kilobyte, and
whoever signs one signs the whole file's SHA-256. Reading trusts nothing: a length is held against the bytes at hand,
the header's hash against the header, and a chunk's against the chunk, before any of them is used.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import accumulate, pairwise

from airtune.codec.contents import Contents, Limits
from airtune.codec.payload import MAGIC, Data
from airtune.codec.static_part import Packing, compress_contents, contents_text
from airtune.errors import PayloadError

VERSION = 2
PACKING: Packing = {"codec": "coded"}
"""What the static part says of how numbers are packed."""

_PREAMBLE = struct.Struct("<4sHHI")  # magic, version, chunks, bytes of the static part or one of the next two
_NAMED, _CHANGES = 0, 2**32 - 1
"""In their place: the static part's name follows; the name of the held adapter follows, which the payload changes."""
_LENGTH = struct.Struct("<I")
DIGEST = 16
"""Bytes of a hash."""
CHUNK_ROW = _LENGTH.size + DIGEST
_MAX_CHUNK = 2**32 - 1
_MAX_CHUNKS = 2**16 - 1


def digest(data: Data) -> bytes:
    """The first 16 bytes of SHA-256."""
    return sha256(data).digest()[:DIGEST]


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header.

    Args:
        static: The static part, still compressed; empty where it is named or held.
        name: Its name; empty where it is here.
        changes: Name of the held adapter that this payload changes; empty where it is an adapter of its own.
        ends: Lengths at which a prefix is whole: after the header, then after every chunk.
        digests: Of every chunk.
    """

    static: bytes
    name: bytes
    changes: bytes
    ends: tuple[int, ...]
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """A checked payload: its static part, still compressed, and the bodies of the chunks that arrived.

    Args:
        changes: As `Header`; there is then no static part.
    """

    static: bytes
    changes: bytes
    chunks: tuple[memoryview, ...]
    complete: bool


def frame_bytes(static: int, chunks: int) -> int:
    """Bytes of a header with a static part of that many bytes (0: named, or the adapter is) and that many chunks."""
    return _PREAMBLE.size + (static or DIGEST) + CHUNK_ROW * chunks + DIGEST


def held_static(contents: Contents) -> dict[bytes, bytes]:
    """The compressed static part by its name: what a receiver that knows the contents need not be sent.

    Notes (`meta`) are no part of the name: the two sides may call one base model by different names.
    """
    return {digest(contents_text(replace(contents, meta={}), PACKING)): compress_contents(contents, PACKING)}


def write_frame(static: bytes, bodies: Sequence[bytes], *, name: bytes = b"", changes: bytes = b"") -> bytes:
    """A payload of these chunks.

    Args:
        static: The compressed static part.
        name: Its name, put there instead, for a receiver that holds it.
        changes: The name of the adapter that the chunks change, put there instead of either.
    """
    if (longest := max(map(len, bodies), default=0)) > _MAX_CHUNK or len(bodies) > _MAX_CHUNKS:
        raise PayloadError(f"{len(bodies)} chunks of up to {longest} bytes do not fit the format; send less")
    size = _CHANGES if changes else _NAMED if name else len(static)
    header = b"".join(
        (
            _PREAMBLE.pack(MAGIC, VERSION, len(bodies), size),
            changes or name or static,
            *(_LENGTH.pack(len(body)) + digest(body) for body in bodies),
        )
    )
    return b"".join((header, digest(header), *bodies))


def read_frame(data: Data, limits: Limits, held: Mapping[bytes, bytes], *, allow_prefix: bool) -> Frame:
    """Check and take apart a payload.

    Args:
        held: Static parts that the receiver has, as `held_static` gives them.

    Raises:
        PayloadError: another format, truncated, altered, beyond `limits`, or a static part that the receiver lacks.
    """
    header = read_header(data, limits)
    if header.name and header.name not in held:
        raise PayloadError(f"the payload names static part {header.name.hex()}, which is not here; ask for it whole")
    view = memoryview(data).cast("B")
    _check_length(len(view), header.ends, allow_prefix=allow_prefix)
    bodies = []
    for index, ((start, end), expected) in enumerate(zip(pairwise(header.ends), header.digests, strict=True)):
        if end > len(view):
            break
        if digest(view[start:end]) != expected:
            raise PayloadError(f"chunk {index} does not match its hash: it was altered; get the payload again")
        bodies.append(view[start:end])
    static = held[header.name] if header.name else header.static
    return Frame(static, header.changes, tuple(bodies), len(bodies) == len(header.digests))


def with_static(data: Data, held: Mapping[bytes, bytes]) -> bytes:
    """A whole payload that carries its static part, and so can be opened anywhere; one that does is returned as it is.

    Raises:
        PayloadError: as `read_frame`.
    """
    view = memoryview(data).cast("B")
    limits = Limits(max_bytes=len(view), max_static_bytes=len(view))
    frame = read_frame(data, limits, held, allow_prefix=False)
    if frame.changes:
        raise PayloadError(
            f"the payload changes adapter {frame.changes.hex()} and opens nowhere else; keep that one too"
        )
    return write_frame(frame.static, [bytes(chunk) for chunk in frame.chunks])


def read_header(data: Data, limits: Limits) -> Header:
    """Check and take apart a header; errors as `read_frame`."""
    view = memoryview(data).cast("B")
    if len(view) < _PREAMBLE.size:
        raise PayloadError(f"found {len(view)} bytes, a payload has at least {_PREAMBLE.size}; get the payload again")
    _, _, chunks, kind = _PREAMBLE.unpack_from(view)
    static = 0 if kind == _CHANGES else kind
    for what, found, most in (
        ("bytes", len(view), limits.max_bytes),
        ("bytes of static part", static, limits.max_static_bytes),
    ):
        if found > most:
            raise PayloadError(f"the payload has {found} {what}, the limit is {most}; raise it in Limits")
    size = frame_bytes(static, chunks)
    if size > len(view):
        raise PayloadError(f"found {len(view)} bytes, the header alone declares {size}; get the payload again")
    if digest(view[: size - DIGEST]) != view[size - DIGEST : size]:
        raise PayloadError("the header does not match its hash: it was altered on the way; get the payload again")
    at = _PREAMBLE.size + (static or DIGEST)
    rows = [view[start : start + CHUNK_ROW] for start in range(at, size - DIGEST, CHUNK_ROW)]
    said = bytes(view[_PREAMBLE.size : at])
    return Header(
        static=said if static else b"",
        name=said if kind == _NAMED else b"",
        changes=said if kind == _CHANGES else b"",
        ends=tuple(accumulate((_LENGTH.unpack_from(row)[0] for row in rows), initial=size)),
        digests=tuple(bytes(row[_LENGTH.size :]) for row in rows),
    )


def _check_length(found: int, ends: Sequence[int], *, allow_prefix: bool) -> None:
    if found > ends[-1]:
        raise PayloadError(f"found {found} bytes, the payload has {ends[-1]}; cut off what follows it")
    if found < ends[-1] and not allow_prefix:
        raise PayloadError(f"found {found} of {ends[-1]} bytes; get the rest, or allow a prefix")
    if found not in ends:
        whole = max(end for end in ends if end < found)
        raise PayloadError(f"found {found} bytes, which end inside a chunk; cut the prefix to {whole} bytes")
