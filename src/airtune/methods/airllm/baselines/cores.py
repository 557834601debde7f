"""Cores between bases derived from the base model's own weights (LoRA-XS), trained as the baselines are.

Departs from the paper in the start: cores of 0, not Gaussian with a deviation of 1e-5. Adam's steps do not depend on
the scale of gradients, so alpha multiplies the learning rate and does little else. Knows cores; not bits or links.
"""

from __future__ import annotations

from airtune.adapters.core_adapter import CoreAdapter, bases_of
from airtune.methods.airllm.baselines.training import TrainedAdapter, head_kept, train_wrapped
from airtune.methods.airllm.data import Parts
from airtune.models import BaseModel, FitPlan


def train_cores(base: BaseModel, parts: Parts, plan: FitPlan, size: int, *, alpha: float) -> TrainedAdapter:
    """Train a core of shape (k, k) at every site, scaled by alpha / k.

    Args:
        base: Bare, and bare again afterwards.
        plan: Its seed draws the batches and dropout.
        size: k; a site with a smaller side than that gets the smaller one.

    Raises:
        ConfigError: size is below 1.
        ModelError: training stops being finite; the message names the step.
    """
    bases = bases_of(base, size)
    with head_kept(base):
        adapter = CoreAdapter(base, bases, scale=alpha / size)
        try:
            return train_wrapped(
                base, adapter.parameters(), parts.train, plan, read=adapter.factors, on_step=lambda step: None
            )
        finally:
            adapter.detach()
            base.model.eval().requires_grad_(False)
