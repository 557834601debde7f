"""Sampling a clean latent from noise: ancestral DDPM steps (Eq. 16) and DDIM steps (Eq. 17).

Knows how a prediction takes noise out, step by step; does not know ranks, conditions or networks: whatever denoises is
a function of (x, tau).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from airtune.errors import ConfigError
from airtune.methods.airllm.policy.diffusion import Schedule, Target, clean_and_noise, unit_noise

Denoise = Callable[[Tensor, Tensor], Tensor]
"""Prediction ``(batch, sites)`` from x ``(batch, sites)`` and tau ``(batch,)``, int64."""

ROUNDING = 1e-6
"""Share by which a float32 sigma^2 may exceed what it is allowed: eta 1 asks for all of it where alpha_bar is small."""


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
    denoise: Denoise,
    start: Tensor,
    schedule: Schedule,
    sample_steps: int,
    *,
    target: Target = "epsilon",
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    clip_clean: bool = True,
) -> Tensor:
    """Denoise from x_T to x_0 in T_diff steps (Algorithm 1, lines 5-10).

    The plain chain, equal to diffusers' and with gradients: what `fast_sampling`, by which policies act, is held to.

    Args:
        start: x_T ``(batch, sites)``, unit Gaussian.
        eta: Share of DDPM's noise, 0 to 1.
        generator: Draws the fresh noise; needed unless eta is 0.
        clip_clean: Clamp x0-hat to [-1, 1] in every step.

    Raises:
        ConfigError: sample_steps not in 1..T, an infeasible sigma, or no generator for the noise.
    """
    x = start
    for tau, previous in pairwise((*schedule.sub_sequence(sample_steps), 0)):
        sigma = schedule.sigma(tau, previous, eta)
        prediction = denoise(x, torch.full((len(x),), tau, device=x.device))
        noise = unit_noise(x, generator) if sigma > 0 and generator is not None else None
        x = ddim_step(
            x, prediction, schedule, tau, previous, target=target, sigma=sigma, noise=noise, clip_clean=clip_clean
        )
    return x


def ddpm_step(
    x: Tensor,
    prediction: Tensor,
    schedule: Schedule,
    tau: int,
    *,
    target: Target = "epsilon",
    noise: Tensor | None = None,
    clip_clean: bool = False,
) -> Tensor:
    """One ancestral step, from x_tau to x_{tau-1}: a draw from q(x_{tau-1} | x_tau, x0-hat).

    Its mean is mu of Eq. 16 wherever x0-hat is not clamped, and its variance the smaller of the usual two,
    beta (1 - alpha_bar_{tau-1}) / (1 - alpha_bar_tau) (Ho et al. 2006.11239, Eqs. 6-7). The step to 0 adds no noise.

    Args:
        x, prediction: ``(batch, sites)``.
        noise: Unit noise like x; needed unless tau is 1.
        clip_clean: Clamp x0-hat to [-1, 1].

    Raises:
        ConfigError: tau is not in 1..T, or noise is missing.
    """
    if not 1 <= tau <= schedule.train_steps:
        raise ConfigError(f"step {tau} of ancestral sampling; expected 1 to {schedule.train_steps}")
    # now, then: alpha_bar of tau and of tau - 1      beta: 1 - alpha_tau, consistent with them      clean: x0-hat
    now, then = schedule.alphas_bar[tau], schedule.alphas_bar[tau - 1]
    beta = 1 - now / then
    clean, _ = clean_and_noise(x, prediction, now, target)
    if clip_clean:
        clean = clean.clamp(-1, 1)
    mean = (then**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - then) * x) / (1 - now)
    if tau == 1:
        return mean
    if noise is None:
        raise ConfigError(f"ancestral step {tau} adds noise but none came; pass noise (a generator to `sample_ddpm`)")
    return mean + (beta * (1 - then) / (1 - now)) ** 0.5 * noise


def sample_ddpm(
    denoise: Denoise,
    start: Tensor,
    schedule: Schedule,
    *,
    generator: torch.Generator,
    target: Target = "epsilon",
    clip_clean: bool = True,
) -> Tensor:
    """Denoise from x_T to x_0 through all T steps, each with fresh noise: the DDPM that Table III compares.

    Args:
        start: x_T ``(batch, sites)``, unit Gaussian.
        generator: Draws the fresh noise.
    """
    x = start
    for tau in range(schedule.train_steps, 0, -1):
        prediction = denoise(x, torch.full((len(x),), tau, device=x.device))
        noise = unit_noise(x, generator)
        x = ddpm_step(x, prediction, schedule, tau, target=target, noise=noise, clip_clean=clip_clean)
    return x
