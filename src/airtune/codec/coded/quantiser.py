"""Factors -> codes at one price of a bit.

At a price of `slope` (loss per bit) an entry whose squared error counts w has a step of square ``6 slope / (w ln 2)``:
a finer one would cost more bits than it saves loss (reverse water-filling). Knows no bytes and no ranks to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from airtune.codec.coded.curvature import Curvature, canonical_vectors, plain_vectors, site_metrics, usual_slope_of
from airtune.codec.coded.held import HeldAdapter
from airtune.codec.coded.rounding import Floats, Metric, Rounding, round_together
from airtune.codec.coded.values import (
    LARGEST_SCALE,
    Coded,
    CodedSite,
    CodedTensor,
    nearest_scales,
    rows_of,
    scale_values,
    tables_of,
)
from airtune.codec.entropy import LARGEST_CODE, Codes
from airtune.codec.factors import Factors
from airtune.errors import PayloadError

LEAST_LEVELS = 4.0
"""Steps of a dense row's root mean square, at least: an error of a fourteenth of it."""
Coding = Generator[Rounding, Codes, tuple[CodedSite, Floats]]
"""A site under way: what it asks for, what it is given, and its codes and gains in the end."""
LARGEST_VALUE = 2.0**126
"""Factors, entries of a direction's update and dense numbers are at most this: rounded up they stay within float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """An adapter in codes.

    Args:
        coded: Its directions and tensors; or with `since`, changes of those held, then new directions.
        gains: What each direction is held to lower the loss by, by site, shapes (r,).
        since: The held adapter that they change.
    """

    coded: Coded
    gains: Mapping[str, Floats]
    since: HeldAdapter | None = None

    def first(self, ranks: Sequence[int]) -> Quantised:
        """The first ranks[i] directions of site i."""
        kept = dict(zip(self.coded.sites, ranks, strict=True))
        sites = {name: site.first(kept[name]) for name, site in self.coded.sites.items()}
        gains = {name: gain[: kept[name]] for name, gain in self.gains.items()}
        return Quantised(Coded(sites, self.coded.dense), gains, self.since)

    def louder(self, steps: int) -> Quantised:
        """Every direction `steps` quarters of an octave larger, at no cost in bits.

        Rounding and leaving out shrink an update at all sites alike, which adds up over the sites as noise does not.
        Whether the loss is then lower has to be measured. Not of changes.
        """
        sites = {
            name: replace(site, scales=np.minimum(site.scales + steps, LARGEST_SCALE).astype(np.int16))
            for name, site in self.coded.sites.items()
        }
        return replace(self, coded=replace(self.coded, sites=sites))


class Quantiser:
    """Rounds one adapter at any price of a bit.

    Args:
        factors: Updates by site.
        dense: Tensors sent whole, by name.
        curvature: By site; sites that are missing count every entry alike.
        canonical: Re-mix each site's directions by singular values under the curvature, the largest first. Not for
            nested adapters, whose prefixes were trained.
        dense_levels: Steps of a dense row's root mean square at the usual price, which they follow as all others do.

    Raises:
        PayloadError: a value is not finite or beyond `LARGEST_VALUE`; a curvature does not fit its site.
    """

    def __init__(
        self,
        factors: Mapping[str, Factors],
        dense: Mapping[str, npt.NDArray],
        curvature: Mapping[str, Curvature] | None = None,
        *,
        canonical: bool,
        dense_levels: float = 16.0,
    ) -> None:
        self._dense, self._dense_levels = dict(dense), dense_levels
        for name, value in dense.items():
            check_values(name, value)
        self._sites: dict[str, Directions] = {}
        metrics = site_metrics({name: site.shape for name, site in factors.items()}, curvature or {})
        for name, site in factors.items():
            for part in (site.p, site.lam, site.q):
                check_values(name, part)
            outputs, inputs = metrics[name]
            columns, rows = (canonical_vectors if canonical else plain_vectors)(site, outputs, inputs)
            check_values(name, np.abs(columns).max(axis=1, initial=0) * np.abs(rows).max(axis=1, initial=0))
            self._sites[name] = columns, rows, outputs, inputs

    @property
    def numbers(self) -> int:
        """Numbers of all factors, lam not counted."""
        return sum(columns.size + rows.size for columns, rows, _, _ in self._sites.values())

    @property
    def usual_slope(self) -> float:
        """A price at which rounding takes about a fiftieth of what the update is held to gain."""
        return usual_slope_of(self._sites.values())

    def at(self, slope: float, *, thrift: float = 0.0) -> Quantised:
        """Codes at a price of a bit.

        Args:
            slope: Loss that a bit is worth; with no curvature, half of a squared change of an update.
            thrift: How much of the price rounding itself heeds: 0 rounds to the nearest, 1 is greedy for bits.

        Raises:
            PayloadError: the slope is not above 0.
        """
        if not (math.isfinite(slope) and slope > 0):
            raise PayloadError(f"slope is {slope}; give the loss that a bit is worth, above 0")
        coded = code_sites(self._sites, slope, thrift)
        sites = {name: site for name, (site, _) in coded.items()}
        levels = levels_at(slope, self.usual_slope, self._dense_levels)
        dense = {name: code_tensor(name, value, levels) for name, value in self._dense.items()}
        return Quantised(Coded(sites, dense), {name: gains for name, (_, gains) in coded.items()})


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
    """Round a whole adapter once; arguments and errors as `Quantiser` and `Quantiser.at`."""
    quantiser = Quantiser(factors, dense, curvature, canonical=canonical, dense_levels=dense_levels)
    return quantiser.at(slope, thrift=thrift)


def levels_at(slope: float, usual: float, levels: float) -> float:
    """Steps of a dense row's root mean square at a price of a bit: `LEAST_LEVELS` or more."""
    return max(levels * math.sqrt(usual / slope), LEAST_LEVELS)


