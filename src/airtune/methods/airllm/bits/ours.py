"""Format 2 on LoRA trained at each rank, fitted to budgets as `pack` fits them; on request trained on in its rounding.

`pack` measures losses on all calibration items, here some of them serve, for there are many budgets.

Payloads are whole, but for the static part, which a receiver derives from its own base model and knows by its hash.
Knows curvature and the codec; not losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from airtune.adapters import Adapter
from airtune.adapters.curvature import measure_curvature
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
from airtune.methods.airllm.baselines.training import TrainedAdapter, head_kept, score_adapter
from airtune.methods.airllm.bits.candidate import Candidate
from airtune.models import BaseModel, FitPlan, Items

MOST_BITS = 12
"""Bits a number above which a budget has nothing left to buy."""
TUNED_SHARE = 0.2
"""Steps of training on, over those of the training before."""


MEASURED_ITEMS = 128
"""Calibration items on which payloads of one budget are told apart."""


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
        self._some = calibration.evenly(MEASURED_ITEMS)
        self.curvature = {rank: curvature_at(one, base, calibration) for rank, one in trained.items()}
        self._trained = trained

    def sent(self, budgets: Sequence[int]) -> Iterator[tuple[Fit, Candidate]]:
        """Within every budget, in bits, the directions worth their bits; nothing where it holds none."""
        for rank, one in self._trained.items():
            quantisers = quantisers_of(one.factors, one.dense, self.curvature[rank])
            for budget, fit in fitted(one.factors, quantisers, self._binding, self._meta, budgets, self._loss):
                found = fit.decoded
                yield fit, Candidate(f"rank {rank} within {budget}", fit.payload.bits, found.factors, found.dense)

    def tuned(self, name: str, fit: Fit, train: Items, plan: FitPlan, rng: np.random.Generator) -> Candidate:
        """A payload's directions trained on through the rounding, at no more bits than about they took.

        Args:
            name: Of the candidate.
            plan: Of the training before.
            rng: Draws the batches.
        """
        plan = replace(plan, steps=max(1, round(TUNED_SHARE * plan.steps)))
        with head_kept(self._base):
            coded = tune(self._base, fit.quantised.coded, train, plan, price=fit.slope, rng=rng)
        draft = Draft(replace(fit.quantised, coded=coded), self._binding, self._meta, named=True)
        payload = draft.ladder(2**62)
        found = decode(payload.data, self._binding, held=draft.held)
        return Candidate(f"{name}, trained on", payload.bits, found.factors, found.dense)

    def _loss(self, found: Decoded) -> float:
        return score_adapter(self._base, found.factors, found.dense, self._some, keep_logits=0).loss


def fitted(
    sent: Mapping[str, Factors],
    quantisers: Sequence[Quantiser],
    binding: Binding,
    meta: Meta,
    budgets: Sequence[int],
    loss: Callable[[Decoded], float],
) -> Iterator[tuple[int, Fit]]:
    """Short payloads that fill budgets, where one holds a direction and has a use for its bits."""
    for budget in budgets:
        if budget > MOST_BITS * quantisers[0].numbers:
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
