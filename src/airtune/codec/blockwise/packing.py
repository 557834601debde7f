"""A site's directions and dense tensors <-> bytes. One row of bytes is one direction: lam, column of P, row of Q.

Knows values and their types; not levels, chunks or headers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from airtune.codec.blockwise.quantise import Bytes, Rows, pack, packed_bytes, unpack
from airtune.codec.contents import SiteShape, TensorShape
from airtune.codec.factors import Factors
from airtune.errors import PayloadError

_LEAST_PEAK, _LARGEST_PEAK = 2.0**-10, 2.0**10
"""Peaks of a direction that float16 and float16 scales hold well; beyond them a power of two moves into lam."""


def direction_bytes(site: SiteShape, bits: int) -> int:
    """Bytes of one direction of a site."""
    return packed_bytes(1, 32) + packed_bytes(site.fan_out, bits) + packed_bytes(site.fan_in, bits)


def tensor_bytes(tensor: TensorShape, bits: int) -> int:
    """Bytes of one dense tensor at 8, 16 or 32 bits per number."""
    return packed_bytes(tensor.numbers, bits)


def pack_site(name: str, factors: Factors, rank: int, bits: int) -> Bytes:
    """Pack the first `rank` directions, shape (rank, direction_bytes).

    Raises:
        PayloadError: a value, sent or not, is not finite or does not fit float32.
    """
    p, lam, q = (_as_float32(name, values) for values in (factors.p.T, factors.lam, factors.q))
    p, lam, q = p[:rank], lam[:rank], q[:rank]
    if bits < 32:
        p, q, lam = _balanced(name, p, q, lam)
    return np.concatenate([pack(lam[:, None], 32), pack(p, bits), pack(q, bits)], axis=1)


def unpack_site(site: SiteShape, rows: Bytes, bits: int) -> Factors:
    """Unpack directions, shape (r, direction_bytes), to float32.

    Raises:
        PayloadError: as `quantise.unpack`, with the site's name.
    """
    at_p = packed_bytes(1, 32)
    at_q = at_p + packed_bytes(site.fan_out, bits)
    try:
        lam = unpack(rows[:, :at_p], 1, 32)[:, 0]
        p = unpack(rows[:, at_p:at_q], site.fan_out, bits)
        q = unpack(rows[:, at_q:], site.fan_in, bits)
    except PayloadError as error:
        raise PayloadError(f"{site.name}: {error}; get the payload again") from None
    return Factors(p=p.T, lam=lam, q=q)


def pack_dense(name: str, tensor: npt.ArrayLike, bits: int) -> bytes:
    """Pack a dense tensor in C order, as one row of numbers.

    Raises:
        PayloadError: a value is not finite or does not fit.
    """
    try:
        return pack(_as_float32(name, tensor).reshape(1, -1), bits).tobytes()
    except PayloadError as error:
        raise PayloadError(error.args[0] if name in error.args[0] else f"{name}: {error}") from None


def unpack_dense(tensor: TensorShape, data: Bytes, bits: int) -> Rows:
    """Unpack a dense tensor's bytes to float32 of its shape."""
    try:
        return unpack(data[None], tensor.numbers, bits).reshape(tensor.shape)
    except PayloadError as error:
        raise PayloadError(f"{tensor.name}: {error}; get the payload again") from None


def _as_float32(name: str, values: npt.ArrayLike) -> Rows:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise PayloadError(f"{name} holds values of type {array.dtype}; give real numbers")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise PayloadError(f"{name} holds a value that is not finite in float32; check its training before sending it")
    return array


def _balanced(name: str, p: Rows, q: Rows, lam: Rows) -> tuple[Rows, Rows, Rows]:
    """Move powers of two from extreme rows of P and Q into lam: exact, the product stays."""
    p_shift, q_shift = _shift(p), _shift(q)
    with np.errstate(over="ignore"):
        lam = np.ldexp(lam, p_shift + q_shift)
    if not np.isfinite(lam).all():
        raise PayloadError(f"{name} has a direction beyond float32; scale its factors down")
    return np.ldexp(p, -p_shift[:, None]), np.ldexp(q, -q_shift[:, None]), lam


def _shift(rows: Rows) -> npt.NDArray[np.intc]:
    peaks = np.abs(rows).max(axis=1, initial=0.0)
    extreme = (peaks > 0) & ((peaks < _LEAST_PEAK) | (peaks > _LARGEST_PEAK))
    return np.where(extreme, np.frexp(peaks)[1], 0).astype(np.intc)
