"""Shannon's rate of a block, and its mean over fading (Eq. 5).

Works on numbers: ratios, hertz and densities. It knows no link, no deadline, and of fading only what a caller hands it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Final

from airtune.links.ranges import BANDWIDTH_HZ, SNR

_ASYMPTOTIC_FROM: Final = 50.0
"""z from which 20 terms of the asymptotic series of exp(z) E1(z) are exact to double precision: 20!/50^20 < 3e-16."""
_TOLERANCE: Final = 1e-11
"""Relative, of the quadrature."""


def efficiency(snr: float) -> float:
    """log2(1 + SNR) in bit/s/Hz; `snr` is linear, 0 allowed, and no digits are lost where it is tiny."""
    return math.log1p(snr) / math.log(2)


def rate_bps(bandwidth_hz: float, snr: float, gap: float = 1.0) -> float:
    """W log2(1 + SNR / gap) in bit/s.

    Args:
        bandwidth_hz: W.
        snr: Linear.
        gap: Linear efficiency gap, at least 1: how much more SNR a real code needs than Shannon's (Forney and
            Ungerboeck 1998).

    Raises:
        LinkError: a value out of range.
    """
    return BANDWIDTH_HZ.check(bandwidth_hz) * efficiency(SNR.check(snr) / gap)


def rayleigh_mean_efficiency(snr: float) -> float:
    """E[log2(1 + snr |h|^2)] of Rayleigh fading in bit/s/Hz: exp(1/snr) E1(1/snr) / ln 2 (Alouini and Goldsmith 1999).

    exp(z) overflows and E1(z) underflows where z = 1/snr is large; their product is then summed as the asymptotic
    series 1/z - 1!/z^2 + 2!/z^3 - ... (Abramowitz and Stegun 5.1.51).
    """
    z = 1 / SNR.check(snr)
    if z >= _ASYMPTOTIC_FROM:
        total = 0.0
        for k in range(19, -1, -1):  # Horner: 1/z (1 - 1/z (1 - 2/z (1 - ...)))
            total = 1 - (k + 1) / z * total
        return total / z / math.log(2)

    from scipy.special import exp1

    return math.exp(z) * float(exp1(z)) / math.log(2)


def mean_efficiency(snr: float, amplitude_pdf: Callable[[float], float], half_width: float) -> float:
    """E[log2(1 + snr a^2)] in bit/s/Hz by adaptive quadrature over the amplitude a = |h|.

    Args:
        snr: Linear, at a = 1.
        amplitude_pdf: The density of a, smooth, with E[a^2] = 1.
        half_width: The density holds nothing that counts further than this from a = 1.

    Raises:
        LinkError: `snr` out of range.
    """
    # In amplitude the densities are smooth at 0, in power they may have a pole there.
    from scipy.integrate import quad

    SNR.check(snr)
    low, high = max(0.0, 1 - half_width), 1 + half_width
    knee = 1 / math.sqrt(snr)  # here log2(1 + snr a^2) turns from a parabola into a logarithm
    ends = [low, *(point for point in sorted((1.0, knee)) if low < point < high), high]
    parts = (
        quad(lambda a: amplitude_pdf(a) * math.log1p(snr * a * a), start, stop, epsabs=0, epsrel=_TOLERANCE, limit=200)
        for start, stop in pairwise(ends)
    )
    return math.fsum(float(part[0]) for part in parts) / math.log(2)
