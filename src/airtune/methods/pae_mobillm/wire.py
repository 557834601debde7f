"""Samples as bytes: hidden states at the pivots and prediction differences, nothing else.

For N samples with one pivot each, K layers of width d and C outputs a body has exactly
``N (8 + sum over layers of layer_bytes(bits, d) + 4 C)`` bytes: an id, the activations, the difference. Where samples
have several pivots (running text), each costs its activations and difference, and a sample 4 bytes for their number.

All numbers little-endian, field by field: ids (u64), counts (u32; only where `several`), then for each layer its scales
(f32, at 8 bits) and values (i8, f16 or f32) row by row, then differences (f32). Knows no models and no messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from airtune.errors import DataError, TransportError
from airtune.methods.pae_mobillm.identity import Identity

ID_BYTES, COUNT_BYTES, SCALE_BYTES, DIFFERENCE_BYTES = 8, 4, 4, 4
IDS_AT_ONCE = 65_536
"""The most ids in one message."""
NO_ROOM = "the cache has no room for more samples"
"""What a server's refusal begins with where it is full: the device then goes on with what is cached."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Some samples as a device sends and a server trains on them.

    Args:
        ids: uint64 ``(n,)``, each once.
        counts: How many pivots each has, ``(n,)``; their rows follow each other.
        activations: float32 ``(rows, K, d)``.
        differences: float32 ``(rows, C)``.
    """

    ids: np.ndarray
    counts: np.ndarray
    activations: np.ndarray
    differences: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self) -> Iterator[tuple[int, slice]]:
        """Each sample's id and its rows."""
        ends = np.cumsum(self.counts)
        for one, end, count in zip(self.ids.tolist(), ends.tolist(), self.counts.tolist(), strict=True):
            yield one, slice(end - count, end)


def layer_bytes(bits: int, width: int) -> int:
    """Bytes of one hidden state: at 8 bits its scale too."""
    return width * bits // 8 + (SCALE_BYTES if bits == 8 else 0)


def row_bytes(identity: Identity) -> int:
    """Bytes of one pivot: its hidden states and difference."""
    states = sum(layer_bytes(bits, identity.width) for bits in identity.bits)
    return states + DIFFERENCE_BYTES * identity.outputs


def body_bytes(identity: Identity, samples: int, rows: int, *, several: bool = False) -> int:
    """Bytes of a body."""
    return samples * (ID_BYTES + (COUNT_BYTES if several else 0)) + rows * row_bytes(identity)


def encode_samples(samples: Samples, identity: Identity, *, several: bool = False) -> bytes:
    """The body for some samples.

    Args:
        several: Whether samples may have more than one pivot.

    Raises:
        DataError: shapes that are not the identity's, a number that is not finite, or one beyond the layer's bits.
    """
    _check_shapes(samples, identity)
    if not several and (samples.counts != 1).any():
        raise DataError(f"a sample has {int(samples.counts.max())} pivots, one expected; send it as several")
    pieces = [samples.ids.astype("<u8").tobytes()]
    if several:
        pieces.append(samples.counts.astype("<u4").tobytes())
    for at, bits in enumerate(identity.bits):
        pieces += _encode_layer(samples.activations[:, at], bits, identity.layers[at])
    pieces.append(samples.differences.astype("<f4").tobytes())
    return b"".join(pieces)


def decode_samples(body: bytes, count: int, identity: Identity, *, several: bool = False) -> Samples:
    """Read a body of `count` samples; activations come back at the precision they travelled in.

    Raises:
        TransportError: a length that does not fit, ids that repeat, or a number that is not finite.
    """
    if count < 1:
        raise TransportError(f"a body of {count} samples came; send at least 1")
    reader = _Reader(body)
    ids = reader.take("<u8", count)
    counts = reader.take("<u4", count).astype(np.int64) if several else np.ones(count, np.int64)
    rows = int(counts.sum())
    expected = body_bytes(identity, count, rows, several=several)
    if len(body) != expected:
        raise TransportError(
            f"{count} samples with {rows} pivots came in {len(body)} bytes, {expected} expected; send them again"
        )
    if len(np.unique(ids)) != count or (counts < 1).any():
        raise TransportError("a sample's id occurs twice, or one has no pivot; send each once")
    activations = np.empty((rows, len(identity.layers), identity.width), np.float32)
    for at, bits in enumerate(identity.bits):
        scale = reader.take("<f4", rows)[:, None] if bits == 8 else np.float32(1)
        kind = {8: "<i1", 16: "<f2", 32: "<f4"}[bits]
        with np.errstate(over="ignore", invalid="ignore"):
            activations[:, at] = reader.take(kind, rows * identity.width).reshape(rows, -1).astype(np.float32) * scale
    differences = reader.take("<f4", rows * identity.outputs).reshape(rows, -1).astype(np.float32)
    for name, values in (("activation", activations), ("difference", differences)):
        if not np.isfinite(values).all():
            raise TransportError(f"an {name} that came is not finite; look at the device's backbone and precision")
    return Samples(ids.astype(np.uint64), counts, activations, differences)


def as_received(activations: np.ndarray, identity: Identity) -> np.ndarray:
    """Hidden states ``(rows, K, d)`` as the other side gets them: at the precision they travel in. Raises as above."""
    rows = len(activations)
    alone = replace(identity, outputs=1)
    samples = Samples(np.arange(rows), np.ones(rows, np.int64), activations, np.zeros((rows, 1), np.float32))
    return decode_samples(encode_samples(samples, alone), rows, alone).activations


def _check_shapes(samples: Samples, identity: Identity) -> None:
    rows = int(samples.counts.sum())
    shapes = samples.activations.shape, samples.differences.shape, samples.counts.shape
    expected = (rows, len(identity.layers), identity.width), (rows, identity.outputs), samples.ids.shape
    if shapes != expected:
        raise DataError(f"activations, differences and counts have shapes {shapes}; expected {expected}")
    for name, values in (("activation", samples.activations), ("difference", samples.differences)):
        if not np.isfinite(values).all():
            raise DataError(f"an {name} is not finite; look at the backbone and what it was given")


def _encode_layer(values: np.ndarray, bits: int, layer: int) -> list[bytes]:
    if bits == 32:
        return [values.astype("<f4").tobytes()]
    if bits == 16:
        with np.errstate(over="ignore"):
            halves = values.astype("<f2")
        if not np.isfinite(halves).all():
            largest = float(np.abs(values).max())
            raise DataError(f"layer {layer} has {largest:.3g}, beyond 16 bits; send that layer at 8 or 32 bits")
        return [halves.tobytes()]
    scales = (np.abs(values).max(axis=1) / 127).astype("<f4")
    steps = np.where(scales > 0, scales, 1)[:, None]
    whole = np.clip(np.rint(values / steps), -127, 127).astype("<i1")
    return [scales.tobytes(), whole.tobytes()]


class _Reader:
    """Takes arrays off the front of a body."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def take(self, kind: str, count: int) -> np.ndarray:
        size = count * np.dtype(kind).itemsize
        if self._at + size > len(self._body):
            raise TransportError(f"a body of samples ends after {len(self._body)} bytes; send it again")
        found = np.frombuffer(self._body, kind, count, self._at)
        self._at += size
        return found
