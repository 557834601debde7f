"""Which values are physical: the range of every quantity of the room, and one line where a value is outside.

Knows bounds and nothing of what is computed from the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from operator import index

from airtune.errors import LinkError


@dataclass(frozen=True, slots=True)
class Range:
    """The finite values a quantity may have: from `low` to `high`, ends included unless `open`."""

    what: str
    low: float
    high: float
    unit: str = ""
    open: bool = False
    advice: str = ""
    """What else to do, where choosing another value is not all."""

    def check(self, value: object) -> float:
        """The value as a float.

        Raises:
            LinkError: not a real number, NaN, infinite or outside the range.
        """
        try:
            number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
        except OverflowError:  # an int beyond every double
            number = math.inf
        if self.low < number < self.high or (not self.open and number in (self.low, self.high)):
            return number
        wanted = f"above {self.low:g} and below {self.high:g}" if self.open else f"{self.low:g} to {self.high:g}"
        raise LinkError(f"{self.what} is {value!r}; choose {f'{wanted} {self.unit}'.strip()}{self.advice}")

    def check_whole(self, value: object) -> int:
        """The value as an int.

        Raises:
            LinkError: not a whole number, or outside the range.
        """
        try:
            number = index(value)  # type: ignore[arg-type]
        except TypeError:
            raise LinkError(f"{self.what} is {value!r}; choose a whole number of at least {self.low:g}") from None
        if not self.low <= number <= self.high:
            raise LinkError(f"{self.what} is {number}; choose a whole number from {self.low:g} to {self.high:g}")
        return number


SNR_DB = Range("snr_db", -60, 80, "dB")
GAP_DB = Range("gap_db", 0, 60, "dB", advice=" (no code beats Shannon's rate)")
BANDWIDTH_HZ = Range("bandwidth_hz", 1e-6, 1e12, "Hz")
DEADLINE_S = Range("deadline_s", 1e-9, 1e9, "s")
RATE_BPS = Range("rate_bps", 0, 1e15, "bit/s", open=True)
EPSILON = Range("epsilon", 0, 1, "(the share of blocks in outage)", open=True)
PROBABILITY = Range("probability", 0, 1, open=True)
K_FACTOR = Range("k_factor", 0, 1e6, "(linear)", advice=", or still fading")
NAKAGAMI_M = Range("m", 0.5, 1e6, advice=", or still fading")
SNR = Range("snr", 0, 1e15, "(linear)", open=True)
POWER = Range("power", 0, 1e300)
BITS = Range("bits", 0, 10**24)
BLOCKS = Range("blocks", 1, 10**9)