Directions = tuple[Floats, Floats, Metric, Metric]
"""Of one site: columns of P (r, out), rows of Q (r, in), and how errors of either count."""


def code_sites(sites: Mapping[str, Directions], slope: float, thrift: float) -> dict[str, tuple[CodedSite, Floats]]:
    """Round the directions of sites, P first, then Q against the rounded P; and the gains of each direction."""
    under_way = {name: _coding(*directions, slope, thrift) for name, directions in sites.items()}
    of_p = round_together([next(one) for one in under_way.values()])
    of_q = round_together([one.send(codes) for one, codes in zip(under_way.values(), of_p, strict=True)])
    return {name: _ended(one, codes) for (name, one), codes in zip(under_way.items(), of_q, strict=True)}


def _ended(coding: Coding, codes: Codes) -> tuple[CodedSite, Floats]:
    try:
        coding.send(codes)
    except StopIteration as end:
        found: tuple[CodedSite, Floats] = end.value
        return found
    raise AssertionError("a site is rounded twice, its P and its Q")


def _coding(columns: Floats, rows: Floats, outputs: Metric, inputs: Metric, slope: float, thrift: float) -> Coding:
    """Asks for P's codes, then for Q's."""
    size = np.sqrt(outputs.square(columns) * inputs.square(rows))  # of each update under the metric
    there = size > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        to_balance = np.where(there, np.sqrt(size / np.maximum(outputs.square(columns), 1e-300)), 0.0)
        p = columns * to_balance[:, None]
        q = np.where(there[:, None], rows / np.where(there, to_balance, 1.0)[:, None], 0.0)
    p_steps = _steps(p, size, outputs, slope)
    p_codes = yield Rounding(outputs, p, p_steps, prices_of(size, slope, thrift))
    decoded = p_codes * p_steps[:, None]
    square = outputs.square(decoded)
    kept = square > 0
    q_best = q * np.where(kept, outputs.inner(decoded, p) / np.where(kept, square, 1.0), 0.0)[:, None]
    scales = nearest_scales(p_steps * _steps(q_best, square, inputs, slope))
    q_steps = scale_values(scales) / p_steps  # so that the product of the steps is a scale
    q_codes = yield Rounding(inputs, q_best, q_steps, prices_of(square, slope, thrift))
    site = CodedSite.of(p_codes, q_codes, scales)
    q_decoded = site.q * q_steps[:, None]
    along = outputs.inner(decoded, p) * inputs.inner(q_decoded, q)
    gains = along - 0.5 * square * inputs.square(q_decoded)  # 1/2 |W|^2 less 1/2 |W - decoded|^2
    return site, gains


def code_tensor(name: str, value: npt.NDArray, levels: float) -> CodedTensor:
    """Round a dense tensor row by row to the nearest, with steps of its root mean square over `levels`.

    Raises:
        PayloadError: no numbers, or one that is not real, not finite or beyond `LARGEST_VALUE`.
    """
    check_values(name, value)
    shape = np.shape(value)
    if 0 in shape:
        raise PayloadError(f"{name} has shape {shape}, no numbers at all; leave it out")
    rows = np.asarray(value, np.float64).reshape(rows_of(shape))
    spread, peak = np.sqrt((rows**2).mean(axis=1)), np.abs(rows).max(axis=1)
    scales = nearest_scales(np.where(peak > 0, np.maximum(spread / levels, peak / (0.9 * LARGEST_CODE)), 1.0))
    codes = np.round(rows / scale_values(scales)[:, None]).astype(np.int16)
    return CodedTensor(codes, scales, tables_of(codes), shape)


def check_values(name: str, values: npt.NDArray) -> None:
    """Refuse what is not real, not finite or beyond `LARGEST_VALUE`."""
    if (kind := np.asarray(values).dtype).kind not in "fiu":
        raise PayloadError(f"{name} has numbers of type {kind}, real ones expected; convert them before sending them")
    peak = float(np.abs(np.asarray(values, np.float64)).max(initial=0))
    if not math.isfinite(peak):
        raise PayloadError(f"{name} holds a value that is not finite; check its training before sending it")
    if peak > LARGEST_VALUE:
        raise PayloadError(f"{name} reaches {peak:.3g}, the limit is {LARGEST_VALUE:.3g}; check its training")


def _steps(vectors: Floats, sizes: Floats, metric: Metric, slope: float) -> Floats:
    """Steps of vectors whose errors count half of `sizes` times the metric, such that no code is too large."""
    counts = np.maximum(0.5 * sizes * metric.mean_importance, 1e-300)
    peaks = np.abs(vectors).max(axis=1)
    with np.errstate(over="ignore"):  # a vector that counts for nothing takes any step
        free = np.sqrt(6 * slope / math.log(2) / counts)
    steps = np.maximum(free, peaks / (0.8 * LARGEST_CODE))
    return np.where(peaks > 0, steps, 1.0)


def prices_of(sizes: Floats, slope: float, thrift: float) -> Floats | None:
    """What a bit costs in units of the metric, for vectors whose errors count half of `sizes` times it."""
    return thrift * slope / np.maximum(0.5 * sizes, 1e-300) if thrift else None
