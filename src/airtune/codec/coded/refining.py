"""A new adapter as changes of the one a receiver holds, at one price of a bit.

Each held direction's codes change on a grid that is finer or coarser than theirs by whole octaves, as the price asks
for; what that leaves is sent as new directions. P is changed to the least squares against the held Q, then Q against
the changed P, so factors that were re-mixed since still change little. Rounding heeds the price: changes that are not
worth their bits are not made, which unlike rounding numbers down shrinks no update. Knows codes; not bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from airtune.codec.coded.curvature import Curvature, canonical_vectors, plain_vectors, site_metrics
from airtune.codec.coded.directions import Directions, code_sites, prices_of, usual_slope_of
from airtune.codec.coded.held import LARGEST_SHIFT, HeldAdapter, HeldSite, HeldTensor, Whole
from airtune.codec.coded.quantiser import (
    LEAST_LEVELS,
    Quantised,
    check_values,
    code_tensor,
    levels_at,
)
from airtune.codec.coded.rounding import Floats, Metric
from airtune.codec.coded.values import (
    LARGEST_SCALE,
    SCALE_STEPS,
    Coded,
    CodedSite,
    CodedTensor,
    Scales,
    scale_values,
    tables_of,
)
from airtune.codec.entropy import LARGEST_CODE
from airtune.codec.factors import Factors
from airtune.errors import PayloadError

RIDGE = 1e-9
"""Of a held vector's square: where held vectors depend on each other, the least change is taken."""
COARSEST = -13
"""The least shift: with it the largest code is about 2^23, half of what is held exactly."""
LARGEST_GROWN = 2**16
"""Numbers are not held finer once they are as large as this."""
FARTHEST = 2.0
"""Octaves by which a dense row's steps may be coarser than the coarsest of a tensor that is sent whole."""

Shifts = npt.NDArray[np.int64]
Vectors = tuple[Floats, Floats]
"""Of P, shape (r, out), and of Q, shape (r, in)."""
Site = tuple[HeldSite, Floats, Floats, Metric, Metric]


class Refiner:
    """Changes from one held adapter to a new one at any price of a bit.

    Args:
        held: What the receiver holds.
        factors: The new updates by site; sites that are missing are to have none.
        dense: The new tensors, those that are held.
        curvature: By site, at the new adapter; sites that are missing count every entry alike.
        dense_levels: As `Quantiser`.

    Raises:
        PayloadError: sites or tensors that the held adapter does not list, or of other shapes; values as `Quantiser`.
    """

    def __init__(
        self,
        held: HeldAdapter,
        factors: Mapping[str, Factors],
        dense: Mapping[str, npt.NDArray],
        curvature: Mapping[str, Curvature] | None = None,
        *,
        dense_levels: float = 16.0,
    ) -> None:
        contents = held.contents
        shapes: dict[str, tuple[int, ...]] = {site.name: (site.fan_out, site.fan_in) for site in contents.sites}
        shapes |= {tensor.name: tensor.shape for tensor in contents.dense}
        given = {name: site.shape for name, site in factors.items()}
        given |= {name: np.shape(value) for name, value in dense.items()}
        for name in sorted({*given, *(tensor.name for tensor in contents.dense)}):
            if given.get(name) != shapes.get(name):
                line = f"{name} has shape {given.get(name)}, the held adapter's has {shapes.get(name)}"
                raise PayloadError(f"{line}; send this adapter whole")
        self._held, self._dense_levels = held, dense_levels
        self._dense = {tensor.name: dense[tensor.name] for tensor in contents.dense}
        for name, value in self._dense.items():
            check_values(name, value)
        self._sites: dict[str, Site] = {}
        metrics = site_metrics({site.name: (site.fan_out, site.fan_in) for site in contents.sites}, curvature or {})
        for site in contents.sites:
            new = factors.get(site.name, Factors.nothing(site.fan_out, site.fan_in))
            for part in (new.p, new.lam, new.q):
                check_values(site.name, part)
            outputs, inputs = metrics[site.name]
            self._sites[site.name] = held.sites[site.name], *plain_vectors(new, outputs, inputs), outputs, inputs
        self.usual_slope = usual_slope_of(Directions.of(*parts[1:]) for parts in self._sites.values())
        """As `Quantiser.usual_slope`, for the new adapter as a whole."""

    def at(self, slope: float) -> Quantised:
        """Changes at a price of a bit; as `Quantiser.at`."""
        if not (math.isfinite(slope) and slope > 0):
            raise PayloadError(f"slope is {slope}; give the loss that a bit is worth, above 0")
        found = {name: _change_site(*parts, slope) for name, parts in self._sites.items()}
        levels = levels_at(slope, self.usual_slope, self._dense_levels)
        tensors = {
            name: _change_tensor(name, value, self._held.dense.get(name), levels) for name, value in self._dense.items()
        }
        coded = Coded({name: site for name, (site, _) in found.items()}, tensors)
        self._held.changed(coded)  # refuses what no receiver would take
        return Quantised(coded, {name: gains for name, (_, gains) in found.items()}, since=self._held)


