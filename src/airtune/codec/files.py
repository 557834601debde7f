"""Payloads in files, with those that brought what they change. Knows paths and which payloads change others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from airtune.codec.codec import changes_of, held_after
from airtune.codec.coded.held import HeldAdapter
from airtune.codec.contents import Limits
from airtune.errors import PayloadError


def read_payload(file: str | Path, since: Sequence[str | Path] = ()) -> tuple[bytes, HeldAdapter | None]:
    """A payload's bytes and what the payloads of `since`, the oldest first, have brought.

    Raises:
        PayloadError: a file cannot be read; something is said to be held, but the payload changes nothing.
    """
    data = _read(file)
    if since and not changes_of(data):
        raise PayloadError(f"{file} is an adapter of its own and changes none, yet since was given; leave since out")
    return data, read_held(since)


def read_held(files: Sequence[str | Path]) -> HeldAdapter | None:
    """What a receiver holds after these payloads, the oldest first; None after none.

    Raises:
        PayloadError: a file cannot be read, or does not follow the one before it.
    """
    return held_after([_read(file) for file in files])


def _read(file: str | Path) -> bytes:
    most = Limits().max_bytes
    try:
        with open(file, "rb") as opened:
            data = opened.read(most + 1)
    except OSError as error:
        raise PayloadError(f"{file} cannot be read ({error.strerror}); give the path of a payload (.atn)") from error
    if len(data) > most:
        raise PayloadError(f"{file} has more than {most} bytes; give the path of a payload (.atn)")
    return data
