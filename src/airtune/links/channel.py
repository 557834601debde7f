"""A block as it turned out, and the link that blocks are drawn from.

Knows rates, airtime and deadlines; not what the bits are, who sends them, or how much to send.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from airtune.errors import LinkError
from airtune.links import deadline
from airtune.links.capacity import rate_bps
from airtune.links.fading import Fading, Still
from airtune.links.ranges import BANDWIDTH_HZ, EPSILON, GAP_DB, RATE_BPS, SNR_DB
from airtune.links.units import db_to_linear


@dataclass(frozen=True, slots=True)
class ChannelState:
    """One realised block.

    Args:
        snr_db: The block's own SNR |h|^2 P / sigma^2 in dB, fading included.
        bandwidth_hz: W.

    Raises:
        LinkError: a value that is not finite, an SNR outside -60..80 dB, or a bandwidth outside 1e-6..1e12 Hz.
    """

    snr_db: float
    bandwidth_hz: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "snr_db", SNR_DB.check(self.snr_db))
        object.__setattr__(self, "bandwidth_hz", BANDWIDTH_HZ.check(self.bandwidth_hz))


@dataclass(frozen=True, slots=True)
class Link:
    """A block-fading link: each block has one gain, known to the receiver.

    Args:
        bandwidth_hz: W.
        snr_db: Mean SNR P / sigma^2 over blocks, in dB.
        fading: The law of the gain h; still by default.
        gap_db: How much more SNR the link's codes need than Shannon's, in dB.

    Raises:
        LinkError: a value out of range, or a fading that is none.

    Example:
        >>> link = Link(bandwidth_hz=1e6, snr_db=0.0)
        >>> (block,) = link.observe(np.random.default_rng(0))
        >>> link.rate_bps(block), link.airtime_s(500_000, block), link.budget_bits(0.5, block)
        (1000000.0, 0.5, 500000)
    """

    bandwidth_hz: float
    snr_db: float
    fading: Fading = field(default_factory=Still)
    gap_db: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "bandwidth_hz", BANDWIDTH_HZ.check(self.bandwidth_hz))
        object.__setattr__(self, "snr_db", SNR_DB.check(self.snr_db))
        object.__setattr__(self, "gap_db", GAP_DB.check(self.gap_db))
        if isinstance(self.fading, type) or not isinstance(self.fading, Fading):
            raise LinkError(f"fading is {self.fading!r}; give an object such as Still(), or make_fading(name)")

    @property
    def fades(self) -> bool:
        """Whether blocks differ."""
        return not isinstance(self.fading, Still)

    @property
    def mean_state(self) -> ChannelState:
        """A block at exactly the mean SNR: every block, where nothing fades."""
        return ChannelState(self.snr_db, self.bandwidth_hz)

    def observe(self, rng: np.random.Generator, blocks: int = 1) -> tuple[ChannelState, ...]:
        """Draw consecutive blocks.

        An SNR that fading takes out of -60..80 dB is cut there: at a mean of -5 dB that is 3 in a million Rayleigh
        blocks, which carry next to nothing either way.

        Raises:
            LinkError: `blocks` below 1.
        """
        powers = np.abs(self.fading.gains(rng, blocks)) ** 2
        offsets_db = 10 * np.log10(np.maximum(powers, np.finfo(float).tiny))
        snrs_db = np.clip(self.snr_db + offsets_db, SNR_DB.low, SNR_DB.high)
        return tuple(ChannelState(snr_db, self.bandwidth_hz) for snr_db in snrs_db.tolist())

    def rate_bps(self, state: ChannelState) -> float:
        """What a block carries, W log2(1 + SNR / gap) in bit/s: the block's own rate, at the block's own bandwidth."""
        return rate_bps(state.bandwidth_hz, db_to_linear(state.snr_db), self._gap)

    def airtime_s(self, bits: int, state: ChannelState) -> float:
        """Seconds that bits need in a block (Eq. 6). Raises `LinkError` for bits below 0."""
        return deadline.airtime_s(bits, self.rate_bps(state))

    def budget_bits(self, deadline_s: float, state: ChannelState) -> int:
        """The most bits for which `airtime_s` in this block is at most the deadline, exactly (Eq. 7).

        Raises:
            LinkError: a deadline outside 1e-9..1e9 s.
        """
        return deadline.budget_bits(deadline_s, self.rate_bps(state))

    def ergodic_rate_bps(self) -> float:
        """The mean over blocks of their rate, C of Eq. 5: for planning over many blocks, no promise for one."""
        return self.bandwidth_hz * self.fading.mean_efficiency(db_to_linear(self.snr_db) / self._gap)

    def outage_rate_bps(self, epsilon: float) -> float:
        """The rate that all but a share `epsilon` of blocks carry: W log2(1 + F^-1(epsilon) SNR / gap).

        F is the distribution of |h|^2 (Tse and Viswanath, Fundamentals of Wireless Communication, section 5.4.1).

        Raises:
            LinkError: `epsilon` not above 0 and below 1.
        """
        power = self.fading.power_quantile(EPSILON.check(epsilon))
        return rate_bps(self.bandwidth_hz, power * db_to_linear(self.snr_db), self._gap)

    def outage_probability(self, rate_bps: float) -> float:
        """The share of blocks that carry no more than `rate_bps`, F((2^(R / W) - 1) gap / SNR).

        Raises:
            LinkError: a rate not above 0.
        """
        bits_per_hz = RATE_BPS.check(rate_bps) / self.bandwidth_hz
        if bits_per_hz > 1000:  # no block of any SNR in range carries 30
            return 1.0
        return self.fading.power_cdf(math.expm1(bits_per_hz * math.log(2)) * self._gap / db_to_linear(self.snr_db))

    @property
    def _gap(self) -> float:
        return db_to_linear(self.gap_db)
