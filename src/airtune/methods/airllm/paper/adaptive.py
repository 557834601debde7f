"""AdaLoRA as a learner of `paper` mode: every try is one step of peft's training; it keeps the ranks that it has.

So it meets the same batches, channel draws, evaluations and early stop as the others. Asked ranks are not followed:
AdaLoRA cuts from 1.5 r_max at every site down to as many directions as r_max everywhere has, by importance alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import final

import torch

from airtune.adapters import Adapter, RankVector
from airtune.methods.airllm.allocation import Trial
from airtune.methods.airllm.baselines.adalora import AdaLora, adalora_config
from airtune.methods.airllm.baselines.training import wrapped
from airtune.methods.airllm.baselines.truncation import spectral
from airtune.methods.airllm.paper.checkpoint import Kept, Tensors, of_optimiser, of_tensors
from airtune.methods.airllm.trainee import Trainee
from airtune.models import BaseModel, FitPlan, Items, Score, Step, fit, new_optimiser, score
from airtune.records import Measurements, generator
from airtune.workloads.parts import Parts

ORTHOGONALITY = 0.5
"""Weight of peft's penalty, peft's default."""
STRONGER = 8.0
"""peft starts lam at 0 and P and Q small, so at the others' scale AdaLoRA hardly moves; on the small decoder 8 times it
was best or next to best at every rank tried (docs/log.md)."""
MEMORIES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What peft's allocator remembers of every number's importance."""


@final
class SteppedAdaLora:
    """peft's AdaLoRA on a bare base model, for as long as the `with` block lasts.

    Args:
        total_rank: Directions that are left in the end.
        scale: Of every update as the other learners have it; alpha is `STRONGER` times that, times init_r.
        on_step: Hears every step.
    """

    def __init__(
        self,
        base: BaseModel,
        parts: Parts,
        plan: FitPlan,
        total_rank: int,
        *,
        scale: float,
        on_step: Callable[[Step], None],
    ) -> None:
        self._base, self._parts, self._plan, self._on_step = base, parts, plan, on_step
        self._total_rank, self._scale = total_rank, scale

    def __enter__(self) -> SteppedAdaLora:
        config = adalora_config(len(self._base.sites), self._plan.steps, self._total_rank, 1.0)
        config.lora_alpha = STRONGER * self._scale * config.init_r  # type: ignore[assignment]
        with ExitStack() as stack:
            model = stack.enter_context(wrapped(self._base, config, self._plan.seed))
            self._adapter = AdaLora(self._base, model, config, self._total_rank)
            self._head = {name: self._base.model.get_parameter(name) for name in self._base.head}
            self._parameters = {**self._adapter.parameters, **self._head}
            self._optimiser = new_optimiser(list(self._parameters.values()), self._plan)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def kept(self) -> Mapping[str, Kept]:
        return {
            "adapter": of_tensors(self._parameters),
            "optimiser": of_optimiser(self._optimiser),
            "allocator": Kept(self._remembered, self._remember),
        }

    @property
    def ranks(self) -> RankVector:
        """Directions that are left at every site."""
        return self._adapter.ranks

    @property
    def may_end(self) -> bool:
        """Not while there are more directions than asked for: AdaLoRA starts with 1.5 times as many."""
        return self.ranks.total <= self._total_rank

    def begin(self, step: int) -> None:
        self._steps: Iterator[Step] = fit(
            self._base.model,
            self._parameters,
            self._parts.train,
            self._plan,
            rng=generator(self._plan.seed, "batches"),
            penalty=lambda: ORTHOGONALITY * self._adapter.departure(),
            optimiser=self._optimiser,
            start=step,
        )

    def try_ranks(self, ranks: RankVector) -> Trial:
        """Train one step; the trial is of the ranks that it was trained with."""
        held = self.ranks
        step = next(self._steps)
        self._adapter.allocate(step)
        self._on_step(step)
        return Trial(held, step.loss)

    def score(self, items: Items) -> Score:
        return score(self._base.model, items, keep_logits=0)

    def trained(self, measurements: Measurements) -> tuple[Trainee, RankVector]:
        """End training and take peft's layers off; the same factors on an adapter of ours, and their ranks."""
        factors = {path: spectral(site) for path, site in self._adapter.factors().items()}
        dense = {name: value.detach().cpu().float().numpy().copy() for name, value in self._head.items()}
        self._stack.close()
        ranks = RankVector(tuple(site.rank for site in factors.values()))
        adapter = Adapter(self._base, max(1, *ranks.ranks), generator=torch.Generator().manual_seed(0))
        trainee = Trainee(adapter, self._parts, measurements)
        trainee.hold(factors, dense)
        return trainee, ranks

    def _remembered(self) -> Tensors:
        found = {
            f"{memory}.{name}": tensor
            for memory in MEMORIES
            for name, tensor in getattr(self._adapter.allocator, memory).items()
        }
        return found | {f"pattern.{name}": torch.tensor(kept) for name, kept in self._adapter.pattern.items()}

    def _remember(self, tensors: Tensors) -> None:
        def of(memory: str) -> Tensors:
            return {name.removeprefix(f"{memory}."): t for name, t in tensors.items() if name.startswith(f"{memory}.")}

        for memory in MEMORIES:
            device = self._base.device
            setattr(self._adapter.allocator, memory, {name: t.to(device) for name, t in of(memory).items()})
        self._adapter.pattern = {name: kept.tolist() for name, kept in of("pattern").items()}
