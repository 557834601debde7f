"""The channel symbol by symbol: y = h c + n under an average power constraint (Eq. 4).

A codeword is a complex array of shape ``(symbols,)``, b_t symbols in the paper. It knows no bits, codes or rates: it is
here to check what the rest of the room takes for granted.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from airtune.errors import LinkError
from airtune.links.ranges import Range

_POWER: Final = Range("power", 0, 1e100, "(that of noise and codeword in the same unit)", open=True)
_NOISE_POWER: Final = Range("noise_power", 0, 1e100, "(that of noise and codeword in the same unit)", open=True)
_GAIN: Final = Range("|gain|", 0, 1e50)
_SLACK: Final = 1e-9
"""Relative excess of power that rounding may cause."""


def mean_power(codeword: np.ndarray) -> float:
    """(1/b) sum |c_i|^2.

    Raises:
        LinkError: a codeword that is empty, not one-dimensional or not finite.
    """
    symbols = np.asarray(codeword)
    if symbols.ndim != 1 or not symbols.size or symbols.dtype.kind not in "iufc":
        raise LinkError(
            f"a codeword has shape {symbols.shape} of {symbols.dtype}; give numbers in one dimension, at least one"
        )
    power = float(np.mean(np.abs(symbols.astype(np.complex128)) ** 2))
    if not math.isfinite(power):
        raise LinkError(f"a codeword has mean power {power}; give finite symbols")
    return power


def normalised(codeword: np.ndarray, power: float) -> np.ndarray:
    """The codeword scaled to mean power `power`, complex128, same shape.

    Raises:
        LinkError: a power not above 0, or a codeword of zeros only.
    """
    found = mean_power(codeword)
    if found == 0:
        raise LinkError("a codeword has mean power 0; give at least one symbol that is not zero")
    return np.asarray(codeword, dtype=np.complex128) * math.sqrt(_POWER.check(power) / found)


def transmit(
    codeword: np.ndarray, *, gain: complex, power: float, noise_power: float, rng: np.random.Generator
) -> np.ndarray:
    """y = h c + n of one block (Eq. 4), complex128, same shape as the codeword.

    Args:
        codeword: c, with (1/b) sum |c_i|^2 <= `power`.
        gain: h, the same for every symbol of the block.
        power: P.
        noise_power: sigma^2, of n ~ CN(0, sigma^2 I): half of it in each of the real and imaginary parts.
        rng: Draws the noise.

    Raises:
        LinkError: a codeword over the power constraint, or a value out of range.
    """
    # codeword: c      gain: h      noise: n
    _GAIN.check(abs(gain))
    found, allowed = mean_power(codeword), _POWER.check(power)
    if found > allowed * (1 + _SLACK):
        raise LinkError(f"a codeword has mean power {found:g}, allowed is {allowed:g}; scale it with normalised()")
    parts = rng.standard_normal((len(codeword), 2)) * math.sqrt(_NOISE_POWER.check(noise_power) / 2)
    noise = parts[:, 0] + 1j * parts[:, 1]
    return gain * np.asarray(codeword, dtype=np.complex128) + noise


def received_snr(gain: complex, power: float, noise_power: float) -> float:
    """|h|^2 P / sigma^2, linear: the SNR of Eq. 5. Raises `LinkError` for a value out of range."""
    return _GAIN.check(abs(gain)) ** 2 * _POWER.check(power) / _NOISE_POWER.check(noise_power)
