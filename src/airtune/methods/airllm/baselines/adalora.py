"""AdaLoRA by peft: starts at a higher rank and masks the least important directions until a total rank is left.

peft does this only if `update_and_allocate` is called after every step, while gradients are there; it masks lam alone,
keeps its scale at alpha / init_r, and its own forward adds the orthogonality penalty to the loss that it returns.
Here the allocation is called, the directions that are left are read out, and the penalty stays apart.

Source: Zhang et al. 2023 (arXiv 2303.10512). Knows peft's AdaLoRA layers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from peft import AdaLoraConfig

from airtune.codec import Factors
from airtune.errors import ConfigError, ModelError
from airtune.methods.airllm.baselines.training import NAME, OnStep, TrainedAdapter, as_numpy, train_wrapped, wrapped
from airtune.methods.airllm.data import Parts
from airtune.models import BaseModel, FitPlan, Step

INIT_OVER_FINAL = 1.5
"""Ranks at the start over ranks at the end, as in AdaLoRA's paper."""
WARMUP_SHARE, FINAL_SHARE = 0.1, 0.4
"""Shares of the steps before the first and after the last cut; half of training is spent cutting."""
STEPS_BETWEEN_CUTS = 10


def train_adalora(
    base: BaseModel,
    parts: Parts,
    plan: FitPlan,
    total_rank: int,
    *,
    alpha: float,
    orthogonality: float = 0.5,
    on_step: OnStep = lambda step: None,
) -> TrainedAdapter:
    """Train P diag(lam) Q at every site, scaled by alpha / init_r, down to `total_rank` directions in all.

    init_r is 1.5 times the final mean rank, rounded up, and at least one above it.

    Args:
        base: Bare, and bare again afterwards.
        plan: Its seed draws the start, the batches and dropout.
        orthogonality: Weight of the mean over all P and Q of ||P'P - I||, Frobenius, not squared, as peft has it.

    Raises:
        ConfigError: total_rank is below 1, or the plan has too few steps to cut in.
        ModelError: training stops being finite (the message names the step), or another rank is left than was asked.
    """
    if total_rank < 1:
        raise ConfigError(f"AdaLoRA's final total rank is {total_rank}; choose at least 1")
    mean = total_rank / len(base.sites)
    init = max(math.ceil(INIT_OVER_FINAL * mean), math.floor(mean) + 1)
    config = _config(plan.steps, init, alpha)
    with wrapped(base, config, plan.seed) as model:
        allocator: Any = model.base_model
        allocator.rankallocator.target_bgt = total_rank  # peft's own is a whole rank times the sites
        layers: dict[str, Any] = {site.path: base.model.get_submodule(site.path) for site in base.sites}
        parameters = {
            f"{path}.{name}": getattr(layer, name)[NAME]
            for path, layer in layers.items()
            for name in ("lora_A", "lora_E", "lora_B")
        }

        def penalty() -> torch.Tensor:
            return orthogonality * torch.stack([_departure(layer) for layer in layers.values()]).mean()

        def allocate(step: Step) -> None:
            allocator.update_and_allocate(step.index)
            on_step(step)

        def read() -> dict[str, Factors]:
            pattern = config.rank_pattern or {}
            found = {path: _factors(layer, pattern.get(f"{path}.lora_E.{NAME}")) for path, layer in layers.items()}
            if (left := sum(site.rank for site in found.values())) != total_rank:
                raise ModelError(
                    f"AdaLoRA left {left} directions of {init * len(layers)}, {total_rank} were asked for: "
                    "its importances are equal or it was never cut; train longer"
                )
            return found

        return train_wrapped(base, parameters, parts.train, plan, read=read, penalty=penalty, on_step=allocate)


def _config(steps: int, init: int, alpha: float) -> AdaLoraConfig:
    warmup, final = round(WARMUP_SHARE * steps), max(1, round(FINAL_SHARE * steps))  # peft cuts last at steps - final
    if warmup >= steps - final:
        raise ConfigError(f"AdaLoRA has {steps} steps; choose at least 3, so that there is one to cut in")
    return AdaLoraConfig(
        init_r=init,
        lora_alpha=alpha,  # type: ignore[arg-type]
        tinit=warmup,
        tfinal=final,
        deltaT=STEPS_BETWEEN_CUTS,
        total_step=steps,
    )


def _departure(layer: Any) -> torch.Tensor:
    """Mean of ||Q Q' - I|| and ||P' P - I|| of one site."""
    q, p = layer.lora_A[NAME], layer.lora_B[NAME]
    identity = torch.eye(len(q), device=q.device)
    return (torch.linalg.norm(q @ q.T - identity) + torch.linalg.norm(p.T @ p - identity)) / 2


def _factors(layer: Any, kept: list[bool] | None) -> Factors:
    """The directions that are left, the scale in lam; all of them where nothing was ever cut."""
    chosen = torch.ones(len(layer.lora_E[NAME]), dtype=torch.bool) if kept is None else torch.tensor(kept)
    scale = layer.scaling[NAME] / (float(layer.ranknum[NAME]) + 1e-5)  # as peft's layer computes it
    p, lam, q = (as_numpy(tensor[NAME]) for tensor in (layer.lora_B, layer.lora_E, layer.lora_A))
    rows = chosen.numpy()
    return Factors(p=p[:, rows], lam=scale * lam[rows, 0], q=q[rows])
