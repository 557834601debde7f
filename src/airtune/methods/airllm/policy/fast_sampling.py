"""`sampling.sample` for deciding: the same numbers, with all that does not depend on x worked out once (Eqs. 15, 17).

Per sub-sequence: the coefficients of Eq. 17 as Python numbers, and the time embeddings. Per decision: what time and
condition add to a residual MLP's first layer. Both rows of guidance run as one batch. Any other backbone is called as
it is. Knows how `ResidualMLP` computes; carries no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from airtune.errors import ConfigError
from airtune.methods.airllm.policy.denoiser import Denoiser, ResidualMLP, time_embedding
from airtune.methods.airllm.policy.diffusion import Schedule, Target, unit_noise

FEW = 16
"""Up to so many rows, time and condition are added for all steps at once; above, that would only cost memory."""
Network = Callable[[Tensor, int], Tensor]
"""Prediction from x ``(batch, sites)`` and the index of the step; its leading shape is the conditions'."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of Eq. 17. With x0 = clip(clean_x x + clean_p p): x' = keep x0 + move_x x + move_p p + sigma z."""

    tau: int
    clean_x: float
    clean_p: float
    keep: float
    move_x: float
    move_p: float
    sigma: float


@lru_cache(maxsize=64)
def steps_of(schedule: Schedule, sample_steps: int, target: Target, eta: float) -> tuple[Step, ...]:
    """The coefficients of every step a sampler visits. Raises `ConfigError` as `Schedule.sub_sequence` does."""
    found = []
    for tau, previous in pairwise((*schedule.sub_sequence(sample_steps), 0)):
        now, then = float(schedule.alphas_bar[tau]), float(schedule.alphas_bar[previous])
        signal, spread = now**0.5, (1 - now) ** 0.5
        sigma = schedule.sigma(tau, previous, eta)
        push = max(1 - then - sigma**2, 0.0) ** 0.5
        clean_x, clean_p, noise_x, noise_p = {
            "epsilon": (1 / signal, -spread / signal, 0.0, 1.0),
            "sample": (0.0, 1.0, 1 / spread, -signal / spread),
            "v": (signal, -spread, spread, signal),
        }[target]
        found.append(Step(tau, clean_x, clean_p, then**0.5, push * noise_x, push * noise_p, sigma))
    return tuple(found)


@torch.inference_mode()
def fast_sample(
    denoiser: Denoiser,
    start: Tensor,
    condition: Tensor,
    schedule: Schedule,
    sample_steps: int,
    *,
    target: Target = "epsilon",
    guidance: float = 1.0,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """x_0 from x_T, equal to `sample` over `Denoiser.guided` with x0-hat clipped, to float32's rounding.

    Args:
        start: x_T ``(batch, sites)``, unit Gaussian.
        condition: ``(batch, condition_size)``.
        guidance: Weight of classifier-free guidance; 1 runs the conditional rows alone.
        generator: Draws the fresh noise; needed where eta > 0.

    Raises:
        ConfigError: sample_steps not in 1..T, or no generator for a step that adds noise.
    """
    steps = steps_of(schedule, sample_steps, target, eta)
    guided = guidance != 1
    rows = torch.stack([denoiser.null.expand_as(condition), condition]) if guided else condition
    backbone = denoiser.backbone
    network = prepared(backbone, steps, rows) if isinstance(backbone, ResidualMLP) else plain(backbone, steps, rows)
    x = start.clone()
    for index, step in enumerate(steps):
        prediction = network(x, index)
        if guided:
            unconditional, conditional = prediction
            prediction = torch.lerp(unconditional, conditional, guidance)
        x = _advance(x, prediction, step)
        if step.sigma > 0:
            if generator is None:
                raise ConfigError(f"sigma at step {step.tau} is {step.sigma:g} but no noise came; pass a generator")
            x.add_(unit_noise(x, generator), alpha=step.sigma)
    return x


def _advance(x: Tensor, prediction: Tensor, step: Step) -> Tensor:
    """Eq. 17 without its noise; x and the prediction are used up."""
    if step.clean_x:
        clean = torch.mul(x, step.clean_x).add_(prediction, alpha=step.clean_p).clamp_(-1, 1)
    else:
        clean = prediction.clamp(-1, 1)
    if step.move_x:
        return x.mul_(step.move_x).add_(prediction, alpha=step.move_p).add_(clean, alpha=step.keep)
    return prediction.mul_(step.move_p).add_(clean, alpha=step.keep)


def plain(backbone: nn.Module, steps: tuple[Step, ...], conditions: Tensor) -> Network:
    """Any backbone, called step by step; conditions are ``(batch, size)`` or, for guidance, ``(2, batch, size)``."""
    taus = torch.tensor([step.tau for step in steps], device=conditions.device)
    rows = conditions.flatten(0, -2)

    def network(x: Tensor, index: int) -> Tensor:
        both = x.repeat(len(rows) // len(x), 1)
        return backbone(both, taus[index].expand(len(rows)), rows).view(*conditions.shape[:-1], -1)

    return network


def prepared(mlp: ResidualMLP, steps: tuple[Step, ...], conditions: Tensor) -> Network:
    """A residual MLP whose first layer already knows every time and the conditions; otherwise as `plain`."""
    size, width = mlp.time_size, mlp.enter.out_features
    sites = mlp.enter.in_features - size - mlp.condition_size
    from_x, from_time, from_condition = mlp.enter.weight.split([sites, size, mlp.condition_size], dim=1)
    times = functional.linear(_embeddings(tuple(s.tau for s in steps), size, conditions.device), from_time)
    known = functional.linear(conditions, from_condition, mlp.enter.bias)
    few = conditions[..., 0].numel() <= FEW
    offsets = (known + times.view(-1, *[1] * (known.ndim - 1), width)).unbind() if few else times.unbind()
    shape = [width]
    stack: Any = mlp.blocks  # a module list does not say what its modules are
    blocks = [(n.weight, n.bias, n.eps, a.weight, a.bias, b.weight, b.bias) for n, a, _, b in stack]
    top: Any = mlp.leave
    norm, _, leave = top
    last = (norm.weight, norm.bias, norm.eps, leave.weight, leave.bias)
    layer_norm, linear, silu = torch.layer_norm, functional.linear, torch._C._nn.silu_

    def network(x: Tensor, index: int) -> Tensor:
        hidden = linear(x, from_x) + (offsets[index] if few else known + offsets[index])
        for gain, shift, eps, w1, b1, w2, b2 in blocks:
            hidden += linear(silu(linear(layer_norm(hidden, shape, gain, shift, eps), w1, b1)), w2, b2)
        gain, shift, eps, w1, b1 = last
        return linear(silu(layer_norm(hidden, shape, gain, shift, eps)), w1, b1)

    return network


@lru_cache(maxsize=64)
def _embeddings(taus: tuple[int, ...], size: int, device: torch.device) -> Tensor:
    """e_tau of every step, shape ``(steps, size)``."""
    return time_embedding(torch.tensor(taus, device=device), size)
