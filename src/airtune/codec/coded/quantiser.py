"""An adapter -> codes at one price of a bit: its directions, and tensors sent whole. Knows no bytes, no ranks kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from airtune.codec.coded.curvature import Curvature, canonical_vectors, plain_vectors, site_metrics
from airtune.codec.coded.directions import Directions, code_sites, usual_slope_of
from airtune.codec.coded.held import HeldAdapter
from airtune.codec.coded.rounding import Floats
from airtune.codec.coded.values import (
    LARGEST_SCALE,
    Coded,
    CodedTensor,
    nearest_scales,
    rows_of,
    scale_values,
    tables_of,
)
from airtune.codec.entropy import LARGEST_CODE
from airtune.codec.factors import Factors
from airtune.errors import PayloadError

LEAST_LEVELS = 4.0
"""Steps of a dense row's root mean square, at least: an error of a fourteenth of it."""
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
            self._sites[name] = Directions.of(columns, rows, outputs, inputs)
        self.numbers = sum(site.p.size + site.q.size for site in self._sites.values())
        """Of all factors, lam not counted."""
        self.dense_numbers = sum(np.size(value) for value in dense.values())
        """Of all tensors sent whole."""
        self.usual_slope = usual_slope_of(self._sites.values())
        """A price at which rounding takes about a fiftieth of what the update is held to gain."""

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
