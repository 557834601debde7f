"""The symbol tables: discrete Gaussians, one for every half octave of standard deviation, in whole numbers only.

Table j = 1..20 has sigma_j = 2^(j / 2 - 3) and gives the code k the weight exp(-k^2 / (2 sigma_j^2)). Exponentials
differ in their last bit from machine to machine, so weights come from 20 listed constants by integer arithmetic: every
encoder and decoder has the same tables. Table 0 is for nothing but zeros, which are not sent. Knows no coder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

PRECISION = 24
"""Frequencies of a table sum to 2^24, which is what constriction's coders use."""

RATIOS = (
    0,
    *(483, 1440801, 78665070, 581260615, 1580030168, 2605029347, 3344923893, 3790295335, 4034748382, 4162825044),
    *(4228379999, 4261543595, 4278222805, 4286586874, 4290775039, 4292870655, 4293918847, 4294443039),
    *(4294705159, 4294836225),
)
"""floor(2^32 exp(-2^(5 - j))), the weight of code 1 under table j over that of code 0; none under table 0."""

Codes = npt.NDArray[np.int16]
TableIndices = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One table.

    Args:
        largest: Codes are -largest..largest.
        frequencies: Of every code, shape (2 largest + 1,); at least 1 each, 2^24 together.
    """

    largest: int
    frequencies: npt.NDArray[np.int64]

    @property
    def bits(self) -> npt.NDArray[np.float64]:
        """What each code costs, ``log2(2^24 / frequency)``."""
        return PRECISION - np.log2(self.frequencies)


def largest_code(index: int) -> int:
    """The largest code that table `index` holds: ceil(8 sigma) + 2 = ceil(2^(j / 2)) + 2; 0 for table 0."""
    return math.isqrt(2**index - 1) + 3 if index else 0


@cache
def table(index: int) -> Table:
    """Table `index`, 0 to 20."""
    largest, ratio = largest_code(index), RATIOS[index]
    squared, weights = (ratio * ratio) >> 32, [1 << 32]
    for _ in range(largest):
        weights.append((weights[-1] * ratio) >> 32)
        ratio = (ratio * squared) >> 32
    counts = [*weights[:0:-1], *weights]
    total, free = sum(counts), (1 << PRECISION) - len(counts)
    shares = [count * free // total for count in counts]
    shares[largest] += free - sum(shares)
    return Table(largest, np.array(shares, np.int64) + 1)


TABLES = len(RATIOS)
"""Table indices are below this."""
LARGEST_CODE = largest_code(TABLES - 1)
"""No table holds a code beyond this; a quantiser's steps keep below it."""


@cache
def _bits_of_all() -> npt.NDArray[np.float64]:
    """Cost of |code| by table, shape (tables, LARGEST_CODE + 1); infinite where a table does not hold the code."""
    costs = np.full((TABLES, LARGEST_CODE + 1), np.inf)
    for index in range(TABLES):
        found = table(index)
        costs[index, : found.largest + 1] = found.bits[found.largest :]
    return costs


def code_bits(index: int) -> npt.NDArray[np.float64]:
    """Cost in bits of codes of magnitude 0, 1, 2, ... under a table, shape (LARGEST_CODE + 1,)."""
    return _bits_of_all()[index]


def best_table(codes: npt.NDArray[np.integer]) -> tuple[int, float]:
    """The table under which these codes cost least, and what they cost in bits; infinite beyond LARGEST_CODE."""
    magnitudes = np.abs(codes.astype(np.int64, copy=False)).ravel()
    if magnitudes.max(initial=0) > LARGEST_CODE:
        return TABLES - 1, math.inf
    sizes = np.bincount(magnitudes)
    costs = _bits_of_all()[:, : len(sizes)]
    held = np.flatnonzero(sizes)
    totals = costs[:, held] @ sizes[held]
    best = int(totals.argmin())
    return best, float(totals[best])
