"""An adapter in whole numbers: codes, one scale for each direction, and the table each vector is coded under.

A direction's update is ``scale * p q^T`` with p and q vectors of codes, so one scale serves both vectors, whatever
steps they were rounded with. Scales lie on a grid of quarters of an octave, which every decoder has to the bit.
Knows values; not how they were chosen, nor bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from airtune.codec.entropy import Codes, TableIndices, best_table, code_bits
from airtune.codec.factors import Factors

SCALE_STEPS = 4
"""Scales of an octave: scale j is 2^(j / 4). Steps are chosen so that a direction's scale is one of them."""
LARGEST_SCALE = 500
"""Scale indices are -500..500: 2^-125 to 2^125."""

_AT_ONCE = 2**18
"""Codes whose costs are looked up at once."""
_MANTISSAS = np.array([0x3F800000, 0x3F9837F0, 0x3FB504F3, 0x3FD744FD], np.uint32).view(np.float32)

Scales = npt.NDArray[np.int16]


def scale_values(indices: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """2^(j / 4) as float32: one of 4 listed numbers times a power of two, the same on every machine."""
    indices = np.asarray(indices, np.int64)
    found: npt.NDArray[np.float32] = np.ldexp(
        _MANTISSAS[indices % SCALE_STEPS], (indices // SCALE_STEPS).astype(np.intc)
    )
    return found


def nearest_scales(values: npt.NDArray[np.floating]) -> Scales:
    """Indices of the scales nearest to positive values, on the logarithmic grid; the ends of the grid beyond it."""
    with np.errstate(divide="ignore"):
        exact = SCALE_STEPS * np.log2(np.asarray(values, np.float64))
    return np.clip(np.round(exact), -LARGEST_SCALE, LARGEST_SCALE).astype(np.int16)


@dataclass(frozen=True, slots=True, eq=False)
class CodedSite:
    """One site's directions.

    Args:
        p: Codes, shape (out, r).
        q: Codes, shape (r, in).
        scales: Scale index of every direction, shape (r,).
        p_tables: Table of every column of p, shape (r,).
        q_tables: Table of every row of q, shape (r,).
    """

    p: Codes
    q: Codes
    scales: Scales
    p_tables: TableIndices
    q_tables: TableIndices

    @classmethod
    def of(cls, p: Codes, q: Codes, scales: Scales) -> CodedSite:
        """Under the tables that cost least.

        A direction with a vector of nothing but zeros sends neither codes nor an odd scale.

        Args:
            p: Codes by direction, shape (r, out).
            q: Shape (r, in).
            scales: Shape (r,).
        """
        empty = ~np.logical_and(p.any(axis=1), q.any(axis=1))
        p, q = (np.where(empty[:, None], 0, part).astype(np.int16) for part in (p, q))
        common = np.median(scales[~empty]) if not empty.all() else 0
        return cls(p.T.copy(), q, np.where(empty, common, scales).astype(np.int16), tables_of(p), tables_of(q))

    def first(self, rank: int) -> CodedSite:
        """The first `rank` directions."""
        kept = slice(rank)
        return CodedSite(self.p[:, kept], self.q[kept], self.scales[kept], self.p_tables[kept], self.q_tables[kept])

    @property
    def rank(self) -> int:
        return len(self.scales)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the update."""
        return self.p.shape[0], self.q.shape[1]

    @property
    def bits(self) -> npt.NDArray[np.float64]:
        """What the codes of each direction cost under their tables, shape (r,)."""
        return _costs(self.p.T, self.p_tables) + _costs(self.q, self.q_tables)

    def factors(self) -> Factors:
        """What a receiver has of it, float32: P and Q whole numbers, lam the scales."""
        return Factors(self.p.astype(np.float32), scale_values(self.scales), self.q.astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class CodedTensor:
    """A dense tensor, with a scale and a table for every row along its first axis (one row if it has no other axis).

    Args:
        codes: Shape (rows, numbers of a row).
        scales: Shape (rows,).
        tables: Shape (rows,).
        shape: Of the tensor.
    """

    codes: Codes
    scales: Scales
    tables: TableIndices
    shape: tuple[int, ...]

    @property
    def bits(self) -> float:
        """What the codes cost under their tables."""
        return float(_costs(self.codes, self.tables).sum())

    def tensor(self) -> npt.NDArray[np.float32]:
        """What a receiver has of it."""
        return dense_tensor(self.codes, self.scales, self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A whole adapter in codes: sites in the order of the base model, and dense tensors."""

    sites: Mapping[str, CodedSite]
    dense: Mapping[str, CodedTensor]


def tables_of(rows: Codes) -> TableIndices:
    """The table under which each row costs least, shape (rows,)."""
    return np.array([best_table(row)[0] for row in rows], np.uint8)


def rows_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows of a dense tensor, and numbers of a row."""
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (1, prod(shape))


def dense_tensor(codes: npt.NDArray[np.integer], scales: Scales, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Rows of whole numbers under a scale each, which float32 holds (`HeldAdapter` sees to that)."""
    found = codes.astype(np.float32)
    found *= scale_values(scales)[:, None]
    return found.reshape(shape)


def _costs(rows: Codes, tables: TableIndices) -> npt.NDArray[np.float64]:
    """What each row costs under its table, shape (rows,); table 0 holds zeros alone, at no cost."""
    found, at_once = np.zeros(len(rows)), max(1, _AT_ONCE // max(1, rows.shape[1]))
    for table in np.unique(tables[tables > 0]):
        bits, there = code_bits(int(table)), np.flatnonzero(tables == table)
        for some in (there[start : start + at_once] for start in range(0, len(there), at_once)):
            found[some] = bits[np.abs(rows[some])].sum(axis=1)
    return found
