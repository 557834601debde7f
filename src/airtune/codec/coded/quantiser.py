"""Factors -> codes at one price of a bit.

The loss is held to grow by half of tr(G E A E^T) for an error E of an update (Kronecker-factored curvature, Martens
and Grosse 2015): A and G are second moments of a projection's inputs and of the loss's gradients at its outputs. At a
price of `slope` (loss per bit) an entry whose squared error counts w has a step of square ``6 slope / (w ln 2)``: a
finer one would cost more bits than it saves loss (reverse water-filling). Knows no bytes and no ranks to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from airtune.codec.coded.rounding import Floats, Metric
from airtune.codec.coded.values import Coded, CodedSite, CodedTensor, nearest_scales, rows_of, scale_values
from airtune.codec.entropy import LARGEST_CODE, TableIndices, best_table
from airtune.codec.factors import Factors
from airtune.errors import PayloadError

_LARGEST_DENSE = 2.0**127
"""So that a rounded value is still a float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """How the loss bends at one site; None counts every entry alike.

    Args:
        inputs: A, second moments of the inputs, shape (in, in), or its diagonal (in,).
        outputs: G, second moments of the gradients at the outputs, shape (out, out), or its diagonal (out,).
    """

    inputs: npt.NDArray[np.floating] | None = None
    outputs: npt.NDArray[np.floating] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """An adapter in codes, and what each direction is held to lower the loss by, by site, shapes (r,)."""

    coded: Coded
    gains: Mapping[str, Floats]


def code_adapter(
    factors: Mapping[str, Factors],
    dense: Mapping[str, npt.NDArray],
    slope: float,
    curvature: Mapping[str, Curvature] | None = None,
    *,
    canonical: bool,
    thrift: float = 0.0,
    dense_levels: float = 16.0,
) -> Quantised:
    """Round a whole adapter at one price of a bit.

    Args:
        factors: Updates by site.
        dense: Tensors sent whole, by name.
        slope: Loss that a bit is worth; with no curvature, half of a squared change of an update.
        curvature: By site; sites that are missing count every entry alike.
        canonical: Re-mix each site's directions by singular values under the curvature, the largest first. Not for
            nested adapters, whose prefixes were trained.
        thrift: How much of the price rounding itself heeds: 0 rounds to the nearest, 1 is greedy for bits.
        dense_levels: Steps of a dense row's root mean square.

    Raises:
        PayloadError: a value is not finite; the slope is not above 0.
    """
    if not (math.isfinite(slope) and slope > 0):
        raise PayloadError(f"slope is {slope}; give the loss that a bit is worth, above 0")
    curvature = curvature or {}
    sites, gains = {}, {}
    for name, site in factors.items():
        if not all(np.isfinite(part).all() for part in (site.p, site.lam, site.q)):
            raise PayloadError(f"{name} holds a value that is not finite; check its training before sending it")
        bends = curvature.get(name, Curvature())
        outputs, inputs = Metric(bends.outputs, site.shape[0]), Metric(bends.inputs, site.shape[1])
        columns, rows = (canonical_vectors if canonical else plain_vectors)(site, outputs, inputs)
        sites[name], gains[name] = code_site(columns, rows, outputs, inputs, slope, thrift)
    tensors = {name: code_tensor(name, value, dense_levels) for name, value in dense.items()}
    return Quantised(Coded(sites, tensors), gains)


def plain_vectors(site: Factors, outputs: Metric, inputs: Metric) -> tuple[Floats, Floats]:
    """P's columns with lam in them, and Q's rows, shapes (r, out) and (r, in)."""
    p, lam, q = (np.asarray(part, np.float64) for part in (site.p, site.lam, site.q))
    return (p * lam).T, q


