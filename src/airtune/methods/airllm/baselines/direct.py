"""Plain LoRA by peft, trained directly at one rank everywhere: what a user without a rank allocator would do.

Knows peft's LoRA layers; how they get on the model and are trained stands in `baselines`.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from peft import LoraConfig

from airtune.adapters import rank_caps
from airtune.codec import Factors
from airtune.methods.airllm.baselines.training import NAME, OnStep, TrainedAdapter, as_numpy, train_wrapped, wrapped
from airtune.models import BaseModel, FitPlan
from airtune.workloads.parts import Parts


def lora_alphas(rank: int) -> list[float]:
    """To try: rsLoRA's scale of 2 / sqrt(r), as LoRA counts alpha, and a scale of 1; at rank 4 they are one."""
    return list(dict.fromkeys((2 * math.sqrt(rank), float(rank))))


def train_lora(
    base: BaseModel,
    parts: Parts,
    plan: FitPlan,
    rank: int,
    *,
    alpha: float,
    rslora: bool = False,
    on_step: OnStep = lambda step: None,
) -> TrainedAdapter:
    """Train B A at every site, scaled by alpha / r, or alpha / sqrt(r) with `rslora` (Kalajdzievski 2023).

    Args:
        base: Bare, and bare again afterwards.
        plan: Its seed draws the start, the batches and dropout.
        rank: r; a site with a smaller side than that gets the smaller one.

    Raises:
        ConfigError: rank is below 1.
        ModelError: training stops being finite; the message names the step.
    """
    caps = rank_caps(base.sites, rank)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        use_rslora=rslora,
        rank_pattern={
            f"^{re.escape(site.path)}$": cap for site, cap in zip(base.sites, caps.ranks, strict=True) if cap < rank
        },
    )
    with wrapped(base, config, plan.seed):
        layers: dict[str, Any] = {site.path: base.model.get_submodule(site.path) for site in base.sites}
        parameters = {
            f"{path}.{name}": getattr(layer, name)[NAME].weight
            for path, layer in layers.items()
            for name in ("lora_A", "lora_B")
        }

        def read() -> dict[str, Factors]:
            return {path: _factors(layer) for path, layer in layers.items()}

        return train_wrapped(base, parameters, parts.train, plan, read=read, on_step=on_step)


def _factors(layer: Any) -> Factors:
    q = as_numpy(layer.lora_A[NAME].weight)
    return Factors(p=as_numpy(layer.lora_B[NAME].weight), lam=np.full(len(q), layer.scaling[NAME]), q=q)
