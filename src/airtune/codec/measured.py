"""Of the payloads that fill a budget, the one of least measured loss.

Curvature says how the loss bends where nothing is rounded. At few bits errors are large, and two things are open that
only the loss itself decides: how far to trust the curvature, and how much louder all directions are to be. Knows
budgets, and how to ask for a loss; not what it is measured on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from airtune.codec.codec import decode
from airtune.codec.coded.curvature import Curvature
from airtune.codec.coded.draft import Draft
from airtune.codec.coded.fit import fit_budget
from airtune.codec.coded.quantiser import Quantised, Quantiser
from airtune.codec.coded.values import SCALE_STEPS
from airtune.codec.contents import Binding, Meta
from airtune.codec.factors import Factors
from airtune.codec.payload import Decoded, Payload

DAMPINGS = (0.1, 1.0)
"""Those tried, for neither is better everywhere: the first on a decoder, the second on a classifier (docs/log.md)."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A payload that fills a budget.

    Args:
        quantised: The directions in it, and no others.
        decoded: What a receiver has of it.
        loss: Measured.
    """

    payload: Payload
    quantised: Quantised
    decoded: Decoded
    loss: float


def damped(curvature: Mapping[str, Curvature], damping: float) -> dict[str, Curvature]:
    """The same curvature, trusted otherwise."""
    return {name: replace(bends, damping=damping) for name, bends in curvature.items()}


def quantisers_of(
    factors: Mapping[str, Factors], dense: Mapping[str, npt.NDArray], curvature: Mapping[str, Curvature]
) -> list[Quantiser]:
    """One for each of `DAMPINGS`; directions are re-mixed, so not for nested adapters. Errors as `Quantiser`."""
    return [Quantiser(factors, dense, damped(curvature, damping), canonical=True) for damping in DAMPINGS]


def left_along(sent: Mapping[str, Factors], found: Mapping[str, Factors]) -> float:
    """What is left of an update along itself, <W, W'> / <W, W> over all sites, every entry alike; 1 of nothing."""

    def inner(one: Factors, other: Factors) -> float:
        products = (one.p.T.astype(np.float64) @ other.p) * (one.q.astype(np.float64) @ other.q.T)
        return float(one.lam.astype(np.float64) @ products @ other.lam)

    size = sum(inner(site, site) for site in sent.values())
    return sum(inner(site, found[name]) for name, site in sent.items()) / size if size > 0 else 1.0


def fit_measured(
    sent: Mapping[str, Factors],
    quantisers: Sequence[Quantiser],
    binding: Binding,
    meta: Meta,
    budget_bits: int,
    loss: Callable[[Decoded], float],
    *,
    named: bool = False,
    overhead_bits: int = 0,
) -> Fit:
    """The best of all quantisers, each made louder for as long as that lowers the loss and undoes what bits took away.

    So a payload of many bits is the adapter, and none is louder than it by more than half a step (an eighth of an
    octave).

    Args:
        sent: The adapter.
        quantisers: Of it (`quantisers_of`).
        loss: Of what a receiver has, in nat; one that is not finite counts as the worst.
        named, overhead_bits: As `fit_budget`.

    Raises:
        PayloadError: the budget does not hold header, dense tensors and what goes beside the payload.
    """
    best: Fit | None = None
    for quantiser in quantisers:
        slope = fit_budget(quantiser, binding, meta, budget_bits, named=named, overhead_bits=overhead_bits)[1]
        rounded, last = quantiser.at(slope), math.inf
        steps, most = 0, 0
        while steps <= most:
            draft = Draft(rounded.louder(steps), binding, meta, named=named)
            payload = draft.ladder(budget_bits - overhead_bits, slope)
            decoded = decode(payload.data, binding, held=draft.held)
            found = loss(decoded)
            found = found if math.isfinite(found) else math.inf
            if best is None or found < best.loss:
                best = Fit(payload, rounded.louder(steps).first(decoded.ranks), decoded, found)
            if found >= last:
                break
            if not steps and (left := left_along(sent, decoded.factors)) > 0:
                most = round(-SCALE_STEPS * math.log2(left))
            steps, last = steps + 1, found
    if best is None:
        raise ValueError("no quantiser was given")
    return best
