"""Numbers as people read them: kbit and Mbit, ms and s, percent.

A column gets one unit, so that its numbers can be compared at a glance; a sentence gets a unit per number. Missing is
an en dash. Knows no rows and no pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MISSING = "–"
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Unit:
    """How one column writes its numbers: divided by `factor`, with `digits` decimals."""

    name: str
    factor: float = 1.0
    digits: int = 0

    def number(self, value: float | None) -> str:
        """The number without its unit.

        Example:
            >>> Unit("kbit", 1e3, 1).number(1_234_560), Unit("s", 1, 3).number(None)
            ('1,234.6', '–')
        """
        if value is None:
            return MISSING
        return f"{value / self.factor:,.{self.digits}f}" if math.isfinite(value) else str(float(value))

    def quantity(self, value: float | None) -> str:
        """The number with its unit, kept on one line."""
        return MISSING if value is None else f"{self.number(value)}{NO_BREAK}{self.name}".rstrip()


BIT, KBIT, MBIT, GBIT = Unit("bit"), Unit("kbit", 1e3, 1), Unit("Mbit", 1e6, 2), Unit("Gbit", 1e9, 2)
MICROSECOND, MILLISECOND, SECOND = Unit("µs", 1e-6, 1), Unit("ms", 1e-3, 1), Unit("s", 1, 3)
PERCENT, PERPLEXITY, LOSS, COUNT = Unit("%", 0.01, 1), Unit("ppl", 1, 2), Unit("nat", 1, 4), Unit("")


def bit_unit(values: Iterable[float]) -> Unit:
    """The unit in which the smallest of the amounts is at least 1; never below kbit unless all are."""
    sizes = [value for value in values if math.isfinite(value) and value > 0] or [0.0]
    if max(sizes) < 1e3:
        return BIT
    return next((unit for unit in (GBIT, MBIT) if min(sizes) >= unit.factor), KBIT)


def time_unit(values: Iterable[float]) -> Unit:
    """Seconds, or ms or µs where every value is below one of the next larger."""
    longest = max((value for value in values if math.isfinite(value)), default=1.0)
    if longest >= 1 or longest <= 0:
        return SECOND
    return MILLISECOND if longest >= 1e-3 else MICROSECOND


def score_unit(metric: str) -> Unit:
    """Percent for accuracy, perplexity as it is."""
    return PERCENT if metric == "accuracy" else PERPLEXITY


def bits(value: float) -> str:
    """An amount of data in a sentence: ``312.0 kbit``."""
    return bit_unit([value]).quantity(value)


def seconds(value: float) -> str:
    """A short time in a sentence: ``655.2 ms``, ``1 s``."""
    unit = time_unit([value])
    return f"{unit.number(value).rstrip('0').rstrip('.')}{NO_BREAK}{unit.name}"


def duration(value: float) -> str:
    """How long something took, from seconds to hours: ``2 h 05 min``."""
    if value < 60:
        return f"{value:.1f}{NO_BREAK}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{NO_BREAK}min {rest:02d}{NO_BREAK}s"
    return f"{minutes // 60:,}{NO_BREAK}h {minutes % 60:02d}{NO_BREAK}min"


def decibels(value: float) -> str:
    """``-5 dB``."""
    return f"{value:g}{NO_BREAK}dB"


def bandwidth(hertz: float) -> str:
    """``180 kHz``, ``1.4 MHz``."""
    return f"{hertz / 1e6:g}{NO_BREAK}MHz" if hertz >= 1e6 else f"{hertz / 1e3:g}{NO_BREAK}kHz"


def span(texts: Iterable[str]) -> str:
    """What a list of equal or differing texts has to say: the one, or all of them."""
    return ", ".join(dict.fromkeys(texts)) or MISSING


def amount(value: float, quantity: str) -> str:
    """A ledger amount in the unit of its quantity."""
    if quantity == "bits":
        return bits(value)
    if quantity in ("seconds", "compute_seconds"):
        return duration(value) if value >= 60 else seconds(value)
    if quantity in ("flops", "memory_bytes", "joules"):
        return _metric_prefix(value) + {"flops": "flop", "memory_bytes": "B", "joules": "J"}[quantity]
    return f"{value:,.0f}"


def _metric_prefix(value: float) -> str:
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:,.2f}{NO_BREAK}{prefix}"
    return f"{value:,.2f}{NO_BREAK}"
