"""Diffusion over latent vectors: noise schedules, the forward process, and DDIM sampling (Eqs. 13, 14, 16, 17).

Knows Gaussian noise and how a prediction of it is used; does not know ranks, conditions or networks: whatever
denoises is a function of (x, tau).

Diffusion time tau runs over 1..T as in the paper, and tau = 0 is the clean end, where alpha_bar is 1. A library that
counts 0..T-1 calls our tau `tau - 1`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
ROUNDING = 1e-6
"""Share by which a float32 sigma^2 may exceed what it is allowed: eta 1 asks for all of it where alpha_bar is small."""


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


def ddpm_posterior_mean(x: Tensor, noise: Tensor, schedule: Schedule, tau: int) -> Tensor:
    """mu of Eq. 16: the mean of x_{tau-1} given x_tau and predicted noise (Ho et al. 2006.11239, Eq. 11).

    It is not x0-hat, although the paper puts it into Eq. 17 under that name; the sampler below uses x0-hat from
    Eq. 14, as DDIM does. With previous = tau - 1, eta = 1 and no fresh noise, a DDIM step equals this mean.
    """
    beta, alpha_bar = schedule.betas[tau], schedule.alphas_bar[tau]
    return (x - beta / (1 - alpha_bar) ** 0.5 * noise) / (1 - beta) ** 0.5


def ddim_step(
    x: Tensor,
    prediction: Tensor,
    schedule: Schedule,
    tau: int,
    previous: int,
    *,
    target: Target = "epsilon",
    sigma: float = 0.0,
    noise: Tensor | None = None,
    clip_clean: bool = False,
) -> Tensor:
    """One step of Eq. 17, from x_tau to x_previous.

    Args:
        x, prediction: ``(batch, sites)``.
        sigma: Standard deviation of the fresh noise, `Schedule.sigma` for a given eta.
        noise: Unit noise like x; needed if sigma > 0.
        clip_clean: Clamp x0-hat to [-1, 1]; eps-hat stays as predicted (diffusers' `clip_sample`).

    Raises:
        ConfigError: the steps are not 0 <= previous < tau <= T, sigma^2 > 1 - alpha_bar_previous, or noise is missing.
    """
    if not 0 <= previous < tau <= schedule.train_steps:
        raise ConfigError(f"step {tau} -> {previous}; expected 0 <= previous < tau <= {schedule.train_steps}")
    # x: x_tau      clean: x0-hat      direction: eps-hat      now, then: alpha_bar of tau and of previous
    now, then = schedule.alphas_bar[tau], schedule.alphas_bar[previous]
    room = float(1 - then)
    if not (sigma >= 0 and sigma**2 <= room * (1 + ROUNDING)):
        raise ConfigError(f"sigma at step {tau} is {sigma:g}; choose 0 to sqrt(1 - alpha_bar) = {room**0.5:g}")
    clean, direction = clean_and_noise(x, prediction, now, target)
    if clip_clean:
        clean = clean.clamp(-1, 1)
    x_previous = then**0.5 * clean + (1 - then - sigma**2).clamp_min(0) ** 0.5 * direction
    if sigma == 0:
        return x_previous
    if noise is None:
        raise ConfigError(f"sigma at step {tau} is {sigma:g} but no noise came; pass noise (a generator to `sample`)")
    return x_previous + sigma * noise


def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    schedule: Schedule,
    sample_steps: int,
    *,
    target: Target = "epsilon",
    eta: float = 0.0,
    sigmas: Sequence[float] | None = None,
    generator: torch.Generator | None = None,
    clip_clean: bool = True,
) -> Tensor:
    """Denoise from x_T to x_0 in T_diff steps (Algorithm 1, lines 5-10).

    Gradients flow through the chain, as a critic on x_0 needs; act under `torch.no_grad()`.

    Args:
        denoise: Prediction ``(batch, sites)`` from x ``(batch, sites)`` and tau ``(batch,)``, int64.
        start: x_T ``(batch, sites)``, unit Gaussian.
        eta: Share of DDPM's noise, 0 to 1.
        sigmas: sigma of each step in the order visited, instead of eta; the last has to be 0.
        generator: Draws the fresh noise; needed unless every sigma is 0.
        clip_clean: Clamp x0-hat to [-1, 1] in every step.

    Raises:
        ConfigError: sample_steps not in 1..T, an infeasible sigma, the wrong number of them, or no generator for them.
    """
    steps = list(pairwise((*schedule.sub_sequence(sample_steps), 0)))
    if sigmas is None:
        sigmas = [schedule.sigma(tau, previous, eta) for tau, previous in steps]
    if len(sigmas) != len(steps):
        raise ConfigError(f"{len(sigmas)} sigmas for {len(steps)} sampling steps; give one per step")
    x = start
    for (tau, previous), sigma in zip(steps, sigmas, strict=True):
        prediction = denoise(x, torch.full((len(x),), tau, device=x.device))
        noise = unit_noise(x, generator) if sigma > 0 and generator is not None else None
        x = ddim_step(
            x, prediction, schedule, tau, previous, target=target, sigma=sigma, noise=noise, clip_clean=clip_clean
        )
    return x


def unit_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal draws of the shape, type and device of `like`, made on the generator's own device."""
    drawn = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return drawn.to(like.device)


def _check_target(target: str) -> None:
    if target not in get_args(Target):
        raise ConfigError(f"prediction target is {target!r}; choose one of {', '.join(get_args(Target))}")
