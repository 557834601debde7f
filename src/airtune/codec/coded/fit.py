"""The price of a bit that suits a budget, or a number of bits per number.

Where every direction's steps and every decision to send it follow one price, no bit moved from one to another lowers
the loss. Knows budgets; not what a link carries.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from airtune.codec.coded.draft import Draft
from airtune.codec.coded.quantiser import Quantised, Quantiser
from airtune.codec.coded.refining import Refiner
from airtune.codec.contents import Binding, Meta
from airtune.codec.payload import Payload
from airtune.errors import PayloadError

TRIES = 16
"""Prices that are tried."""
CLOSE = 0.005
"""A share of the bits asked for that is not worth another try."""
OFF_ENDS = 0.1
"""A new price lies at least so far from both that enclose it, as a share of what lies between."""
NEAR = 0.004
"""Octaves between two prices that are not worth another try."""
FARTHEST = 40
"""Octaves from the usual price beyond which nothing changes any more."""


def fit_budget(
    quantiser: Quantiser | Refiner,
    binding: Binding,
    meta: Meta,
    budget_bits: int,
    *,
    named: bool = False,
    overhead_bits: int = 0,
) -> tuple[Payload, float]:
    """The ladder that fills a budget, and the price of a bit there.

    Args:
        named: As `Draft`.
        overhead_bits: Bits of the budget that go beside the payload.

    Raises:
        PayloadError: the budget does not hold these, the header and the dense tensors.
    """

    def draft(slope: float) -> Draft:
        return Draft(quantiser.at(slope), binding, meta, named=named)

    def bits(slope: float) -> float:
        found = draft(slope)
        return found.sizes.order_bits(found.worth(slope))

    least = draft(quantiser.usual_slope * 2.0**FARTHEST).sizes.order_bits([])
    if least > (room := budget_bits - overhead_bits):
        beside = f" and {overhead_bits} go beside the payload" if overhead_bits else ""
        raise PayloadError(f"header and dense tensors take {least} bits{beside}; the budget is {budget_bits}; raise it")
    slope = price_for(bits, room, quantiser.usual_slope)
    return draft(slope).ladder(room, slope), slope


def fit_bits(quantiser: Quantiser, bits_per_number: float) -> tuple[Quantised, float]:
    """All directions at a mean number of bits for each number of P and Q, and the price of a bit there."""

    def bits(slope: float) -> float:
        return sum(float(site.bits.sum()) for site in quantiser.at(slope).coded.sites.values())

    slope = price_for(bits, bits_per_number * quantiser.numbers, quantiser.usual_slope)
    return quantiser.at(slope), slope


def price_for(bits: Callable[[float], float], asked: float, start: float) -> float:
    """The price at which bits come closest to what is asked from below.

    Between two prices, one on either side, the next is where a straight line through the logarithms of their bits
    says, or their mean, by turns: bits also jump, where a direction comes or goes.

    Args:
        bits: Bits at a price; falls as the price rises.
        start: Where to begin.
    """
    price, low, high = 0.0, -math.inf, math.inf
    above, below, jump = math.inf, 0.0, 1.0
    for tried in range(TRIES):
        found = bits(start * 2.0**price)
        if found > asked:
            low, above = price, found
        else:
            high, below = price, found
            if found >= asked * (1 - CLOSE) or price <= -FARTHEST:
                break
        if math.isinf(high):
            price = min(price + max(jump, 2 * math.log2(found / max(asked, 1.0))), FARTHEST)
            jump *= 2
        elif math.isinf(low):
            price = max(price - max(jump, 2 * math.log2(asked / max(found, 1.0))), -FARTHEST)
            jump *= 2
        elif high - low < NEAR:
            break
        else:
            line = math.log((1 + asked * (1 - CLOSE / 2)) / (1 + above)) / math.log((1 + below) / (1 + above))
            price = low + (high - low) * (0.5 if tried % 2 else min(max(line, OFF_ENDS), 1 - OFF_ENDS))
    return start * 2.0 ** (high if math.isfinite(high) else FARTHEST)
