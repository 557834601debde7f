"""What the trained baselines share: peft's layers put on a base model and taken off again, one loop, one result.

A baseline trains on the same batches in the same order as the nested adapter, and hands over factors in the same
form, so that it is packed, sent and scored by the same codec. Knows peft; not bits or links.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from airtune.adapters import Adapter, RankVector
from airtune.codec import Factors
from airtune.errors import ConfigError, ModelError
from airtune.methods.airllm.baselines.truncation import spectral
from airtune.models import BaseModel, FitPlan, Items, Score, Step, find_sites, fit, score, weights_hash
from airtune.records import generator, seed_for

NAME = "default"
"""What peft calls an adapter that is given no name."""

OnStep = Callable[[Step], None]


@dataclass(frozen=True, eq=False)
class TrainedAdapter:
    """An adapter as `codec.encode`, `Packer` and `Adapter.load` take it."""

    factors: Mapping[str, Factors]
    """P, lam, Q by site path, in the order of the sites: orthonormal, singular values in lam, largest first."""
    dense: Mapping[str, np.ndarray]
    """The trained head."""
    losses: tuple[float, ...]
    """Task loss of every training step in nat; no penalty is part of it."""

    @property
    def ranks(self) -> RankVector:
        return RankVector(tuple(site.rank for site in self.factors.values()))


def score_adapter(
    base: BaseModel,
    factors: Mapping[str, Factors],
    dense: Mapping[str, np.ndarray],
    items: Items,
    *,
    keep_logits: int | None = None,
) -> Score:
    """Score a base model with these factors and head on it; both are taken off again."""
    with attached(base, factors, dense):
        return score(base.model, items, keep_logits=keep_logits)


@contextmanager
def attached(base: BaseModel, factors: Mapping[str, Factors], dense: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Inside the block a base model has these factors and this head, whatever becomes of the latter there."""
    most = max(1, *(site.rank for site in factors.values()))
    with head_kept(base):
        adapter = Adapter(base, most, generator=torch.Generator())
        try:
            adapter.load(factors, dense)
            yield
        finally:
            adapter.detach()


@contextmanager
def wrapped(base: BaseModel, config: LoraConfig, seed: int) -> Iterator[PeftModel]:
    """Put peft's layers on the model's own sites; afterwards the model, its head included, is as it was.

    Args:
        config: Without targets, which are the sites.
        seed: Draws the start of the layers.

    Raises:
        ConfigError: alpha is not above 0.
        ModelError: another adapter is on the model, or its weights have changed in between.
    """
    if not (math.isfinite(config.lora_alpha) and config.lora_alpha > 0):
        raise ConfigError(f"alpha is {config.lora_alpha}; choose a finite number above 0")
    find_sites(base.model)  # refuses a model whose sites are not bare projections
    config.target_modules = [site.path for site in base.sites]
    config.fan_in_fan_out = base.fan_in_fan_out
    with head_kept(base):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, "adapter"))
            model = get_peft_model(base.model, config)
        try:
            yield model
        finally:
            model.unload()
            base.model.eval().requires_grad_(False)
            if weights_hash(base.model, base.head) != base.sha256:
                raise ModelError("training changed the base model's own weights; expected them frozen; load it anew")


@contextmanager
def head_kept(base: BaseModel) -> Iterator[None]:
    """Whatever becomes of the head inside the block, it is back after it."""
    start = {name: base.model.get_parameter(name).detach().clone() for name in base.head}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in start.items():
                base.model.get_parameter(name).copy_(value)


def train_wrapped(
    base: BaseModel,
    parameters: Mapping[str, nn.Parameter],
    items: Items,
    plan: FitPlan,
    *,
    read: Callable[[], Mapping[str, Factors]],
    penalty: Callable[[], torch.Tensor] | None = None,
    on_step: OnStep,
) -> TrainedAdapter:
    """Fit peft's parameters and the head on the nested adapter's own batches.

    Args:
        read: Factors of every site, once trained; any lam.
        penalty: As in `models.fit`.
        on_step: Called between the optimiser's step and the next clearing of gradients.

    Raises:
        ModelError: the loss, or a factor after the last step, is not finite.
    """
    head = {name: base.model.get_parameter(name) for name in base.head}
    losses = []
    rng = generator(plan.seed, "batches")
    for step in fit(base.model, {**parameters, **head}, items, plan, rng=rng, penalty=penalty):
        losses.append(step.loss)
        on_step(step)
    dense = {name: value.detach().cpu().float().numpy().copy() for name, value in head.items()}
    factors = read()
    for path, site in factors.items():
        if not all(np.isfinite(values).all() for values in (site.p, site.lam, site.q)):
            raise ModelError(
                f"the factors of {path} are no longer finite after step {plan.steps - 1}; lower the learning rate"
            )
    return TrainedAdapter({path: spectral(site) for path, site in factors.items()}, dense, tuple(losses))


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A copy as float64."""
    return tensor.detach().cpu().double().numpy()
