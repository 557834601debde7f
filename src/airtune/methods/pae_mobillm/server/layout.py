"""A body of samples cut into rows and put together again: one row per pivot, its bytes as they came.

A body goes field by field (see `wire`); a row has the same bytes pivot by pivot: for each layer its scale (at 8 bits)
and values, then the difference. Nothing is decoded and encoded again, so a row costs what it cost on the wire and means
the same number for number. Knows bytes; not where they are kept.
"""

from __future__ import annotations

import numpy as np

from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.wire import (
    COUNT_BYTES,
    DIFFERENCE_BYTES,
    ID_BYTES,
    SCALE_BYTES,
    Samples,
    decode_samples,
    row_bytes,
)


def cut(body: bytes, count: int, identity: Identity, *, several: bool) -> tuple[Samples, np.ndarray]:
    """Check a body of `count` samples.

    Returns:
        What it says, and its rows, uint8 ``(rows, row_bytes)`` in the order of the samples.

    Raises:
        TransportError: see `wire.decode_samples`.
    """
    samples = decode_samples(body, count, identity, several=several)
    rows = np.empty((len(samples.activations), row_bytes(identity)), np.uint8)
    at, column = count * (ID_BYTES + (COUNT_BYTES if several else 0)), 0
    for size in _fields(identity):
        field = np.frombuffer(body, np.uint8, len(rows) * size, at)
        rows[:, column : column + size] = field.reshape(len(rows), size)
        at, column = at + field.size, column + size
    return samples, rows


def join(ids: np.ndarray, counts: np.ndarray, rows: np.ndarray, identity: Identity) -> Samples:
    """Decode rows that `cut` gave: uint64 ids ``(n,)``, their numbers of pivots, and all their rows in that order."""
    fields, column = [], 0
    for size in _fields(identity):
        fields.append(rows[:, column : column + size].tobytes())
        column += size
    body = b"".join((ids.astype("<u8").tobytes(), counts.astype("<u4").tobytes(), *fields))
    return decode_samples(body, len(ids), identity, several=True)


def _fields(identity: Identity) -> list[int]:
    """Bytes of each field of a row."""
    sizes = []
    for bits in identity.bits:
        sizes += ([SCALE_BYTES] if bits == 8 else []) + [identity.width * bits // 8]
    return [*sizes, DIFFERENCE_BYTES * identity.outputs]
