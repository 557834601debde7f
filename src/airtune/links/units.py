"""Decibels and linear ratios, and the power of thermal noise.

Knows no channel and no rate.
"""

from __future__ import annotations

import math
from typing import Final, overload

import numpy as np

from airtune.errors import LinkError
from airtune.links.ranges import BANDWIDTH_HZ, Range

BOLTZMANN_J_PER_K: Final = 1.380649e-23
"""k, exact since the SI of 2019."""

_DB = 3000.0
"""Beyond it a double has no linear value."""
_NOISE_FIGURE_DB = Range("noise_figure_db", 0, 60, "dB")
_TEMPERATURE_K = Range("temperature_k", 1e-3, 1e5, "K")


@overload
def db_to_linear(db: float) -> float: ...
@overload
def db_to_linear(db: np.ndarray) -> np.ndarray: ...
def db_to_linear(db: float | np.ndarray) -> float | np.ndarray:
    """The power ratio 10^(dB/10), of one number or an array of any shape.

    Raises:
        LinkError: a value that is not finite, or beyond 3000 dB either way.

    Example:
        >>> db_to_linear(20.0)
        100.0
    """
    good = np.abs(db) <= _DB
    if not np.all(good):
        raise LinkError(f"a value in decibels is {_first_bad(db, good)}; choose -{_DB:g} to {_DB:g} dB")
    return 10.0 ** (db / 10) if isinstance(db, np.ndarray) else 10.0 ** (float(db) / 10)


@overload
def linear_to_db(x: float) -> float: ...
@overload
def linear_to_db(x: np.ndarray) -> np.ndarray: ...
def linear_to_db(x: float | np.ndarray) -> float | np.ndarray:
    """10 log10(x) of a power ratio, of one number or an array of any shape.

    Raises:
        LinkError: a ratio that is not finite and above 0, where there is no number of decibels.

    Example:
        >>> linear_to_db(100.0)
        20.0
    """
    good = np.isfinite(x) & (np.asarray(x) > 0)
    if not np.all(good):
        raise LinkError(f"a power ratio is {_first_bad(x, good)}; choose a finite number above 0")
    return 10 * np.log10(x) if isinstance(x, np.ndarray) else 10 * math.log10(x)


def thermal_noise_w(bandwidth_hz: float, *, noise_figure_db: float = 0.0, temperature_k: float = 290.0) -> float:
    """The noise power k T B F of a receiver in watts (Friis 1944), sigma^2 of Eq. 4.

    Args:
        bandwidth_hz: B.
        noise_figure_db: F, what the receiver itself adds.
        temperature_k: T; 290 K is the convention noise figures are stated at.

    Raises:
        LinkError: a value out of range.
    """
    kelvin, hertz = _TEMPERATURE_K.check(temperature_k), BANDWIDTH_HZ.check(bandwidth_hz)
    return BOLTZMANN_J_PER_K * kelvin * hertz * db_to_linear(_NOISE_FIGURE_DB.check(noise_figure_db))


def _first_bad(values: float | np.ndarray, good: np.ndarray | np.bool_ | bool) -> float:
    return float(np.atleast_1d(values)[~np.atleast_1d(good)][0])
