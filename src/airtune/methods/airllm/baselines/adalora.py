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
from peft import AdaLoraConfig, PeftModel

from airtune.adapters import RankVector
from airtune.codec import Factors
from airtune.errors import ConfigError, ModelError
from airtune.methods.airllm.baselines.training import NAME, OnStep, TrainedAdapter, as_numpy, train_wrapped, wrapped
from airtune.models import BaseModel, FitPlan, Step
from airtune.workloads.parts import Parts

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
    config = adalora_config(len(base.sites), plan.steps, total_rank, alpha)
    with wrapped(base, config, plan.seed) as model:
        adapter = AdaLora(base, model, config, total_rank)

        def allocate(step: Step) -> None:
            adapter.allocate(step)
            on_step(step)

        def read() -> dict[str, Factors]:
            if (left := adapter.ranks.total) != total_rank:
                raise ModelError(
                    f"AdaLoRA left {left} directions of {config.init_r * len(base.sites)}, {total_rank} were asked "
                    "for: its importances are equal or it was never cut; train longer"
                )
            return adapter.factors()

        def penalty() -> torch.Tensor:
            return orthogonality * adapter.departure()

        return train_wrapped(base, adapter.parameters, parts.train, plan, read=read, penalty=penalty, on_step=allocate)


class AdaLora:
    """peft's AdaLoRA layers on a model, which start at init_r each and are cut down to a total rank.

    Args:
        model: As `wrapped` gives it.
    """

    def __init__(self, base: BaseModel, model: PeftModel, config: AdaLoraConfig, total_rank: int) -> None:
        self._config = config
        inner: Any = model.base_model
        self._model, self.allocator = inner, inner.rankallocator
        """peft's; the allocator remembers how important every number has been."""
        self.allocator.target_bgt = total_rank  # peft's own is a whole rank times the sites
        self._layers: dict[str, Any] = {site.path: base.model.get_submodule(site.path) for site in base.sites}
        self.parameters: dict[str, torch.nn.Parameter] = {
            f"{path}.{name}": getattr(layer, name)[NAME]
            for path, layer in self._layers.items()
            for name in ("lora_A", "lora_E", "lora_B")
        }

    def departure(self) -> torch.Tensor:
        """How far P and Q are from orthonormal, the mean over sites."""
        return torch.stack([_departure(layer) for layer in self._layers.values()]).mean()

    def allocate(self, step: Step) -> None:
        """Cut where the schedule says so; between the optimiser's step and the clearing of gradients."""
        self._model.update_and_allocate(step.index)

    @property
    def pattern(self) -> dict[str, list[bool]]:
        """Which directions are left, by peft's name of lam; empty until the first cut. May be set, after a resume."""
        return self._config.rank_pattern or {}

    @pattern.setter
    def pattern(self, pattern: dict[str, list[bool]]) -> None:
        self._config.rank_pattern = pattern

    @property
    def ranks(self) -> RankVector:
        return RankVector(tuple(len(left) if kept is None else sum(kept) for left, kept in self._left().values()))

    def factors(self) -> dict[str, Factors]:
        """The directions that are left, the scale in lam."""
        return {path: _factors(self._layers[path], kept) for path, (_, kept) in self._left().items()}

    def _left(self) -> dict[str, tuple[torch.Tensor, list[bool] | None]]:
        pattern = self.pattern
        return {
            path: (layer.lora_E[NAME], pattern.get(f"{path}.lora_E.{NAME}")) for path, layer in self._layers.items()
        }


def initial_rank(sites: int, total_rank: int) -> int:
    """init_r, the rank of every site at the start."""
    mean = total_rank / sites
    return max(math.ceil(INIT_OVER_FINAL * mean), math.floor(mean) + 1)


def adalora_config(sites: int, steps: int, total_rank: int, alpha: float) -> AdaLoraConfig:
    """init_r and the cubic schedule. Raises `ConfigError` for a total rank below 1, or too few steps to cut in."""
    if total_rank < 1:
        raise ConfigError(f"AdaLoRA's final total rank is {total_rank}; choose at least 1")
    warmup, final = round(WARMUP_SHARE * steps), max(1, round(FINAL_SHARE * steps))  # peft cuts last at steps - final
    if warmup >= steps - final:
        raise ConfigError(f"AdaLoRA has {steps} steps; choose at least 3, so that there is one to cut in")
    return AdaLoraConfig(
        init_r=initial_rank(sites, total_rank),
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
