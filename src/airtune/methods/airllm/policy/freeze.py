"""Freezes a trained policy: takes its networks apart into named arrays. Knows torch on one side, names on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import torch

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.links import Link
from airtune.methods.airllm.allocators import AirLLM
from airtune.methods.airllm.config import AirLLMConfig
from airtune.methods.airllm.packing import Packer
from airtune.methods.airllm.policy.coarse import CoarsePolicy
from airtune.methods.airllm.policy.denoiser import ResidualMLP, time_embedding
from airtune.methods.airllm.policy.fast_sampling import steps_of
from airtune.methods.airllm.policy.frozen import FrozenPolicy
from airtune.methods.airllm.policy.priors import Prior
from airtune.methods.airllm.policy.refine import Refiner
from airtune.methods.airllm.policy.saved import SavedPolicy, TrainedOn
from airtune.methods.airllm.policy.training import TrainedPolicy
from airtune.models import Site
from airtune.tasks import Complexity


def freeze(prior: Prior, coarse: CoarsePolicy | None, refiner: Refiner | None) -> FrozenPolicy:
    """The policy as it decides now.

    Raises:
        ConfigError: it draws noise in every step, or its denoiser is no residual MLP.
    """
    arrays: dict[str, torch.Tensor] = {}
    if coarse is not None:
        arrays |= coarse.actor()
    if refiner is None:
        return FrozenPolicy(prior, 1.0, {name: _plain(tensor) for name, tensor in arrays.items()})
    backbone = refiner.denoiser.backbone
    if refiner.sampler != "ddim" or refiner.eta > 0 or not isinstance(backbone, ResidualMLP):
        raise ConfigError(
            f"the policy samples by {refiner.sampler} with eta {refiner.eta:g} and a {type(backbone).__name__}; "
            "only one by ddim, eta 0 and a residual MLP can be saved; set policy.refiner, policy.eta, policy.backbone"
        )
    steps = steps_of(refiner.schedule, refiner.sample_steps, refiner.target, refiner.eta)
    times = time_embedding(torch.tensor([step.tau for step in steps]), backbone.time_size)
    sites = backbone.enter.in_features - backbone.time_size - backbone.condition_size
    by_x, by_time, by_condition = backbone.enter.weight.split([sites, backbone.time_size, backbone.condition_size], 1)
    arrays |= {
        "refiner.null": refiner.denoiser.null,
        "refiner.steps": torch.tensor([astuple(step)[1:-1] for step in steps]),  # all but tau and sigma
        "refiner.times": times @ by_time.T,
        "refiner.enter_x": by_x,
        "refiner.enter_condition": by_condition,
        "refiner.enter_bias": backbone.enter.bias,
    }
    stack: Any = backbone.blocks  # a module list does not say what its modules are
    for index, (norm, first, _, second) in enumerate(stack):
        arrays |= _named(f"refiner.blocks.{index}", norm=norm, first=first, second=second)
    norm, _, last = backbone.leave
    arrays |= _named("refiner.leave", norm=norm, last=last)
    return FrozenPolicy(prior, refiner.guidance, {name: _plain(tensor) for name, tensor in arrays.items()})


def saved_policy(
    policy: AirLLM,
    config: AirLLMConfig,
    packer: Packer,
    sites: Sequence[Site],
    caps: RankVector,
    links: Sequence[Link],
    complexity: Complexity,
) -> SavedPolicy:
    """The policy that a run has trained, with all that is needed to decide by it elsewhere. Raises `ConfigError`."""
    trained = policy.policy
    if not isinstance(trained, TrainedPolicy):
        raise ConfigError("the policy was loaded, not trained; copy the folder that it came from")
    return SavedPolicy(
        name=policy.name,
        seed=config.seed,
        policy=freeze(trained.prior, trained.coarse, trained.refiner),
        modules=tuple((site.layer, site.module) for site in sites),
        caps=caps,
        sizes=packer,
        deadline_s=config.link.deadline_s,
        complexity=complexity,
        trained_on=TrainedOn(
            model=config.model.name,
            task=config.task.name,
            snrs_db=tuple(sorted({link.snr_db for link in links})),
            bandwidths_hz=tuple(sorted({link.bandwidth_hz for link in links})),
            cost_weight=config.policy.cost_weight,
        ),
    )


def _named(where: str, **modules: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{where}.{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()
    }


def _plain(tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float32)
