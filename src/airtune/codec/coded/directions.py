"""The directions of an update -> codes at one price of a bit, P first, then Q against the rounded P.

At a price of `slope` (loss per bit) an entry whose squared error counts w has a step of square ``6 slope / (w ln 2)``:
a finer one would cost more bits than it saves loss (reverse water-filling). Knows no bytes and no ranks to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from airtune.codec.coded.rounding import Floats, Metric, Rounding, round_together
from airtune.codec.coded.values import CodedSite, nearest_scales, scale_values
from airtune.codec.entropy import LARGEST_CODE, Codes

Coding = Generator[Rounding, Codes, tuple[CodedSite, Floats]]
"""A site under way: what it asks for, what it is given, and its codes and gains in the end."""


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """Those of one site, what each takes of its size shared evenly between P and Q; and all that no price changes.

    Args:
        p, q: Shapes (r, out) and (r, in).
        sizes: Of each update under the metric, shape (r,).
        near_p, near_q: Both under their metrics, shapes as theirs.
        outputs, inputs: How errors of P and of Q count.
    """

    p: Floats
    q: Floats
    sizes: Floats
    near_p: Floats
    near_q: Floats
    outputs: Metric
    inputs: Metric

    @classmethod
    def of(cls, columns: Floats, rows: Floats, outputs: Metric, inputs: Metric) -> Directions:
        """Of P's columns (r, out) and Q's rows (r, in)."""
        near_p, near_q = outputs.weighted(columns), inputs.weighted(rows)
        of_p = (near_p * columns).sum(axis=-1)
        sizes = np.sqrt(of_p * (near_q * rows).sum(axis=-1))
        there = (sizes > 0)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            to_balance = np.where(there, np.sqrt(sizes / np.maximum(of_p, 1e-300))[:, None], 0.0)
        divided = np.where(there, to_balance, 1.0)
        q, near_q = (np.where(there, each / divided, 0.0) for each in (rows, near_q))
        return cls(columns * to_balance, q, sizes, near_p * to_balance, near_q, outputs, inputs)


def code_sites(sites: Mapping[str, Directions], slope: float, thrift: float) -> dict[str, tuple[CodedSite, Floats]]:
    """Round the directions of sites, and tell what each gains."""
    under_way = {name: _coding(directions, slope, thrift) for name, directions in sites.items()}
    of_p = round_together([next(one) for one in under_way.values()])
    of_q = round_together([one.send(codes) for one, codes in zip(under_way.values(), of_p, strict=True)])
    return {name: _ended(one, codes) for (name, one), codes in zip(under_way.items(), of_q, strict=True)}


def usual_slope_of(sites: Iterable[Directions]) -> float:
    """A price at which rounding takes about a fiftieth of what the updates are held to gain."""
    gain, numbers = 0.0, 0
    for site in sites:
        gain += float((site.sizes**2).sum()) / 2
        numbers += site.p.size + site.q.size
    return max(gain / numbers / 50, 1e-300) if gain > 0 else 1e-30


def prices_of(sizes: Floats, slope: float, thrift: float) -> Floats | None:
    """What a bit costs in units of the metric, for vectors whose errors count half of `sizes` times it."""
    return thrift * slope / np.maximum(0.5 * sizes, 1e-300) if thrift else None


def _ended(coding: Coding, codes: Codes) -> tuple[CodedSite, Floats]:
    try:
        coding.send(codes)
    except StopIteration as end:
        found: tuple[CodedSite, Floats] = end.value
        return found
    raise AssertionError("a site is rounded twice, its P and its Q")


def _coding(site: Directions, slope: float, thrift: float) -> Coding:
    """Asks for P's codes, then for Q's."""
    outputs, inputs = site.outputs, site.inputs
    p_steps = _steps(site.p, site.sizes, outputs, slope)
    p_codes = yield Rounding(outputs, site.p, p_steps, prices_of(site.sizes, slope, thrift))
    decoded = p_codes * p_steps[:, None]
    square, along = outputs.square(decoded), (decoded * site.near_p).sum(axis=-1)
    kept = square > 0
    q_best = site.q * np.where(kept, along / np.where(kept, square, 1.0), 0.0)[:, None]
    scales = nearest_scales(p_steps * _steps(q_best, square, inputs, slope))
    q_steps = scale_values(scales) / p_steps  # so that the product of the steps is a scale
    q_codes = yield Rounding(inputs, q_best, q_steps, prices_of(square, slope, thrift))
    coded = CodedSite.of(p_codes, q_codes, scales)
    decoded = coded.q * q_steps[:, None]
    gains = along * (decoded * site.near_q).sum(axis=-1) - 0.5 * square * inputs.square(decoded)
    return coded, gains  # 1/2 |W|^2 less 1/2 |W - decoded|^2


def _steps(vectors: Floats, sizes: Floats, metric: Metric, slope: float) -> Floats:
    """Steps of vectors whose errors count half of `sizes` times the metric, such that no code is too large."""
    counts = np.maximum(0.5 * sizes * metric.mean_importance, 1e-300)
    peaks = np.abs(vectors).max(axis=1)
    with np.errstate(over="ignore"):  # a vector that counts for nothing takes any step
        free = np.sqrt(6 * slope / math.log(2) / counts)
    steps = np.maximum(free, peaks / (0.8 * LARGEST_CODE))
    return np.where(peaks > 0, steps, 1.0)
