"""A try of ranks that trains: one optimiser step of the shared adapter on the next batch (Eqs. 2-3, Algorithm 1).

Knows the adapter and its training; not who chooses ranks, or what they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, final

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import Trial
from airtune.methods.airllm.paper.checkpoint import Kept, of_optimiser, of_tensors
from airtune.methods.airllm.trainee import Trainee
from airtune.models import FitPlan, Items, Score, Step, fit, new_optimiser, score
from airtune.records import generator


class Learner(Protocol):
    """A model under fine-tuning, one step per try; U of the reward is that step's loss, dropout on."""

    @property
    def kept(self) -> Mapping[str, Kept]:
        """What training changes."""
        ...

    def begin(self, step: int) -> None:
        """Go on with this step's batch."""
        ...

    def try_ranks(self, ranks: RankVector) -> Trial:
        """Train one step. Raises `ModelError` where the loss is not finite, with the step and its rows."""
        ...

    def score(self, items: Items) -> Score:
        """Score the model under the ranks in force."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether what is trained is already what would be sent."""
        ...


@final
class SteppedAdapter:
    """The prefixes of one adapter, trained by turns as they are chosen.

    Args:
        plan: Its seed draws the batches and dropout.
        orthogonality: Weight of Eq. 3 on the active prefixes; no part of the loss that a try tells.
        on_step: Hears every step.
    """

    def __init__(
        self, trainee: Trainee, plan: FitPlan, *, orthogonality: float, on_step: Callable[[Step], None]
    ) -> None:
        self._trainee, self._plan, self._orthogonality, self._on_step = trainee, plan, orthogonality, on_step
        self._parameters = trainee.adapter.parameters()
        self._optimiser = new_optimiser(list(self._parameters.values()), plan)

    may_end = True

    @property
    def kept(self) -> Mapping[str, Kept]:
        return {"adapter": of_tensors(self._parameters), "optimiser": of_optimiser(self._optimiser)}

    def begin(self, step: int) -> None:
        adapter, parts = self._trainee.adapter, self._trainee.parts
        penalty = (lambda: self._orthogonality * adapter.orthogonality()) if self._orthogonality else None
        self._steps: Iterator[Step] = fit(
            adapter.base.model,
            self._parameters,
            parts.train,
            self._plan,
            rng=generator(self._plan.seed, "batches"),
            penalty=penalty,
            optimiser=self._optimiser,
            start=step,
        )

    def try_ranks(self, ranks: RankVector) -> Trial:
        self._trainee.adapter.set_ranks(ranks)
        step = next(self._steps)
        self._on_step(step)
        return Trial(ranks, step.loss)

    def score(self, items: Items) -> Score:
        return score(self._trainee.adapter.base.model, items, keep_logits=0)

    def trained(self) -> Trainee:
        """End training: the trainee, with its factors as they are sent."""
        for parameter in self._parameters.values():
            parameter.requires_grad_(False)
        adapter = self._trainee.adapter
        self._trainee.hold(adapter.factors(), adapter.dense())
        return self._trainee
