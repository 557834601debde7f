"""What the denoiser learns from: three readings of Eq. 19 whose reward term has a gradient, behind one function.

Knows actions, rewards and critics as tensors; does not know where they come from, nor how the network is optimised.

As printed, Eq. 19 adds -kappa E[R_t], the reward of actions already taken. They went through a floor and through an
environment that nobody differentiates, so in f_psi the term is a constant: its gradient is zero and the refiner would
only copy its own actions. The reward can act in three ways instead:

| objective   | x_0                  | where the reward enters                                                   |
|-------------|----------------------|---------------------------------------------------------------------------|
| `advantage` | the executed action  | each sample's error weighs exp(kappa z), z its standardised advantage     |
| `critic`    | the executed action  | plus kappa times -Q1(s, x0-hat) / mean abs(Q2), as in Diffusion-QL        |
| `improved`  | the better one found | in x_0 itself; kappa is not used                                          |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from airtune.errors import ConfigError, DataError
from airtune.methods.airllm.policy.denoiser import Denoiser
from airtune.methods.airllm.policy.diffusion import Schedule, Target, add_noise, clean_and_noise, target_of, unit_noise

Objective = Literal["advantage", "critic", "improved"]
Critics = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Q1 and Q2, each ``(batch,)``, of states ``(batch, d_s)`` and normalised actions ``(batch, sites)``."""

LARGEST_WEIGHT = 10.0
"""Weights stay within 1/10 and 10, so that no single action takes the batch over."""
SMALLEST_SPREAD = 1e-6
"""Advantages that differ by less are taken to be equal; also the least scale of a critic."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Actions to learn from, one row each.

    Raises:
        DataError: rows or sites do not match.
    """

    state: Tensor
    """s ``(batch, d_s)``."""
    condition: Tensor
    """What the denoiser is told ``(batch, condition_size)``."""
    executed: Tensor
    """The action taken, normalised ``(batch, sites)``."""
    improved: Tensor
    """The better one that was found for it, or itself ``(batch, sites)``."""
    advantage: Tensor
    """Reward of the executed action less what its state lets one expect ``(batch,)``."""

    def __post_init__(self) -> None:
        rows = len(self.executed)
        flat = self.executed.ndim == 2 and self.executed.shape == self.improved.shape
        if not flat or self.advantage.shape != (rows,) or len(self.state) != rows or len(self.condition) != rows:
            shapes = {name: tuple(getattr(self, name).shape) for name in self.__slots__}
            raise DataError(f"the batch holds {shapes}; give one row of each per action, and one advantage")


def advantage_weights(advantage: Tensor, kappa: float) -> Tensor:
    """exp(kappa z), z = advantage - its mean, over its standard deviation in the batch, kept within 1/10 and 10.

    Advantage-weighted regression (Peng et al. 1910.00177). Of rewards themselves an action would weigh more because its
    channel happened to be good; of advantages, only because it did better than that channel lets one expect.

    Args:
        advantage: ``(batch,)``.
        kappa: 0 weighs all samples alike.

    Returns:
        Weights ``(batch,)``, without gradient.

    Raises:
        DataError: the shape is not ``(batch,)``, or a value is not finite.
    """
    if advantage.ndim != 1:
        raise DataError(f"advantages have shape {tuple(advantage.shape)}; give one number per action")
    if not torch.isfinite(advantage).all():
        raise DataError("a reward or its baseline is not finite; drop that action from the batch")
    centred = advantage.detach() - advantage.detach().mean()
    z = centred / centred.square().mean().sqrt().clamp_min(SMALLEST_SPREAD)
    limit = math.log(LARGEST_WEIGHT)
    return (kappa * z).clamp(-limit, limit).exp()


def hybrid_loss(
    denoiser: Denoiser,
    batch: Batch,
    schedule: Schedule,
    *,
    objective: Objective,
    kappa: float,
    generator: torch.Generator,
    target: Target = "epsilon",
    dropped: float = 0.1,
    critics: Critics | None = None,
) -> Tensor:
    """The refiner's loss on a batch of actions, one tau ~ U{1..T} per sample (Eq. 19).

    The squared norm is divided by the number of sites, so that learning rates carry over between models. For `critic`,
    the action whose value counts is x0-hat of this very step (the one-step approximation of Kang et al. 2305.20081):
    it costs no further pass, whatever the sampler. Both critics' scale is taken out by mean abs(Q2) (Wang et al.
    2208.06193), so that kappa means the same whatever the reward's unit.

    Args:
        objective: Where the reward enters; see the table above.
        kappa: Sharpness of the weights, or weight of the critic.
        generator: Draws tau, the noise and which conditions are dropped.
        dropped: Share of conditions replaced by the null token (classifier-free guidance).
        critics: Needed for `critic`.

    Returns:
        A scalar with gradient.

    Raises:
        ConfigError: an unknown objective, or no critics for `critic`.
        DataError: an advantage is not finite.
    """
    if objective not in get_args(Objective):
        raise ConfigError(f"objective is {objective!r}; choose one of {', '.join(get_args(Objective))}")
    clean = batch.improved if objective == "improved" else batch.executed
    rows = len(clean)
    tau = torch.randint(1, schedule.train_steps + 1, (rows,), generator=generator, device=generator.device)
    tau = tau.to(clean.device)
    noise, alpha_bar = unit_noise(clean, generator), schedule.alpha_bar(tau)
    noisy = add_noise(clean, noise, alpha_bar)
    prediction = denoiser(noisy, tau, denoiser.drop(batch.condition, dropped, generator))
    errors = (prediction - target_of(clean, noise, alpha_bar, target)).square().mean(dim=1)
    if objective == "advantage":
        return (advantage_weights(batch.advantage, kappa) * errors).mean()
    if objective == "improved":
        return errors.mean()
    if critics is None:
        raise ConfigError("objective is 'critic' but no critics came; pass trained ones")
    return errors.mean() + kappa * _critic_term(critics, batch.state, noisy, prediction, alpha_bar, target)


def _critic_term(
    critics: Critics, state: Tensor, noisy: Tensor, prediction: Tensor, alpha_bar: Tensor, target: Target
) -> Tensor:
    """-mean Q1(s, x0-hat) / mean abs(Q2): falls as the denoised actions get better."""
    clean, _ = clean_and_noise(noisy, prediction, alpha_bar, target)
    first, second = critics(state, clean.clamp(-1, 1))
    return -first.mean() / second.detach().abs().mean().clamp_min(SMALLEST_SPREAD)
