"""Ways to send an adapter at 4 bits a number, and format 2 at the error that each of them makes.

An error is relative: the norm of what all updates together are off by, over the norm of all updates. Knows factors and
bits; not time or links.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from airtune.codec import Allocation, Binding, Draft, Factors, Payload, Quantiser, decode, encode
from airtune.errors import ModelError
from airtune.methods.airllm.bits.grid import at_widths

Adapter = Mapping[str, Factors]

WIDTH = 4
EVERYTHING = 2**62
"""A budget in bits that holds whatever is worth its price."""
BINDING = Binding("0" * 64, "0" * 64)
HEEDING = 1.0
"""Thrift of rounding that heeds bits. Packing leaves it at 0, which is better for the loss."""
CLOSE, TRIES = 2e-3, 12
"""How far below the error asked format 2 ends, and how many prices of a bit are tried for that."""


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One way to send: its bits, and its relative error."""

    name: str
    bits: float
    error: float


def uniform_ways(factors: Adapter) -> list[Way]:
    """One scale for each column of P diag(lam) and row of Q: its largest number's, or the one of least squares."""
    fitted = next(at_widths("", factors, {}, widths=(WIDTH,)))
    largest = {name: _by_largest(site) for name, site in factors.items()}
    return [
        Way("uniform 4 bits, by largest", fitted.bits, relative_error(factors, largest)),
        Way("uniform 4 bits, least squares", fitted.bits, relative_error(factors, fitted.factors)),
    ]


def blockwise_way(factors: Adapter) -> Way:
    """Format 1: a fitted scale for every 64 numbers."""
    ranks = tuple(site.rank for site in factors.values())
    payload = encode(factors, {}, Allocation(ranks, (WIDTH,) * len(ranks)), BINDING, {})
    return Way("format 1, 4 bits", payload.bits, relative_error(factors, decode(payload.data, BINDING).factors))


def format_2_at(quantiser: Quantiser, factors: Adapter, asked: float, *, thrift: float = 0.0) -> Way:
    """Format 2 at an error just below what is asked: one price of a bit for every step and every direction's sending.

    Args:
        thrift: As `Quantiser.at`.

    Raises:
        ModelError: no price tried leads below it.
    """
    slope, best = quantiser.usual_slope, None
    name = "format 2 at that error" + (", rounding heeds bits" if thrift else "")
    low, high = 0.0, math.inf  # prices at which the error was small enough, and too large
    for _ in range(TRIES):
        payload = price_taken(quantiser, slope, thrift=thrift)
        error = relative_error(factors, decode(payload.data, BINDING).factors)
        if error <= asked:
            low = slope
            best = best if best is not None and best.error >= error else Way(name, payload.bits, error)
        else:
            high = slope
        if asked * (1 - CLOSE) <= error <= asked:
            break
        slope *= (asked * (1 - CLOSE / 2) / error) ** 2  # steps are as their price's root, and so is the error
        slope = slope if low < slope < high else math.sqrt(low * high)
    if best is None:
        raise ModelError(f"no price of a bit gives an error of at most {asked:.2g}; the last gave {error:.2g}")
    return best


def price_taken(quantiser: Quantiser, slope: float, *, thrift: float = 0.0) -> Payload:
    """Format 2 at a price of a bit: what is worth it."""
    return Draft(quantiser.at(slope, thrift=thrift), BINDING, {}).ladder(EVERYTHING, slope)


def relative_error(sent: Adapter, found: Adapter) -> float:
    """|W - W'| / |W| over all updates together, from the factors' products with one another: no update is formed."""
    lost = whole = 0.0
    for name, site in sent.items():
        columns, rows = _vectors(site)
        others, other_rows = _vectors(found[name])
        whole += _square(columns, rows)
        lost += _square(np.hstack([columns, -others]), np.vstack([rows, other_rows]))
    return (max(lost, 0.0) / whole) ** 0.5


def _by_largest(site: Factors) -> Factors:
    columns, rows = _vectors(site)
    return Factors(_rounded(columns.T).T, np.ones(site.rank), _rounded(rows))


def _rounded(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    steps = np.abs(rows).max(axis=1, keepdims=True) / (2 ** (WIDTH - 1) - 1)
    return np.round(rows / np.where(steps > 0, steps, 1)) * steps


def _vectors(site: Factors) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Columns of P diag(lam), shape (out, r), and Q, shape (r, in)."""
    return np.asarray(site.p, np.float64) * np.asarray(site.lam, np.float64), np.asarray(site.q, np.float64)


def _square(columns: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> float:
    """|columns rows|^2 = tr(columns^T columns rows rows^T)."""
    return float(((columns.T @ columns) * (rows @ rows.T)).sum())
