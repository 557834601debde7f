"""Airtime of bits at a rate, and the bits that fit a deadline (Eqs. 6-7).

Knows bits, seconds and bit/s; not where a rate comes from or what the bits are.
"""

from __future__ import annotations

import math

from airtune.links.ranges import BITS, DEADLINE_S, RATE_BPS


def airtime_s(bits: int, rate_bps: float) -> float:
    """bits / rate, in seconds (Eq. 6). Raises `LinkError` for bits below 0 or a rate not above 0."""
    return BITS.check_whole(bits) / RATE_BPS.check(rate_bps)


def meets_deadline(bits: int, rate_bps: float, deadline_s: float) -> bool:
    """Whether bits are over by the deadline (Eq. 7); exactly in time is in time."""
    return airtime_s(bits, rate_bps) <= DEADLINE_S.check(deadline_s)


def budget_bits(deadline_s: float, rate_bps: float) -> int:
    """The most bits that meet a deadline: with one more, the airtime as computed is over it.

    Holds in floating point, not only on paper. Above 2^53 bits, where doubles no longer tell neighbours apart, the
    budget still meets the deadline and is the largest to within their spacing.

    Raises:
        LinkError: a deadline or rate out of range.
    """
    rate, deadline = RATE_BPS.check(rate_bps), DEADLINE_S.check(deadline_s)
    step = max(1, int(math.ulp(rate * deadline)))
    bits = math.floor(rate * deadline) + step  # the product is rounded: the answer is at most one step above it
    while bits > 0 and bits / rate > deadline:
        bits -= step
    return max(bits, 0)
