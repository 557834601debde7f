"""How a block's gain h varies: a seam, and the textbook kinds.

A fading draws complex gains with E|h|^2 = 1 and knows the law of the power |h|^2. It knows no SNR of its own, bandwidth
or deadline. Formulas: Simon and Alouini, Digital Communication over Fading Channels, chapter 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, final, runtime_checkable

import numpy as np

from airtune.links.capacity import efficiency, mean_efficiency, rayleigh_mean_efficiency
from airtune.links.ranges import BLOCKS, K_FACTOR, NAKAGAMI_M, POWER, PROBABILITY, SNR


@runtime_checkable
class Fading(Protocol):
    """A law of the block gain h, constant within a block, with E|h|^2 = 1.

    Every method raises `LinkError` for an argument out of range.
    """

    @property
    def name(self) -> str:
        """The word settings know it by."""

    def gains(self, rng: np.random.Generator, blocks: int) -> np.ndarray:
        """Gains of consecutive blocks, complex128, shape ``(blocks,)``."""

    def power_cdf(self, power: float) -> float:
        """P(|h|^2 <= power)."""

    def power_quantile(self, probability: float) -> float:
        """The smallest power with ``power_cdf(power) >= probability``, for a probability above 0 and below 1."""

    def mean_efficiency(self, snr: float) -> float:
        """E[log2(1 + snr |h|^2)] in bit/s/Hz; `snr` is linear (Eq. 5)."""


@final
@dataclass(frozen=True, slots=True)
class Still:
    """No fading: h = 1, the AWGN channel of the paper's experiments."""

    name: ClassVar[str] = "still"

    def gains(self, rng: np.random.Generator, blocks: int) -> np.ndarray:
        return np.ones(BLOCKS.check_whole(blocks), dtype=np.complex128)

    def power_cdf(self, power: float) -> float:
        return float(POWER.check(power) >= 1)

    def power_quantile(self, probability: float) -> float:
        PROBABILITY.check(probability)
        return 1.0

    def mean_efficiency(self, snr: float) -> float:
        return efficiency(SNR.check(snr))


@final
@dataclass(frozen=True, slots=True)
class Rayleigh:
    """Many paths, none dominant: h ~ CN(0, 1), so |h|^2 is exponential."""

    name: ClassVar[str] = "rayleigh"

    def gains(self, rng: np.random.Generator, blocks: int) -> np.ndarray:
        return _scattered(rng, blocks)

    def power_cdf(self, power: float) -> float:
        return -math.expm1(-POWER.check(power))

    def power_quantile(self, probability: float) -> float:
        return -math.log1p(-PROBABILITY.check(probability))

    def mean_efficiency(self, snr: float) -> float:
        return rayleigh_mean_efficiency(snr)


@final
@dataclass(frozen=True, slots=True)
class Rician:
    """A line of sight over scatter: 2 (K + 1) |h|^2 is noncentral chi-square, 2 degrees of freedom, noncentrality 2 K.

    Args:
        k_factor: K, linear: power of the line of sight over power of the scatter. 0 is Rayleigh.

    Raises:
        LinkError: K negative, not finite or above 1e6.
    """

    k_factor: float
    name: ClassVar[str] = "rician"

    def __post_init__(self) -> None:
        object.__setattr__(self, "k_factor", K_FACTOR.check(self.k_factor))

    def gains(self, rng: np.random.Generator, blocks: int) -> np.ndarray:
        k = self.k_factor
        return math.sqrt(k / (k + 1)) + _scattered(rng, blocks) / math.sqrt(k + 1)

    def power_cdf(self, power: float) -> float:
        from scipy.special import chndtr

        k = self.k_factor
        return float(chndtr(2 * (k + 1) * POWER.check(power), 2, 2 * k))

    def power_quantile(self, probability: float) -> float:
        from scipy.special import chndtrix

        k = self.k_factor
        return float(chndtrix(PROBABILITY.check(probability), 2, 2 * k)) / (2 * (k + 1))

    def mean_efficiency(self, snr: float) -> float:
        from scipy.special import i0e

        k = self.k_factor
        root, width = math.sqrt(k), math.sqrt(k + 1)

        def amplitude_pdf(a: float) -> float:  # i0e(x) = exp(-x) I0(x) keeps the exponentials small
            s = width * a
            return 2 * width * s * math.exp(-((s - root) ** 2)) * float(i0e(2 * s * root))

        return mean_efficiency(snr, amplitude_pdf, half_width=9 / width)


@final
@dataclass(frozen=True, slots=True)
class Nakagami:
    """|h|^2 is Gamma(m, 1/m), the phase uniform: m = 1 is Rayleigh, larger is calmer, down to 0.5 is harsher.

    Raises:
        LinkError: m below 0.5, not finite or above 1e6.
    """

    m: float
    name: ClassVar[str] = "nakagami"

    def __post_init__(self) -> None:
        object.__setattr__(self, "m", NAKAGAMI_M.check(self.m))

    def gains(self, rng: np.random.Generator, blocks: int) -> np.ndarray:
        powers = rng.gamma(self.m, 1 / self.m, BLOCKS.check_whole(blocks))
        return np.sqrt(powers) * np.exp(2j * np.pi * rng.random(len(powers)))

    def power_cdf(self, power: float) -> float:
        from scipy.special import gammainc

        return float(gammainc(self.m, self.m * POWER.check(power)))

    def power_quantile(self, probability: float) -> float:
        from scipy.special import gammaincinv

        return float(gammaincinv(self.m, PROBABILITY.check(probability))) / self.m

    def mean_efficiency(self, snr: float) -> float:
        from scipy.special import xlogy

        m = self.m
        log_scale = math.log(2) + m * (math.log(m) - 1) - math.lgamma(m)

        def amplitude_pdf(a: float) -> float:  # 2 m^m a^(2m-1) exp(-m a^2) / Gamma(m)
            return math.exp(log_scale + float(xlogy(2 * m - 1, a)) - m * (a * a - 1))

        return mean_efficiency(snr, amplitude_pdf, half_width=9 / math.sqrt(m))


def _scattered(rng: np.random.Generator, blocks: int) -> np.ndarray:
    """CN(0, 1), shape ``(blocks,)``."""
    parts = rng.standard_normal((BLOCKS.check_whole(blocks), 2))
    return (parts[:, 0] + 1j * parts[:, 1]) / math.sqrt(2)