def canonical_vectors(site: Factors, outputs: Metric, inputs: Metric) -> tuple[Floats, Floats]:
    """The same update in directions that do not touch under the metrics, the largest first."""
    columns, rows = plain_vectors(site, outputs, inputs)
    of_p, right_p = np.linalg.qr(outputs.whiten(columns).T)
    of_q, right_q = np.linalg.qr(inputs.whiten(rows).T)
    left, singular, right = np.linalg.svd(right_p @ right_q.T)
    return outputs.unwhiten((of_p @ left * singular).T), inputs.unwhiten((of_q @ right.T).T)


def code_site(
    columns: Floats, rows: Floats, outputs: Metric, inputs: Metric, slope: float, thrift: float
) -> tuple[CodedSite, Floats]:
    """Round the directions of one site, P first, then Q against the rounded P; and the gains of each."""
    size = np.sqrt(outputs.square(columns) * inputs.square(rows))  # of each update under the metric
    there = size > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        to_balance = np.where(there, np.sqrt(size / np.maximum(outputs.square(columns), 1e-300)), 0.0)
        p = columns * to_balance[:, None]
        q = np.where(there[:, None], rows / np.where(there, to_balance, 1.0)[:, None], 0.0)
    p_steps = _steps(p, size, outputs, slope)
    p_codes = outputs.round(p, p_steps, _prices(size, slope, thrift))
    decoded = p_codes * p_steps[:, None]
    square = outputs.square(decoded)
    kept = square > 0
    q_best = q * np.where(kept, outputs.inner(decoded, p) / np.where(kept, square, 1.0), 0.0)[:, None]
    scales = nearest_scales(p_steps * _steps(q_best, square, inputs, slope))
    q_steps = scale_values(scales) / p_steps  # so that the product of the steps is a scale
    q_codes = inputs.round(q_best, q_steps, _prices(square, slope, thrift))
    q_decoded = q_codes * q_steps[:, None]
    along = outputs.inner(decoded, p) * inputs.inner(q_decoded, q)
    gains = along - 0.5 * square * inputs.square(q_decoded)  # 1/2 |W|^2 less 1/2 |W - decoded|^2
    return CodedSite(p_codes.T.copy(), q_codes, scales, _tables(p_codes), _tables(q_codes)), gains


def code_tensor(name: str, value: npt.NDArray, levels: float) -> CodedTensor:
    """Round a dense tensor row by row to the nearest, with steps of its root mean square over `levels`.

    Raises:
        PayloadError: a value is not finite, or beyond 2^127.
    """
    shape = np.shape(value)
    rows = np.asarray(value, np.float64).reshape(rows_of(shape))
    if not np.isfinite(rows).all():
        raise PayloadError(f"{name} holds a value that is not finite; check its training before sending it")
    spread, peak = np.sqrt((rows**2).mean(axis=1)), np.abs(rows).max(axis=1)
    if peak.max(initial=0.0) > _LARGEST_DENSE:
        raise PayloadError(f"{name} holds {peak.max():.3g}, the format holds {_LARGEST_DENSE:.3g}; scale it down")
    scales = nearest_scales(np.where(peak > 0, np.maximum(spread / levels, peak / (0.9 * LARGEST_CODE)), 1.0))
    codes = np.round(rows / scale_values(scales)[:, None]).astype(np.int16)
    return CodedTensor(codes, scales, _tables(codes), shape)


def _steps(vectors: Floats, sizes: Floats, metric: Metric, slope: float) -> Floats:
    """Steps of vectors whose errors count half of `sizes` times the metric, such that no code is too large."""
    counts = np.maximum(0.5 * sizes * metric.mean_importance, 1e-300)
    peaks = np.abs(vectors).max(axis=1)
    steps = np.maximum(np.sqrt(6 * slope / math.log(2) / counts), peaks / (0.8 * LARGEST_CODE))
    return np.where(peaks > 0, steps, 1.0)


def _prices(sizes: Floats, slope: float, thrift: float) -> Floats | None:
    """What a bit costs in units of the metric."""
    return thrift * slope / np.maximum(0.5 * sizes, 1e-300) if thrift else None


def _tables(rows: npt.NDArray[np.int16]) -> TableIndices:
    return np.array([best_table(row)[0] for row in rows], np.uint8)
