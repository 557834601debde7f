"""Fit chosen parameters of a model: AdamW, warm-up and linear decay, resumable to the very step.

Knows losses and optimisers; what else must happen before a step (drawing ranks, say) comes in as a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from airtune.errors import ConfigError, ModelError
from airtune.models.batches import Items
from airtune.models.score import item_outcomes


@dataclass(frozen=True, slots=True)
class FitPlan:
    """How long and how fast to train."""

    steps: int
    batch_size: int = 32
    copies: tuple[float, ...] = (1.0,)
    """A step passes its batch as often as there are weights here; its loss is the copies' means, so weighted."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.06
    clip_norm: float = 0.3
    """Largest norm of a step's gradient. Early steps of low-rank factors overshoot at these rates without it."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "clip_norm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} is {getattr(self, name)}; choose a finite number above 0")

    def rate_factor(self, step: int) -> float:
        """Share of the peak learning rate at `step`: linear warm-up, then linear decay to 0."""
        warmup = max(1, round(self.warmup_share * self.steps))
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (self.steps - step) / max(1, self.steps - warmup))


@dataclass(frozen=True, slots=True)
class Step:
    """What one training step showed: its index, task loss in nat, and tokens passed, every copy counted."""

    index: int
    loss: float
    tokens: int


def fit(
    model: PreTrainedModel,
    parameters: Mapping[str, nn.Parameter],
    items: Items,
    plan: FitPlan,
    *,
    rng: np.random.Generator,
    before_step: Callable[[int, int], None] = lambda step, items: None,
    penalty: Callable[[], torch.Tensor] | None = None,
    optimiser: torch.optim.Optimizer | None = None,
    start: int = 0,
) -> Iterator[Step]:
    """Train `parameters` on `items`, yielding after every step so that the caller can report, save or stop.

    Args:
        rng: Draws the whole schedule of batches before the first step.
        before_step: Called with the step and how many items its batch holds, copies not counted.
        penalty: A term added to the task loss (Eq. 3's orthogonality, say); not part of the reported loss.
        optimiser: One restored from a checkpoint; a new AdamW when None.
        start: First step to run, after a resume.

    Raises:
        ModelError: the loss stops being finite; the message names the step and its rows.
    """
    schedule = items.schedule(plan.steps, plan.batch_size, rng)
    optimiser = optimiser or new_optimiser(parameters.values(), plan)  # type: ignore[arg-type]
    trained = list(parameters.values())
    for parameter in trained:
        parameter.requires_grad_(True)
    for index in range(start, plan.steps):
        batch = items.batch(np.tile(schedule[index], len(plan.copies))).to(model.device)
        before_step(index, len(schedule[index]))
        for group in optimiser.param_groups:
            group["lr"] = plan.learning_rate * plan.rate_factor(index)
        with _dropout_seeded(plan.seed, index, model.device):
            model.train()
            losses = item_outcomes(model, batch)[0].chunk(len(plan.copies))
            loss = torch.stack([weight * own.mean() for weight, own in zip(plan.copies, losses, strict=True)]).sum()
        total = loss if penalty is None else loss + penalty()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"the training loss is {value} at step {index} (rows {schedule[index][:8].tolist()}...); "
                "expected a finite number; lower the learning rate or look at those rows"
            )
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        norm = float(nn.utils.clip_grad_norm_(trained, plan.clip_norm))
        if not math.isfinite(norm):  # before any weight takes it up: what was saved last stays good
            raise ModelError(
                f"the gradient's norm is {norm} at step {index} (rows {schedule[index][:8].tolist()}...), the loss "
                f"{value:.4g}; expected a finite number; lower the learning rate or look at those rows"
            )
        optimiser.step()
        yield Step(index, value, batch.tokens)
    for parameter in trained:
        parameter.requires_grad_(False)
    model.eval()


def new_optimiser(parameters: Sequence[nn.Parameter], plan: FitPlan) -> torch.optim.AdamW:
    """AdamW over the trained parameters, at the plan's peak rate."""
    return torch.optim.AdamW(list(parameters), lr=plan.learning_rate, weight_decay=plan.weight_decay)


class _dropout_seeded:
    """Dropout drawn from (seed, step) alone, so that a resumed run draws what an unbroken one would have."""

    def __init__(self, seed: int, step: int, device: torch.device) -> None:
        devices = [device] if device.type == "cuda" else []
        self._fork = torch.random.fork_rng(devices=devices)
        self._seed = (seed * 1_000_003 + step) % 2**63

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *error: object) -> None:
        self._fork.__exit__(*error)  # type: ignore[arg-type]