def _change_site(
    held: HeldSite, columns: Floats, rows: Floats, outputs: Metric, inputs: Metric, slope: float
) -> tuple[CodedSite, Floats]:
    """Changes of every held direction, then new directions; and what each gains after those before it.

    Args:
        columns, rows: The new update's, shapes (r, out) and (r, in).
    """
    scales = scale_values(held.scales).astype(np.float64)[:, None]
    p, q = held.p.T.astype(np.float64), held.q * scales
    of_p, of_q = inputs.square(q), outputs.square(p)  # what errors of P, and of Q, count
    p_change = _least_change(inputs, q, rows, columns, p)
    counts = 0.5 * scales[:, 0] * np.sqrt(of_p * outputs.mean_importance * of_q * inputs.mean_importance)
    shifts = _allowed(_octaves(counts, slope), np.hstack([held.p.T, held.q]), p_change, held.scales, 2)
    steps = 2.0 ** -shifts.astype(np.float64)
    p_codes = outputs.round(p_change, steps, prices_of(of_p, slope, 1.0))
    p_new = p + p_codes * steps[:, None]
    q_change = _least_change(outputs, p_new, columns, rows, q) / scales
    q_codes = inputs.round(q_change, steps, prices_of(outputs.square(p_new) * scales[:, 0] ** 2, slope, 1.0))
    q_new = q + q_codes * steps[:, None] * scales
    shifts[~(p_codes.any(axis=1) | q_codes.any(axis=1))] = 0
    gains = _gains((columns, rows), (p, q), (p_new, q_new), outputs, inputs)
    left = Factors(
        np.vstack([columns, p_new]).T, np.repeat([1.0, -1.0], [len(columns), len(p)]), np.vstack([rows, q_new])
    )
    rest = Directions.of(*canonical_vectors(left, outputs, inputs), outputs, inputs)
    more, more_gains = code_sites({"": rest}, slope, 0.0)[""]
    new = slice(min(int(np.count_nonzero(more.p_tables)), min(left.shape) - held.rank))
    changes = CodedSite(
        np.hstack([p_codes.T, more.p[:, new]]),
        np.vstack([q_codes, more.q[new]]),
        np.concatenate([shifts, more.scales[new]]).astype(np.int16),
        np.concatenate([tables_of(p_codes), more.p_tables[new]]),
        np.concatenate([tables_of(q_codes), more.q_tables[new]]),
    )
    return changes, np.concatenate([gains, more_gains[new]])


