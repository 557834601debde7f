"""Format 2 on LoRA trained at each rank, at many prices of a bit; on request trained on through its rounding.

Payloads are whole, but for the static part, which a receiver derives from its own base model and knows by its hash.
Knows curvature and the codec; not losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from airtune.adapters import Adapter
from airtune.adapters.curvature import measure_curvature
from airtune.adapters.rounded import tune
from airtune.codec import Binding, Curvature, Draft, Quantised, Quantiser, decode
from airtune.codec.contents import Meta
from airtune.methods.airllm.baselines.training import TrainedAdapter, head_kept
from airtune.methods.airllm.bits.candidate import Candidate
from airtune.models import BaseModel, FitPlan, Items

OCTAVES = tuple(half / 2 for half in range(-8, 17))
"""Prices of a bit over the usual one, as powers of 2."""
TUNED_SHARE = 0.2
"""Steps of training on, over those of the training before."""


@dataclass(frozen=True, slots=True)
class Choice:
    """LoRA of a rank at a price of a bit, so many octaves above the usual one."""

    rank: int
    octave: float


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

    def sent(self) -> Iterator[tuple[Choice, Candidate]]:
        """At every price the directions worth their bits; nothing where none is."""
        for rank in self._quantisers:
            for octave in OCTAVES:
                choice = Choice(rank, octave)
                worth = self._worth(choice)
                if any(site.rank for site in worth.coded.sites.values()):
                    yield choice, self._candidate(choice, worth)

    def tuned(self, choice: Choice, train: Items, plan: FitPlan, rng: np.random.Generator) -> Candidate:
        """The same, trained on through the rounding, where a bit has its price too.

        Args:
            plan: Of the training before.
            rng: Draws the batches.
        """
        worth = self._worth(choice)
        plan = replace(plan, steps=max(1, round(TUNED_SHARE * plan.steps)))
        with head_kept(self._base):
            coded = tune(self._base, worth.coded, train, plan, price=self._slope(choice), rng=rng)
        return self._candidate(choice, replace(worth, coded=coded))

    def _slope(self, choice: Choice) -> float:
        return self._quantisers[choice.rank].usual_slope * 2.0**choice.octave

    def _worth(self, choice: Choice) -> Quantised:
        """The directions that gain what their bits cost."""
        slope = self._slope(choice)
        found = self._quantisers[choice.rank].at(slope)
        ranks = np.zeros(len(found.coded.sites), int)
        for site, _ in Draft(found, self._binding, self._meta, named=True).worth(slope):
            ranks[site] += 1
        return found.first(ranks.tolist())

    def _candidate(self, choice: Choice, quantised: Quantised) -> Candidate:
        draft = Draft(quantised, self._binding, self._meta, named=True)
        payload = draft.ladder(2**62)
        found = decode(payload.data, self._binding, held=draft.held)
        return Candidate(f"rank {choice.rank}, 2^{choice.octave:g}", payload.bits, found.factors, found.dense)


def curvature_at(adapter: TrainedAdapter, base: BaseModel, calibration: Items) -> dict[str, Curvature]:
    """How the loss bends where this adapter is."""
    with head_kept(base):
        attached = Adapter(base, max(adapter.ranks.ranks), generator=torch.Generator())
        try:
            attached.load(adapter.factors, adapter.dense)
            return measure_curvature(base, calibration)
        finally:
            attached.detach()
