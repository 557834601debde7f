"""Bytes -> adapter, whatever the format. Encoding starts in `coded/draft.py` and in `blockwise/encoding.py`."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from airtune.codec.blockwise import container
from airtune.codec.blockwise.encoding import decode_blockwise
from airtune.codec.coded import framing
from airtune.codec.coded.held import HeldAdapter
from airtune.codec.coded.reading import decode_coded
from airtune.codec.contents import Binding, Limits
from airtune.codec.payload import MAGIC, Data, Decoded
from airtune.errors import PayloadError

FORMATS = (container.VERSION, framing.VERSION)

_START = struct.Struct("<4sH")


def decode(
    data: Data,
    binding: Binding | None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    *,
    allow_prefix: bool = False,
    held: Mapping[bytes, bytes] | None = None,
    since: HeldAdapter | None = None,
) -> Decoded:
    """Check a payload and unpack what arrived of it.

    Args:
        binding: What the receiver has; None accepts a payload for anything.
        limits: The most the receiver is willing to handle.
        allow_prefix: Also take a payload that was cut off after its header or after one of its chunks.
        held: Static parts the receiver has (`held_static`), for payloads that name theirs instead of carrying it.
        since: The adapter the receiver holds (`Decoded.held`), for payloads that change it.

    Raises:
        PayloadError: truncated, altered, for another base model or tokenizer, of changes to another adapter than
            `since`, beyond `limits`, or malformed. Nothing of it may be used.
    """
    if format_of(data) == framing.VERSION:
        return decode_coded(data, binding, limits, held or {}, since, allow_prefix=allow_prefix)
    return decode_blockwise(data, binding, limits, allow_prefix=allow_prefix)


def held_after(payloads: Sequence[bytes]) -> HeldAdapter | None:
    """What a receiver holds that was sent these whole payloads, the oldest first; None where there are none.

    Raises:
        PayloadError: as `decode`, or the last is of format 1, whose adapters no payload changes.
    """
    held: HeldAdapter | None = None
    for data in payloads:
        held = decode(data, None, since=held).held
    if payloads and held is None:
        raise PayloadError(
            "the held payload is of format 1, and only adapters of format 2 can be changed; pack it anew"
        )
    return held


def changes_of(data: Data) -> bytes:
    """Name of the held adapter that a payload changes; empty where it is an adapter of its own.

    Raises:
        PayloadError: the header is not that of a payload.
    """
    return _header(data).changes if format_of(data) == framing.VERSION else b""


def left_out_of(data: Data) -> bytes:
    """Name of the static part that a payload leaves to its receiver; empty where it carries one, or changes another.

    Raises:
        PayloadError: the header is not that of a payload.
    """
    return _header(data).name if format_of(data) == framing.VERSION else b""


def chunk_ends(data: Data) -> tuple[int, ...]:
    """Lengths at which a prefix is a valid adapter: after the header, then after every chunk; the last is all.

    Raises:
        PayloadError: the header is not that of a payload.
    """
    size = len(memoryview(data).cast("B"))
    limits = Limits(max_bytes=size, max_static_bytes=size, max_sites=size)
    if format_of(data) == framing.VERSION:
        return framing.read_header(data, limits).ends
    return container.read_header(data, limits).chunk_ends


def whole_prefix(data: bytes, size: int) -> bytes:
    """The longest prefix of at most `size` bytes that is a valid adapter.

    Raises:
        PayloadError: the header is not that of a payload, or is longer than `size`.
    """
    ends = chunk_ends(data)
    if size < ends[0]:
        raise PayloadError(f"{size} bytes are asked for, the header alone has {ends[0]}; ask for more")
    return data[: max(end for end in ends if end <= size)]


def self_contained(data: bytes, held: Mapping[bytes, bytes]) -> bytes:
    """A whole payload that opens anywhere: with its static part in it, where it had named one that is held.

    Raises:
        PayloadError: as `decode`, before any numbers are read; or the payload changes a held adapter.
    """
    return framing.with_static(data, held) if format_of(data) == framing.VERSION else data


def format_of(data: Data) -> int:
    """The format of a payload. Raises `PayloadError` where it is none that is known."""
    view = memoryview(data).cast("B")
    if len(view) < _START.size:
        raise PayloadError(f"found {len(view)} bytes, a payload has at least {_START.size}; get the payload again")
    magic, version = _START.unpack_from(view)
    if magic != MAGIC:
        raise PayloadError(f"found magic {magic!r}, a payload begins with {MAGIC!r}; give an .atn file")
    if version not in FORMATS:
        advice = "update airtune" if version > max(FORMATS) else "encode it again"
        known = " and ".join(map(str, FORMATS))
        raise PayloadError(f"the payload has format version {version}, this airtune reads {known}; {advice}")
    return int(version)


def _header(data: Data) -> framing.Header:
    """Of a payload of format 2, however large."""
    size = len(memoryview(data).cast("B"))
    return framing.read_header(data, Limits(max_bytes=size, max_static_bytes=size))
