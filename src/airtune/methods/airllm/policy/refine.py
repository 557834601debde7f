"""The refiner: a conditional diffusion turns PPO's coarse action into one rank per site (Eqs. 13-19).

Knows states, coarse actions and the denoiser, how to sample it and how to train it; not environments, losses or links.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from airtune.errors import ConfigError
from airtune.methods.airllm.policy.critic import Outcome, TwinCritics
from airtune.methods.airllm.policy.denoiser import Denoiser
from airtune.methods.airllm.policy.diffusion import Schedule, Target
from airtune.methods.airllm.policy.fast_sampling import fast_sample
from airtune.methods.airllm.policy.objective import Batch, Objective, hybrid_loss
from airtune.methods.airllm.policy.priors import Prior
from airtune.methods.airllm.policy.sampling import sample_ddpm

Sampler = Literal["ddim", "ddpm"]
DECAY = 0.99
"""Of the moving average of weights that acts. The last weights jitter with their last batches, and a policy that learns
from its own actions would follow."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Transitions as the refiner learns from them, stacked: one row each, float32; all actions normalised."""

    state: np.ndarray
    condition: np.ndarray
    """The coarse action as numbers ``(n, prior.size)``."""
    executed: np.ndarray
    improved: np.ndarray
    advantage: np.ndarray
    """Reward less uniform's in the same state ``(n,)``; what the critics regress, too."""
    next_state: np.ndarray
    next_condition: np.ndarray
    """The coarse action that the prior would take in s'."""
    terminal: np.ndarray


class Refiner:
    """f_psi and its sampler: refine coarse actions, learn from transitions.

    Args:
        denoiser: Takes x ``(n, sites)`` and the condition (state, coarse action).
        sites: Length of a refined action.
        sampler: `ddim` takes `sample_steps` steps (Eq. 17), `ddpm` all T with fresh noise in each (Eq. 16).
        sample_steps: T_diff.
        eta: Share of DDPM's noise in a DDIM step; sigma_tau of Eq. 17.
        guidance: Weight of classifier-free guidance; 1 is plain conditional sampling.
        dropped: Share of conditions replaced by the null token in training.
        critics: Needed where it learns by `critic`.
        generator: Draws tau, noise and dropped conditions in training.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        prior: Prior,
        sites: int,
        schedule: Schedule,
        *,
        sampler: Sampler,
        sample_steps: int,
        target: Target,
        eta: float,
        guidance: float,
        dropped: float,
        learning_rate: float,
        generator: torch.Generator,
        critics: TwinCritics | None = None,
    ) -> None:
        self.prior, self.sites, self.schedule = prior, sites, schedule
        self.sampler, self.sample_steps, self.target = sampler, sample_steps, target
        self.eta, self.guidance = eta, guidance
        self.critics = critics
        self._dropped, self._generator = dropped, generator
        self.learning = denoiser
        self.optimiser = torch.optim.Adam(denoiser.parameters(), lr=learning_rate, fused=True)
        self.averaged = AveragedModel(denoiser, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
        self.denoiser = cast(Denoiser, self.averaged.module)
        """The network that acts: the moving average of the one that learns."""

    def begin(self, seed: int) -> None:
        """Draw what training draws from `seed` from now on."""
        self._generator.manual_seed(seed)

    @torch.no_grad()
    def refine(self, states: np.ndarray, coarse: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Refined actions ``(n, sites)`` in [-1, 1] from states ``(n, d_s)`` and coarse ones ``(n, prior.size)``."""
        condition = _condition(states, coarse)
        start = torch.from_numpy(rng.standard_normal((len(condition), self.sites), dtype=np.float32))
        noise = torch.Generator().manual_seed(int(rng.integers(2**63)))

        if self.sampler == "ddim":
            clean = fast_sample(
                self.denoiser,
                start,
                condition,
                self.schedule,
                self.sample_steps,
                target=self.target,
                guidance=self.guidance,
                eta=self.eta,
                generator=noise,
            )
            return clean.clamp(-1, 1).numpy()

        def denoise(x: Tensor, tau: Tensor) -> Tensor:
            return self.denoiser.guided(x, tau, condition, self.guidance)

        clean = sample_ddpm(denoise, start, self.schedule, target=self.target, generator=noise)
        return clean.clamp(-1, 1).numpy()

    def warm_start(self, state_size: int, *, updates: int, batch: int, rng: np.random.Generator) -> float:
        """Learn the identity: refined = coarse, over random states and coarse actions. Returns the last loss."""
        loss = float("nan")
        for _ in range(updates):
            states = rng.uniform(-1, 1, (batch, state_size)).astype(np.float32)
            coarse = rng.uniform(-1, 1, (batch, self.prior.size)).astype(np.float32)
            actions = torch.from_numpy(self.prior.spread(coarse))
            given = Batch(
                torch.from_numpy(states), _condition(states, coarse), actions, actions, advantage=torch.zeros(batch)
            )
            loss = self._update(given, "improved", kappa=0.0)
        return loss

    def learn(
        self,
        replay: Replay,
        *,
        objective: Objective,
        kappa: float,
        gamma: float,
        updates: int,
        batch: int,
        rng: np.random.Generator,
    ) -> float:
        """Train on replayed transitions by Eq. 19 (Algorithm 1, lines 17-21). Returns the mean loss.

        For `critic`, each update of the critics comes before one of the denoiser.

        Raises:
            ConfigError: the loss is no longer finite.
        """
        losses = []
        for _ in range(updates):
            rows = rng.integers(len(replay.state), size=min(batch, len(replay.state)))
            if objective == "critic" and self.critics is not None:
                self._teach(self.critics, replay, rows, gamma, rng)
            given = Batch(
                torch.from_numpy(replay.state[rows]),
                _condition(replay.state[rows], replay.condition[rows]),
                torch.from_numpy(replay.executed[rows]),
                torch.from_numpy(replay.improved[rows]),
                torch.from_numpy(replay.advantage[rows]),
            )
            losses.append(self._update(given, objective, kappa))
        loss = float(np.mean(losses))
        if not np.isfinite(loss):
            raise ConfigError(f"the refiner's loss is {loss}; lower policy.ddim_learning_rate or policy.kappa")
        return loss

    def _teach(
        self, critics: TwinCritics, replay: Replay, rows: np.ndarray, gamma: float, rng: np.random.Generator
    ) -> None:
        """One update of the critics; in s', the policy does what it would do there now."""
        state, action, advantage, after, terminal = (
            torch.from_numpy(values[rows])
            for values in (replay.state, replay.executed, replay.advantage, replay.next_state, replay.terminal)
        )
        following = None
        if not terminal.all():
            following = torch.from_numpy(self.refine(replay.next_state[rows], replay.next_condition[rows], rng))
        critics.learn(Outcome(state, action, advantage, after, terminal), following, gamma)

    def _update(self, batch: Batch, objective: Objective, kappa: float) -> float:
        loss = hybrid_loss(
            self.learning,
            batch,
            self.schedule,
            objective=objective,
            kappa=kappa,
            generator=self._generator,
            target=self.target,
            dropped=self._dropped,
            critics=self.critics,
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.averaged.update_parameters(self.learning)
        return float(loss.detach())


def _condition(states: np.ndarray, coarse: np.ndarray) -> Tensor:
    """(s, a^out): the condition of Eq. 15 with the state that the paper's text, not its formula, includes."""
    joined = np.concatenate([np.atleast_2d(states), np.atleast_2d(coarse)], axis=1)
    return torch.from_numpy(joined.astype(np.float32))
