"""Trained cores between bases that the receiver derives from its base model: in format 2, and on the uniform grid.

A core is coded as an update of its own shape, under the curvature seen from within the bases. Knows curvature and the
codec; not what is best of what it makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from airtune.adapters.core_adapter import bases_of
from airtune.adapters.derived import Bases, core_name, lift_cores, within
from airtune.adapters.receiver import about
from airtune.codec import DAMPINGS, Curvature, Decoded, Factors, damped, quantisers_of
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.baselines.truncation import spectral
from airtune.methods.airllm.bits.candidate import Candidate, of_same_factors
from airtune.methods.airllm.bits.grid import WIDTHS, at_widths
from airtune.methods.airllm.bits.ours import Sent, curvature_at, fitted, some_of
from airtune.models import BaseModel, Items


@dataclass(frozen=True, slots=True, eq=False)
class Cores:
    """A trained adapter as the cores it is made of.

    Args:
        name: Size and rank, in words.
        cores: By site path, singular directions first.
        bends: How the loss bends for a change of each.
    """

    name: str
    bases: Mapping[str, Bases]
    cores: Mapping[str, Factors]
    bends: Mapping[str, Curvature]
    dense: Mapping[str, np.ndarray]


def cores_of(trained: Mapping[tuple[int, int], TrainedAdapter], base: BaseModel, calibration: Items) -> Iterator[Cores]:
    """Of every size k and rank r, by (k, r)."""
    for (size, rank), adapter in trained.items():
        bases, bends = bases_of(base, size), curvature_at(adapter, base, calibration)
        yield Cores(
            f"size {size}, rank {rank}",
            bases,
            {path: spectral(bases[path].core(update)) for path, update in adapter.factors.items()},
            {path: within(bases[path], bend) for path, bend in bends.items()},
            adapter.dense,
        )


def in_format_2(found: Sequence[Cores], base: BaseModel, calibration: Items, budgets: Sequence[int]) -> Iterator[Sent]:
    """Within every budget, in bits, the directions worth their bits; nothing where it holds none."""
    some, (binding, meta) = some_of(calibration), about(base)
    for one in found:
        names = {path: core_name(path, bases) for path, bases in one.bases.items()}
        cores = {names[path]: core for path, core in one.cores.items()}
        quantisers = quantisers_of(cores, one.dense, {names[path]: bend for path, bend in one.bends.items()})

        def loss(sent: Decoded, bases: Mapping[str, Bases] = one.bases) -> float:
            return Candidate("", 0, lift_cores(sent.factors, bases), sent.dense).score(base, some).loss

        for budget, fit in fitted(cores, quantisers, binding, meta, budgets, loss):
            factors = lift_cores(fit.decoded.factors, one.bases)
            name = f"{one.name} within {budget}"
            yield Sent(fit, Candidate(name, fit.payload.bits, factors, fit.decoded.dense), one.bases)


def on_grid(found: Sequence[Cores]) -> Iterator[Candidate]:
    """At each width, plain and rounded under the measured curvature."""
    for one in found:
        plain = at_widths(one.name, one.cores, one.dense)
        bent = (
            at_widths(
                f"calibrated, damping {damping:g}, {one.name}",
                one.cores,
                one.dense,
                damped(one.bends, damping),
                widths=WIDTHS[:-1],
            )
            for damping in DAMPINGS
        )
        for same in of_same_factors(chain(plain, *bent)):
            lifted = {path: one.bases[path].lift(core) for path, core in same[0].factors.items()}
            yield from (replace(rounded, factors=lifted) for rounded in same)
