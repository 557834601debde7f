"""Cores between bases derived from the base model's own weights, trained as LoRA is.

Knows cores; not bits or links.
"""

from __future__ import annotations

import torch

from airtune.adapters.core_adapter import CoreAdapter, bases_of
from airtune.errors import ConfigError
from airtune.methods.airllm.baselines.training import OnStep, TrainedAdapter, head_kept, train_wrapped
from airtune.models import BaseModel, FitPlan
from airtune.records import seed_for
from airtune.workloads.parts import Parts


def train_cores(
    base: BaseModel,
    parts: Parts,
    plan: FitPlan,
    size: int,
    rank: int,
    *,
    alpha: float,
    on_step: OnStep = lambda step: None,
) -> TrainedAdapter:
    """Train a core of shape (k, k) and rank r at every site, scaled by alpha / r.

    Args:
        base: Bare, and bare again afterwards.
        plan: Its seed draws the start, the batches and dropout.
        size: k; a site with a smaller side than that gets the smaller one.
        rank: r, at most k.

    Returns:
        Updates of whole sites; `Bases.core` takes their cores out again.

    Raises:
        ConfigError: size or rank is below 1.
        ModelError: training stops being finite; the message names the step.
    """
    if rank < 1:
        raise ConfigError(f"the rank of a core is {rank}; choose at least 1")
    bases = bases_of(base, size)
    with head_kept(base):
        draw = torch.Generator().manual_seed(seed_for(plan.seed, "adapter"))
        adapter = CoreAdapter(base, bases, rank, scale=alpha / rank, generator=draw)
        try:
            return train_wrapped(base, adapter.parameters(), parts.train, plan, read=adapter.factors, on_step=on_step)
        finally:
            adapter.detach()
            base.model.eval().requires_grad_(False)
