"""Diffusion over latent vectors: noise schedules and the forward process (Eqs. 13, 14).

Knows Gaussian noise and how a prediction of it is read; does not know ranks, conditions, networks or samplers.

Diffusion time tau runs over 1..T as in the paper, and tau = 0 is the clean end, where alpha_bar is 1. A library that
counts 0..T-1 calls our tau `tau - 1`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from airtune.errors import ConfigError

Kind = Literal["linear", "cosine", "scaled_linear"]
Spacing = Literal["trailing", "leading"]
Target = Literal["epsilon", "v", "sample"]
"""What a denoiser predicts: the noise, the velocity sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0, or x0."""

BETA_START, BETA_END = 1e-4, 2e-2
COSINE_OFFSET, LARGEST_BETA = 0.008, 0.999


@dataclass(frozen=True, slots=True)
class Schedule:
    """How much noise each diffusion step adds (Eq. 13), and which steps a sampler visits.

    Raises:
        ConfigError: an unknown kind or spacing, or fewer than one step.
    """

    kind: Kind = "scaled_linear"
    """`linear` and `scaled_linear` (linear in sqrt(beta)) run from 1e-4 to 2e-2; `cosine` is Nichol & Dhariwal's."""
    train_steps: int = 1000
    """T. The two linear kinds end near pure noise only for T of several hundred or more."""
    spacing: Spacing = "trailing"
    """`trailing` starts sampling at T; `leading` starts at 1 + (sample_steps - 1) * (T // sample_steps)."""
    betas: Tensor = field(init=False, repr=False, compare=False)
    """beta_tau = 1 - alpha_tau, indexed by tau, shape ``(T + 1,)``, float32; beta_0 = 0."""
    alphas_bar: Tensor = field(init=False, repr=False, compare=False)
    """Cumulative product of 1 - beta, indexed by tau, shape ``(T + 1,)``, float32; alpha_bar_0 = 1."""

    def __post_init__(self) -> None:
        if self.spacing not in get_args(Spacing):
            raise ConfigError(f"spacing is {self.spacing!r}; choose one of {', '.join(get_args(Spacing))}")
        if self.train_steps < 1:
            raise ConfigError(f"train_steps is {self.train_steps}; give at least 1 (the paper uses 600 to 1000)")
        betas = torch.cat([torch.zeros(1), _betas(self.kind, self.train_steps)])
        object.__setattr__(self, "betas", betas)
        object.__setattr__(self, "alphas_bar", torch.cumprod(1 - betas, dim=0))

    def alpha_bar(self, tau: Tensor) -> Tensor:
        """alpha_bar of each row's step: tau ``(batch,)`` to a column ``(batch, 1)`` on tau's device."""
        return self.alphas_bar.to(tau.device)[tau].unsqueeze(1)

    def sub_sequence(self, sample_steps: int) -> tuple[int, ...]:
        """The steps a sampler visits, decreasing; each one's previous step is the next entry, the last one's is 0.

        Less 1, they are the time steps of diffusers' DDIMScheduler under the same spacing. A sampler has to look the
        previous step up here: tau - T // T_diff, as diffusers steps, is it for `leading`, but for `trailing` only where
        T_diff divides T.

        Raises:
            ConfigError: sample_steps (T_diff) is not in 1..T.
        """
        steps = self.train_steps
        if not 1 <= sample_steps <= steps:
            raise ConfigError(f"sample_steps is {sample_steps}; choose 1 to {steps} (train_steps)")
        if self.spacing == "leading":
            stride = steps // sample_steps
            return tuple(1 + stride * i for i in reversed(range(sample_steps)))
        return tuple(round(steps * i / sample_steps) for i in range(sample_steps, 0, -1))

    def sigma(self, tau: int, previous: int, eta: float) -> float:
        """sigma_tau for a share eta of DDPM's noise (Song et al. 2010.02502, Eq. 16); eta 0 is deterministic."""
        now, then = self.alphas_bar[tau], self.alphas_bar[previous]
        return float(eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5)


def _betas(kind: Kind, steps: int) -> Tensor:
    if kind == "linear":
        return torch.linspace(BETA_START, BETA_END, steps)
    if kind == "scaled_linear":
        return torch.linspace(BETA_START**0.5, BETA_END**0.5, steps) ** 2
    if kind == "cosine":
        angles = [(i / steps + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2 for i in range(steps + 1)]
        levels = [math.cos(angle) ** 2 for angle in angles]
        return torch.tensor([min(1 - after / before, LARGEST_BETA) for before, after in pairwise(levels)])
    raise ConfigError(f"schedule kind is {kind!r}; choose one of {', '.join(get_args(Kind))}")


def add_noise(clean: Tensor, noise: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """x_tau from x_0 and unit noise (Eq. 14); alpha_bar is a number or broadcasts, as ``(batch, 1)`` does."""
    return alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * noise


def velocity(clean: Tensor, noise: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2202.00512; the paper writes alpha_t)."""
    return alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * clean


def target_of(clean: Tensor, noise: Tensor, alpha_bar: Tensor | float, target: Target) -> Tensor:
    """What a denoiser of this kind should predict at x_tau = add_noise(clean, noise, alpha_bar)."""
    _check_target(target)
    if target == "v":
        return velocity(clean, noise, alpha_bar)
    return noise if target == "epsilon" else clean


def clean_and_noise(x: Tensor, prediction: Tensor, alpha_bar: Tensor | float, target: Target) -> tuple[Tensor, Tensor]:
    """Read a prediction at x_tau as (x0-hat, eps-hat), the pair for which Eq. 14 gives x_tau back.

    The inverse of `target_of`; one after the other turns a prediction of one kind into another.
    """
    _check_target(target)
    signal, spread = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    if target == "epsilon":
        return (x - spread * prediction) / signal, prediction
    if target == "sample":
        return prediction, (x - signal * prediction) / spread
    return signal * x - spread * prediction, signal * prediction + spread * x


def unit_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal draws of the shape, type and device of `like`, made on the generator's own device."""
    drawn = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return drawn.to(like.device)


def _check_target(target: str) -> None:
    if target not in get_args(Target):
        raise ConfigError(f"prediction target is {target!r}; choose one of {', '.join(get_args(Target))}")
