"""Format 2 on LoRA trained at each rank, fitted to budgets as `pack` fits them; on request trained on in its rounding.

`pack` measures what payloads lose on dev; here some calibration items serve, for there are many budgets.

Payloads are whole, but for the static part, which a receiver derives from its own base model and knows by its hash.
Knows curvature and the codec; not what is best of what it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from airtune.adapters import Adapter
from airtune.adapters.curvature import measure_curvature
from airtune.adapters.derived import Bases, lift_cores
from airtune.adapters.receiver import about
from airtune.adapters.rounded import tune
from airtune.codec import (
    Binding,
    Curvature,
    Decoded,
    Draft,
    Factors,
    Fit,
    Quantiser,
    decode,
    fit_measured,
    quantisers_of,
)
from airtune.codec.contents import Meta
from airtune.errors import PayloadError
from airtune.methods.airllm.baselines.training import TrainedAdapter, head_kept
from airtune.methods.airllm.bits.candidate import Candidate
from airtune.models import BaseModel, FitPlan, Items

LEAST_BITS, MOST_BITS = 0.25, 6
"""Bits a number, the head's too, between which budgets are filled: below, smaller ranks do better; above, nothing is
bought, so larger budgets are filled so far."""

MEASURED_ITEMS, MEASURED_WINDOWS = 128, 32
"""Calibration items, or windows of running text, on which payloads of one budget are told apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A payload that fills a budget, and what a receiver scores with it.

    Args:
        bases: By path, where cores are sent.
    """

    fit: Fit
    candidate: Candidate
    bases: Mapping[str, Bases] = field(default_factory=dict)


class Ours:
    """Payloads of LoRA trained at several ranks.

    Args:
        trained: By rank.
        calibration: What curvature is measured on.
    """

    def __init__(
        self,
        trained: Mapping[int, TrainedAdapter],
        base: BaseModel,
        calibration: Items,
        binding: Binding,
        meta: Meta,
    ) -> None:
        self._base, self._binding, self._meta = base, binding, meta
        self._some = some_of(calibration)
        self.curvature = {rank: curvature_at(one, base, calibration) for rank, one in trained.items()}
        self._trained = trained

    def sent(self, budgets: Sequence[int]) -> Iterator[Sent]:
        """Within every budget, in bits, the directions worth their bits; nothing where it holds none."""
        for rank, one in self._trained.items():
            quantisers = quantisers_of(one.factors, one.dense, self.curvature[rank])
            for budget, fit in fitted(one.factors, quantisers, self._binding, self._meta, budgets, self._loss):
                found = fit.decoded
                name = f"rank {rank} within {budget}"
                yield Sent(fit, Candidate(name, fit.payload.bits, found.factors, found.dense))

    def _loss(self, found: Decoded) -> float:
        return Candidate("", 0, found.factors, found.dense).score(self._base, self._some).loss


def some_of(calibration: Items) -> Items:
    """Those on which payloads of one budget are told apart."""
    return calibration.evenly(MEASURED_WINDOWS if calibration.classes is None else MEASURED_ITEMS)


def trained_on(
    base: BaseModel, sent: Sent, train: Items, plan: FitPlan, rng: np.random.Generator, *, share: float
) -> Candidate:
    """A payload's directions and head trained on through the rounding, at no more bits than about they took.

    Args:
        plan: Of the training before.
        rng: Draws the batches.
        share: Steps, over those of the training before.
    """
    plan = replace(plan, steps=max(1, round(share * plan.steps)))
    (binding, meta), fit = about(base), sent.fit
    with head_kept(base):
        coded = tune(base, fit.quantised.coded, train, plan, rng=rng, bases=sent.bases)
    draft = Draft(replace(fit.quantised, coded=coded), binding, meta, named=True)
    payload = draft.ladder(2**62)
    found = decode(payload.data, binding, held=draft.held)
    name = f"{sent.candidate.name}, trained on by {share:g}"
    return Candidate(name, payload.bits, lift_cores(found.factors, sent.bases), found.dense)


def fitted(
    sent: Mapping[str, Factors],
    quantisers: Sequence[Quantiser],
    binding: Binding,
    meta: Meta,
    budgets: Sequence[int],
    loss: Callable[[Decoded], float],
) -> Iterator[tuple[int, Fit]]:
    """Short payloads that fill budgets, where one holds a direction and has a use for its bits."""
    numbers = quantisers[0].numbers + quantisers[0].dense_numbers
    for budget in sorted({min(budget, MOST_BITS * numbers) for budget in budgets}):
        if budget < LEAST_BITS * numbers:
            continue
        try:
            fit = fit_measured(sent, quantisers, binding, meta, budget, loss, named=True)
        except PayloadError:
            continue  # header and head alone are larger
        if any(fit.decoded.ranks):
            yield budget, fit


def curvature_at(adapter: TrainedAdapter, base: BaseModel, calibration: Items) -> dict[str, Curvature]:
    """How the loss bends where this adapter is."""
    with head_kept(base):
        attached = Adapter(base, max(adapter.ranks.ranks), generator=torch.Generator())
        try:
            attached.load(adapter.factors, adapter.dense)
            return measure_curvature(base, calibration)
        finally:
            attached.detach()
