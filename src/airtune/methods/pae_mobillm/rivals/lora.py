"""LoRA on the device: what it could do by itself, were there memory and time for backward passes.

Plain LoRA, Q then P at every site with a scale of 1 (alpha = r), and the head; everything else is frozen. Knows models
and adapters; nothing is sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from airtune.adapters import Adapter
from airtune.methods.pae_mobillm.device.flops import step_flops
from airtune.models import BaseModel, FitPlan, Items, fit
from airtune.records import generator, seed_for

RANK = 8
RATES = (1e-3, 3e-3)
"""Tried in turn; dev picks."""
EPOCHS = 5
"""Looked at after each."""
Parameters = Mapping[str, nn.Parameter]


@dataclass(frozen=True, slots=True)
class Epochs:
    """How far training has come.

    Args:
        done: Whole epochs.
        seconds: Of processor time, for all of them.
        flops: Of all of them, forward and backward; see `step_flops`.
    """

    done: int
    seconds: float
    flops: int


@contextmanager
def adapted(base: BaseModel, seed: int, rank: int = RANK) -> Iterator[Parameters]:
    """Put LoRA on every site and yield what is trained; afterwards the model, its head included, is as it was.

    The factor between P and Q stays 1, so this is B A with B = P at 0 and A = Q drawn as LoRA draws it.
    """
    start = {name: base.model.get_parameter(name).detach().clone() for name in base.head}
    adapter = Adapter(base, rank, generator=torch.Generator().manual_seed(seed_for(seed, "lora")))
    try:
        yield {name: one for name, one in adapter.parameters().items() if not name.endswith(".lam")}
    finally:
        adapter.detach()
        with torch.no_grad():
            for name, value in start.items():
                base.model.get_parameter(name).copy_(value)
        base.model.eval().requires_grad_(False)


def plan_for(items: Items, *, rate: float, epochs: int, batch_size: int, seed: int) -> FitPlan:
    """The house's warm-up, decay and clipping over so many epochs."""
    steps = epochs * -(-len(items) // batch_size)
    return FitPlan(steps, batch_size=batch_size, learning_rate=rate, seed=seed)


def train_epochs(
    base: BaseModel, parameters: Parameters, items: Items, plan: FitPlan, *, rank: int = RANK, blocks: int | None = None
) -> Iterator[Epochs]:
    """Train, and tell after every epoch.

    Args:
        blocks: Whose flops are counted: the first so many blocks, or the whole model when None.

    Raises:
        ModelError: training stops being finite; the message names the step.
    """
    samples = 0

    def count(step: int, items: int) -> None:
        nonlocal samples
        samples = items

    steps = -(-len(items) // plan.batch_size)
    flops, seconds, begun = 0, 0.0, time.process_time()
    rng = generator(plan.seed, "lora batches")
    for step in fit(base.model, parameters, items, plan, rng=rng, before_step=count):
        flops += step_flops(base, samples, step.tokens // samples, rank, blocks)
        if (step.index + 1) % steps == 0:
            seconds += time.process_time() - begun
            yield Epochs((step.index + 1) // steps, seconds, flops)
            begun = time.process_time()