def _least_change(metric: Metric, known: Floats, theirs: Floats, wanted: Floats, now: Floats) -> Floats:
    """The least change of `now` that brings now^T known nearest to wanted^T theirs, known and theirs under the metric.

    Args:
        known, theirs: Vectors of one side, shapes (h, d) and (r, d).
        now, wanted: Vectors of the other side, shapes (h, e) and (r, e).
    """
    size = np.sqrt(metric.square(known))[:, None]
    there = size > 0
    unit = np.where(there, metric.whiten(known) / np.where(there, size, 1.0), 0.0)
    gram = unit @ unit.T
    towards = unit @ metric.whiten(theirs).T @ wanted - gram @ (now * size)
    found = np.linalg.solve(gram + RIDGE * np.eye(len(gram)), towards)
    return np.where(there, found / np.where(there, size, 1.0), 0.0)


def _octaves(counts: Floats, slope: float) -> Floats:
    """By how many octaves the steps at a price are finer than 1, for errors that count so much (as in `directions`)."""
    return 0.5 * np.log2(np.maximum(counts, 1e-300) * math.log(2) / (6 * slope))


def _allowed(octaves: Floats, held: Whole, change: Floats, scales: Scales, vectors: int) -> Shifts:
    """The nearest shifts at which all codes, numbers and scales stay within what is held and sent.

    Args:
        held, change: Rows of whole numbers, and what is to be added to them.
        vectors: How many share a scale.
    """
    peaks = np.maximum(np.abs(change).max(axis=1, initial=0), 1e-300)
    largest = np.abs(held).max(axis=1, initial=0) + peaks
    most = np.minimum(np.log2(0.8 * LARGEST_CODE / peaks), np.maximum(np.log2(LARGEST_GROWN / largest), 0))
    most = np.minimum(most, (scales.astype(np.int64) + LARGEST_SCALE) // (SCALE_STEPS * vectors))
    shifts: Shifts = np.clip(np.minimum(np.round(octaves), np.floor(most)), COARSEST, LARGEST_SHIFT).astype(int)
    return shifts


def _gains(wanted: Vectors, before: Vectors, after: Vectors, outputs: Metric, inputs: Metric) -> Floats:
    """By how much half of the squared error falls with each direction's change, in their order."""
    columns, rows = (np.vstack(parts) for parts in zip(wanted, before, after, strict=True))
    whitened = outputs.whiten(columns), inputs.whiten(rows)
    products = (whitened[0] @ whitened[0].T) * (whitened[1] @ whitened[1].T)
    count = len(before[0])
    made = np.arange(count + 1)[:, None] > np.arange(count)
    signs = np.hstack([np.ones((count + 1, len(wanted[0]))), made - 1.0, -1.0 * made])
    errors = ((signs @ products) * signs).sum(axis=1) / 2
    return errors[:-1] - errors[1:]


def _change_tensor(name: str, value: npt.NDArray, held: HeldTensor | None, levels: float) -> CodedTensor:
    """Changes of a dense tensor's rows, to the nearest; or the tensor, where none is held.

    Raises:
        PayloadError: a row is so much larger or smaller than the held one that at no price it can change to it.
    """
    new = code_tensor(name, value, levels)
    if held is None:
        return new
    exact = np.asarray(value, np.float64).reshape(new.codes.shape) / scale_values(held.scales)[:, None] - held.codes
    octaves = np.where(new.codes.any(axis=1), (held.scales - new.scales) / SCALE_STEPS, 0.0)
    coarsest = code_tensor(name, value, LEAST_LEVELS)
    least = np.where(new.codes.any(axis=1), (held.scales - coarsest.scales) / SCALE_STEPS - FARTHEST, COARSEST)
    shifts = _allowed(octaves, held.codes, exact, held.scales, 1)
    if (shifts < least).any() or (np.abs(exact).max(axis=1) * 2.0**shifts > LARGEST_CODE).any():
        raise PayloadError(f"{name} has become much larger or smaller than the held one; send this adapter whole")
    codes = np.round(exact * 2.0 ** shifts[:, None]).astype(np.int16)
    shifts[~codes.any(axis=1)] = 0
    return CodedTensor(codes, shifts.astype(np.int16), tables_of(codes), new.shape)
