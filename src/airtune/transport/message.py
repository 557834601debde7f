"""One message between roles, and the bytes it travels as.

A frame is, in this order and with all numbers big-endian:

| bytes | field                                                                     |
|-------|---------------------------------------------------------------------------|
| 4     | magic ``ATMS``                                                            |
| 2     | version, 1                                                                |
| 4     | h, length of the envelope                                                 |
| 8     | b, length of the body                                                     |
| h     | envelope: a JSON object with exactly ``kind``, ``id`` and ``header``      |
| b     | body, any bytes                                                           |
| 32    | SHA-256 of everything before                                              |

Parsing never runs anything from the bytes and allocates no more than it was handed. This module knows nothing of who
answers a message, of how it is carried, or of what a body means.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias

from airtune.errors import TransportError

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

_MAGIC: Final = b"ATMS"
_VERSION: Final = 1
_PREFIX: Final = struct.Struct(">4sHIQ")
_DIGEST_BYTES: Final = 32
FRAME_FIXED_BYTES: Final = _PREFIX.size + _DIGEST_BYTES
"""What a frame holds beside its envelope and body, in bytes."""
MESSAGE_ID_LENGTH: Final = 32
"""Length of the ids that `message_id` makes, in characters."""
_MAX_DEPTH: Final = 32
_KIND: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest frame that is sent or accepted."""

    header_bytes: int = 1 << 20
    """Largest envelope (kind, id and header as JSON)."""
    body_bytes: int = 1 << 30
    """Largest body."""

    def __post_init__(self) -> None:
        if not (0 < self.header_bytes < 1 << 32 and 0 <= self.body_bytes < 1 << 63):
            raise TransportError(f"limits are {self}; choose header_bytes from 1 to 2^32 - 1 and body_bytes from 0 up")

    @property
    def frame_bytes(self) -> int:
        """Largest frame."""
        return FRAME_FIXED_BYTES + self.header_bytes + self.body_bytes


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Message:
    """What one role asks of another, or answers.

    The header is copied into plain JSON values (tuples become lists), so a message equals what its frame parses to.

    Args:
        kind: What is asked, such as ``adapter``; lower case letters, digits, ``_ . -``.
        id: Names this message; a repeated id means the same message again. See `message_id`.
        header: JSON values with text keys and finite numbers; integers fit in 64 bits.
        body: The payload.

    Raises:
        TransportError: a field that no frame could carry.
    """

    kind: str
    id: str
    header: Mapping[str, JSON]
    body: bytes = b""

    def __post_init__(self) -> None:
        if not (isinstance(self.kind, str) and _KIND.fullmatch(self.kind)):
            raise TransportError(f"message kind is {self.kind!r:.80}; use 1 to 64 of a-z 0-9 _ . - from a letter on")
        if not (isinstance(self.id, str) and _ID.fullmatch(self.id)):
            raise TransportError(f"message id is {self.id!r:.80}; use 1 to 128 letters, digits or . _ : -")
        if not isinstance(self.header, Mapping):
            raise TransportError(f"message header is a {type(self.header).__name__}; give a mapping of text to JSON")
        if not isinstance(self.body, bytes | bytearray | memoryview):
            raise TransportError(f"message body is a {type(self.body).__name__}; give bytes")
        object.__setattr__(self, "header", MappingProxyType(_plain(self.header, "header", 0)))
        object.__setattr__(self, "body", bytes(self.body))

    def reply(self, kind: str, header: Mapping[str, JSON], body: bytes = b"") -> Message:
        """The answer to this message: another kind, the same id."""
        return Message(kind, self.id, header, body)

    def frame_length(self) -> int:
        """``len(self.frame())`` in bytes, without building the frame."""
        return FRAME_FIXED_BYTES + len(self._envelope()) + len(self.body)

    def frame(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The bytes this message travels as. Raises `TransportError` where it is larger than the limits."""
        envelope = self._envelope()
        _check_sizes(len(envelope), len(self.body), limits)
        prefix = _PREFIX.pack(_MAGIC, _VERSION, len(envelope), len(self.body))
        digest = hashlib.sha256(prefix)
        digest.update(envelope)
        digest.update(self.body)
        return b"".join((prefix, envelope, self.body, digest.digest()))

    @classmethod
    def parse(cls, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Message:
        """Read one frame that fills `data` exactly. Raises `TransportError` for any other bytes."""
        if len(data) < FRAME_FIXED_BYTES:
            raise TransportError(f"frame has {len(data)} bytes, at least {FRAME_FIXED_BYTES} expected; send it again")
        magic, version, header_bytes, body_bytes = _PREFIX.unpack_from(data)
        if magic != _MAGIC:
            raise TransportError(f"frame starts with {magic!r}, {_MAGIC!r} expected; these bytes are not a message")
        if version != _VERSION:
            raise TransportError(
                f"frame has version {version}, {_VERSION} expected; run the same airtune on both sides"
            )
        _check_sizes(header_bytes, body_bytes, limits)
        expected = FRAME_FIXED_BYTES + header_bytes + body_bytes
        if len(data) != expected:
            raise TransportError(f"frame has {len(data)} bytes, its lengths say {expected}; send it again")
        content = memoryview(data)[:-_DIGEST_BYTES]
        if hashlib.sha256(content).digest() != bytes(data[-_DIGEST_BYTES:]):
            raise TransportError("frame does not match its SHA-256: it was damaged on the way; send it again")
        envelope_end = _PREFIX.size + header_bytes
        kind, id, header = _open_envelope(bytes(content[_PREFIX.size : envelope_end]))
        return cls(kind, id, header, bytes(content[envelope_end:]))

    def _envelope(self) -> bytes:
        return _canonical({"kind": self.kind, "id": self.id, "header": dict(self.header)})


def message_id(kind: str, header: Mapping[str, JSON], body: bytes = b"", *names: str | int) -> str:
    """An id derived from the content: the same content and names give the same `MESSAGE_ID_LENGTH` hexadecimal digits.

    Args:
        kind: As in `Message`.
        header: As in `Message`.
        body: As in `Message`.
        names: What tells apart two messages with the same content, such as a seed and a round.
    """
    digest = hashlib.sha256(_canonical([kind, _plain(header, "header", 0), list(names)]))
    digest.update(b"\0")  # JSON text holds no zero byte, so the body cannot be mistaken for a part of it
    digest.update(body)
    return digest.hexdigest()[:MESSAGE_ID_LENGTH]


def _check_sizes(header_bytes: int, body_bytes: int, limits: Limits) -> None:
    for name, found, most in (("header", header_bytes, limits.header_bytes), ("body", body_bytes, limits.body_bytes)):
        if found > most:
            raise TransportError(
                f"frame {name} has {found} bytes, at most {most} allowed; send less or raise the limits"
            )


def _open_envelope(text: bytes) -> tuple[str, str, Mapping[str, JSON]]:
    try:
        envelope = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TransportError(f"frame envelope is not readable JSON ({error}); send it again") from None
    if not (isinstance(envelope, dict) and envelope.keys() == {"kind", "id", "header"}):
        raise TransportError("frame envelope must be a JSON object with exactly kind, id and header; send such a frame")
    return envelope["kind"], envelope["id"], envelope["header"]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _plain(value: Any, where: str, depth: int) -> Any:
    """Copy a JSON value into dicts, lists and scalars, refusing what JSON cannot hold exactly."""
    if depth > _MAX_DEPTH:
        raise TransportError(f"message {where!r:.80} is nested deeper than {_MAX_DEPTH}; flatten the header")
    match value:
        case None | bool():
            return value
        case int() if -(1 << 63) <= value < 1 << 63:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case str() if _is_unicode(value):
            return str(value)
        case Mapping() if all(isinstance(key, str) for key in value):
            return {_plain(key, where, depth): _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    found = f"{value}" if isinstance(value, float) else f"a {type(value).__name__} that JSON cannot hold exactly"
    wanted = "text, finite numbers, 64-bit integers, lists and mappings with text keys"
    raise TransportError(f"message {where!r:.80} is {found}; use {wanted}")


def _is_unicode(text: str) -> bool:
    """Whether text can be encoded: half of a surrogate pair alone cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
