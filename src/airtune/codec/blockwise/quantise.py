"""Rows of numbers <-> rows of bytes, each row on its own and all of one length.

Knows floats, blocks and scales; not sites, ranks or containers. A row is one direction's P or Q, so any row decodes
without its neighbours. 4 and 8 bits are symmetric integers in blocks of 64 with one float16 scale a block; within a
row the scales come first, then the integers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from airtune.errors import PayloadError

BLOCK = 64
"""Numbers that share one scale."""

FLOAT16_MAX = 65504.0

_LARGEST_CODE = {4: 7, 8: 127}
_FLOATS: dict[int, np.dtype[np.floating]] = {16: np.dtype("<f2"), 32: np.dtype("<f4")}
_SHRINKS = np.linspace(0.70, 0.98, 8, dtype=np.float32)  # of the absmax scale, tried at 4 bits

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]


def packed_bytes(numbers: int, bits: int) -> int:
    """Length in bytes of one packed row of `numbers` numbers."""
    if bits in _FLOATS:
        return numbers * bits // 8
    return 2 * _blocks(numbers) + (numbers * bits + 7) // 8


def pack(rows: Rows, bits: int) -> Bytes:
    """Pack float32 rows, shape (rows, numbers), into bytes, shape (rows, packed_bytes(numbers, bits)).

    Error of one number x in a block with largest magnitude a, where s = a / 127 (8 bits) or a / 7 (4 bits), rounded up
    to float16 (so s grows by at most 2^-10 of itself, or by 2^-24 where it is subnormal):

    - 32 bits: none.
    - 16 bits: 2^-11 |x|, or 2^-25 where that is less.
    - 8 bits: s / 2.
    - 4 bits: the block's mean squared error is at most (s / 2)^2, and less wherever a smaller scale fits better.

    Raises:
        PayloadError: a number is beyond float16 (65504) and `bits` is less than 32.
    """
    if bits == 32:
        return _as_bytes(rows.astype("<f4"))
    if (peak := float(np.abs(rows).max(initial=0.0))) > FLOAT16_MAX:
        raise PayloadError(f"a value of {peak:.6g} does not fit {bits} bits (at most {FLOAT16_MAX:g}); send 32 bits")
    if bits == 16:
        return _as_bytes(rows.astype("<f2"))
    count, numbers = rows.shape
    padded = np.zeros((count, _blocks(numbers) * BLOCK), np.float32)
    padded[:, :numbers] = rows
    blocks = padded.reshape(count, _blocks(numbers), BLOCK)
    scales = _scale(blocks, bits)
    codes = _codes(blocks, scales, bits).reshape(padded.shape)[:, :numbers]
    return np.concatenate([_as_bytes(scales), _as_bytes(codes) if bits == 8 else _nibbles(codes)], axis=1)


def unpack(packed: Bytes, numbers: int, bits: int) -> Rows:
    """Turn packed rows back into float32, shape (rows, numbers). Exact: every product fits float32.

    Raises:
        PayloadError: a scale or float is not finite, a scale is negative, a code is out of range, or padding is
            not zero.
    """
    if bits in _FLOATS:
        rows = np.ascontiguousarray(packed).view(_FLOATS[bits]).astype(np.float32)
        if not np.isfinite(rows).all():
            raise PayloadError("found a value that is not finite")
        return rows
    edge = 2 * _blocks(numbers)
    scales = np.ascontiguousarray(packed[:, :edge]).view("<f2").astype(np.float32)
    if not (np.isfinite(scales) & (scales >= 0)).all():
        raise PayloadError("found a scale that is negative or not finite")
    if bits == 8:
        codes = np.ascontiguousarray(packed[:, edge:]).view(np.int8)
    else:
        codes = _from_nibbles(packed[:, edge:], numbers)
    if (codes < -_LARGEST_CODE[bits]).any():
        raise PayloadError(f"found a code below {-_LARGEST_CODE[bits]}")
    return codes * np.repeat(scales, BLOCK, axis=1)[:, :numbers]


def _blocks(numbers: int) -> int:
    return -(-numbers // BLOCK)


def _as_bytes(rows: npt.NDArray) -> Bytes:
    return np.ascontiguousarray(rows).view(np.uint8)


def _scale(blocks: Rows, bits: int) -> Halves:
    """One float16 scale a block, shape (rows, blocks): absmax at 8 bits, the least squared error of a few at 4."""
    full = np.abs(blocks).max(axis=2) / np.float32(_LARGEST_CODE[bits])
    best = _ceil_float16(full)
    if bits == 8:
        return best
    least = _squared_error(blocks, best, bits)
    for shrink in _SHRINKS:
        codes = _codes(blocks, (full * shrink).astype("<f2"), bits).astype(np.float32)
        weight = (codes * codes).sum(axis=2)
        fitted = (blocks * codes).sum(axis=2) / np.where(weight > 0, weight, 1)  # least squares for these codes
        scales = fitted.astype("<f2")
        error = _squared_error(blocks, scales, bits)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def _ceil_float16(values: Rows) -> Halves:
    """The smallest float16 that is not below: no code then exceeds its range."""
    near = values.astype("<f2")
    return np.where(near < values, np.nextafter(near, np.float16(np.inf)), near).astype("<f2")


def _codes(blocks: Rows, scales: Halves, bits: int) -> npt.NDArray[np.int8]:
    steps = np.where(scales > 0, scales, np.float16(1)).astype(np.float32)[:, :, None]
    limit = _LARGEST_CODE[bits]
    return np.where(scales[:, :, None] > 0, np.clip(np.rint(blocks / steps), -limit, limit), 0).astype(np.int8)


def _squared_error(blocks: Rows, scales: Halves, bits: int) -> Rows:
    return np.square(blocks - _codes(blocks, scales, bits) * scales.astype(np.float32)[:, :, None]).sum(axis=2)


def _nibbles(codes: npt.NDArray[np.int8]) -> Bytes:
    """Two numbers a byte as code + 8, the earlier in the low half; an odd row ends in a zero half."""
    halves = np.zeros((len(codes), codes.shape[1] + codes.shape[1] % 2), np.uint8)
    halves[:, : codes.shape[1]] = codes + 8
    return halves[:, 0::2] | halves[:, 1::2] << 4


def _from_nibbles(packed: Bytes, numbers: int) -> npt.NDArray[np.int8]:
    halves = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), 2 * packed.shape[1])
    if halves[:, numbers:].any():
        raise PayloadError("found padding that is not zero")
    return halves[:, :numbers].astype(np.int8) - np.int8(8)
