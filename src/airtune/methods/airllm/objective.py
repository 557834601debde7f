"""What the denoiser learns from: denoising, weighted by how good each action turned out (Eq. 19).

Knows rewards as numbers and their baseline; does not know where either comes from, nor how the network is optimised.

As printed, Eq. 19 adds -kappa E[R_t], the reward of actions already taken. They went through a floor and through an
environment that nobody differentiates, so in f_psi the term is a constant: its gradient is zero and the refiner would
only copy its own actions. Here the reward chooses which actions are copied: each sample's denoising error is weighted
by exp(kappa z), z its standardised advantage (advantage-weighted regression, Peng et al. 1910.00177).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from airtune.errors import DataError
from airtune.methods.airllm.denoiser import Denoiser
from airtune.methods.airllm.diffusion import Schedule, Target, add_noise, target_of, unit_noise

LARGEST_WEIGHT = 10.0
"""Weights stay within 1/10 and 10, so that no single action takes the batch over."""
SMALLEST_SPREAD = 1e-6
"""Advantages that differ by less are taken to be equal."""


def advantage_weights(reward: Tensor, baseline: Tensor, kappa: float) -> Tensor:
    """exp(kappa z), z = advantage - its mean, over its standard deviation in the batch, kept within 1/10 and 10.

    The advantage is reward - baseline. Without the baseline an action would weigh more because its channel happened to
    be good; with it, only because it did better than that channel lets one expect.

    Args:
        reward: Of the action to be learned ``(batch,)`` (Eq. 10).
        baseline: What the same state lets one expect ``(batch,)``: V(s), or the reward of uniform ranks.
        kappa: 0 weighs all samples alike.

    Returns:
        Weights ``(batch,)``, without gradient.

    Raises:
        DataError: shapes differ or are not ``(batch,)``, or a value is not finite.
    """
    if reward.ndim != 1 or reward.shape != baseline.shape:
        raise DataError(
            f"reward has shape {tuple(reward.shape)} and baseline {tuple(baseline.shape)}; "
            "give one number of each per sample"
        )
    advantage = (reward - baseline).detach()
    if not torch.isfinite(advantage).all():
        raise DataError("a reward or its baseline is not finite; drop that transition from the batch")
    centred = advantage - advantage.mean()
    z = centred / centred.square().mean().sqrt().clamp_min(SMALLEST_SPREAD)
    limit = math.log(LARGEST_WEIGHT)
    return (kappa * z).clamp(-limit, limit).exp()


def hybrid_loss(
    denoiser: Denoiser,
    clean: Tensor,
    condition: Tensor,
    weights: Tensor,
    schedule: Schedule,
    *,
    generator: torch.Generator,
    target: Target = "epsilon",
    dropped: float = 0.1,
) -> Tensor:
    """Weighted denoising loss on a batch of actions, one tau ~ U{1..T} per sample (Eq. 19).

    The squared norm is divided by the number of sites, so that learning rates carry over between models.

    Args:
        clean: x_0 ``(batch, sites)``, encoded ranks in [-1, 1].
        condition: ``(batch, condition_size)``.
        weights: ``(batch,)``, from `advantage_weights`.
        generator: Draws tau, the noise and which conditions are dropped.
        dropped: Share of conditions replaced by the null token (classifier-free guidance).

    Returns:
        A scalar with gradient: the mean over the batch of weight times error.

    Raises:
        DataError: weights are not ``(batch,)``.
    """
    batch = len(clean)
    if weights.shape != (batch,):
        raise DataError(f"weights have shape {tuple(weights.shape)}; give one per sample, ({batch},)")
    tau = torch.randint(1, schedule.train_steps + 1, (batch,), generator=generator, device=generator.device)
    tau = tau.to(clean.device)
    noise, alpha_bar = unit_noise(clean, generator), schedule.alpha_bar(tau)
    prediction = denoiser(add_noise(clean, noise, alpha_bar), tau, denoiser.drop(condition, dropped, generator))
    errors = (prediction - target_of(clean, noise, alpha_bar, target)).square().mean(dim=1)
    return (weights * errors).mean()
