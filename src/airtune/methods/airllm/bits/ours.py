"""Format 2 on LoRA trained at each rank, fitted to budgets as `pack` fits them; on request trained on in its rounding.

Payloads are whole, but for the static part, which a receiver derives from its own base model and knows by its hash.
Knows curvature and the codec; not losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from airtune.adapters import Adapter
from airtune.adapters.curvature import measure_curvature
from airtune.adapters.rounded import tune
from airtune.codec import Binding, Curvature, Decoded, Draft, Quantised, Quantiser, decode, fit_budget
from airtune.codec.contents import Meta
from airtune.errors import PayloadError
from airtune.methods.airllm.baselines.training import TrainedAdapter, head_kept
from airtune.methods.airllm.bits.candidate import Candidate
from airtune.models import BaseModel, FitPlan, Items

MOST_BITS = 12
"""Bits a number above which a budget has nothing left to buy."""
TUNED_SHARE = 0.2
"""Steps of training on, over those of the training before."""


@dataclass(frozen=True, slots=True)
class Choice:
    """LoRA of a rank at the price of a bit at which it fits a budget."""

    rank: int
    budget_bits: int
    slope: float


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
        self.curvature = {rank: curvature_at(one, base, calibration) for rank, one in trained.items()}
        self._quantisers = {
            rank: Quantiser(one.factors, one.dense, self.curvature[rank], canonical=True)
            for rank, one in trained.items()
        }

    def sent(self, budgets: Sequence[int]) -> Iterator[tuple[Choice, Candidate]]:
        """Within every budget, in bits, the directions worth their bits; nothing where it holds none."""
        for rank, quantiser in self._quantisers.items():
            for fit in fitted(quantiser, self._binding, self._meta, budgets):
                choice = Choice(rank, fit.budget_bits, fit.slope)
                yield choice, _candidate(choice, fit.bits, fit.decoded)

    def tuned(self, choice: Choice, train: Items, plan: FitPlan, rng: np.random.Generator) -> Candidate:
        """The same, trained on through the rounding, where a bit has its price too.

        Args:
            plan: Of the training before.
            rng: Draws the batches.
        """
        plan = replace(plan, steps=max(1, round(TUNED_SHARE * plan.steps)))
        worth = self._worth(choice.rank, choice.slope)
        with head_kept(self._base):
            coded = tune(self._base, worth.coded, train, plan, price=choice.slope, rng=rng)
        draft = Draft(replace(worth, coded=coded), self._binding, self._meta, named=True)
        payload = draft.ladder(2**62)
        return _candidate(choice, payload.bits, decode(payload.data, self._binding, held=draft.held))

    def _worth(self, rank: int, slope: float) -> Quantised:
        """The directions that gain what their bits cost."""
        found = self._quantisers[rank].at(slope)
        ranks = np.zeros(len(found.coded.sites), int)
        for site, _ in Draft(found, self._binding, self._meta, named=True).worth(slope):
            ranks[site] += 1
        return found.first(ranks.tolist())


def _candidate(choice: Choice, bits: int, found: Decoded) -> Candidate:
    return Candidate(f"rank {choice.rank} within {choice.budget_bits}", bits, found.factors, found.dense)


@dataclass(frozen=True, slots=True)
class Fit:
    """What a receiver holds of a payload that fills a budget, its bits, and the price of a bit there."""

    budget_bits: int
    slope: float
    bits: int
    decoded: Decoded


def fitted(quantiser: Quantiser, binding: Binding, meta: Meta, budgets: Sequence[int]) -> Iterator[Fit]:
    """Short payloads that fill budgets, where one holds a direction and has a use for its bits."""
    held = Draft(quantiser.at(quantiser.usual_slope), binding, meta, named=True).held
    for budget in budgets:
        if budget > MOST_BITS * quantiser.numbers:
            continue
        try:
            payload, slope = fit_budget(quantiser, binding, meta, budget, named=True)
        except PayloadError:
            continue  # header and head alone are larger
        decoded = decode(payload.data, binding, held=held)
        if any(decoded.ranks):
            yield Fit(budget, slope, payload.bits, decoded)


def curvature_at(adapter: TrainedAdapter, base: BaseModel, calibration: Items) -> dict[str, Curvature]:
    """How the loss bends where this adapter is."""
    with head_kept(base):
        attached = Adapter(base, max(adapter.ranks.ranks), generator=torch.Generator())
        try:
            attached.load(adapter.factors, adapter.dense)
            return measure_curvature(base, calibration)
        finally:
            attached.detach()
