"""The refiner: a conditional DDIM turns PPO's coarse latent into one rank per site (Eqs. 13-19, Algorithm 1).

`RefinedActions` wraps the environment, so PPO stays unmodified: it emits a latent, the wrapper refines and executes it.
The refiner is frozen inside a rollout and trained between rollouts. Knows latents, states and the denoiser; not losses
or links.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import gymnasium
import numpy as np
import torch

from airtune.methods.airllm.allocation import AllocationEnv
from airtune.methods.airllm.coarse import CoarseLatent
from airtune.methods.airllm.denoiser import Denoiser
from airtune.methods.airllm.diffusion import Schedule, Target, sample
from airtune.methods.airllm.encoding import encode
from airtune.methods.airllm.improve import Improver
from airtune.methods.airllm.objective import advantage_weights, hybrid_loss


@dataclass(frozen=True, slots=True)
class Transition:
    """What Algorithm 1 stores: s, the latent a^out, coarse, refined and executed action, R, s'; and what to learn.

    All actions are on the normalised scale [-1, 1]. The latent is the one executed, clipped to the action space; the
    raw one that PPO's ratio needs is in PPO's own rollout buffer.
    """

    state: np.ndarray
    latent: np.ndarray
    coarse: np.ndarray
    refined: np.ndarray
    executed: np.ndarray
    """After projection onto the deadline."""
    reward: float
    next_state: np.ndarray
    target: np.ndarray
    """x0 of the refiner's training: the executed action, or the better one that was found for it."""
    target_reward: float
    baseline: float
    """What uniform ranks would have earned in the same state."""


class Refiner:
    """f_psi and its sampler: refine latents, learn from transitions.

    Args:
        denoiser: Takes x ``(n, sites)`` and the condition (state, latent).
        sample_steps: T_diff.
        guidance: Weight of classifier-free guidance; 1 is plain conditional sampling.
        dropped: Share of conditions replaced by the null token in training.
        generator: Draws tau, noise and dropped conditions in training.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        latent: CoarseLatent,
        schedule: Schedule,
        *,
        sample_steps: int,
        target: Target,
        eta: float,
        guidance: float,
        dropped: float,
        learning_rate: float,
        generator: torch.Generator,
    ) -> None:
        self.denoiser, self.latent, self.schedule = denoiser, latent, schedule
        self.sample_steps, self.target, self.eta, self.guidance = sample_steps, target, eta, guidance
        self._dropped, self._generator = dropped, generator
        self._optimiser = torch.optim.Adam(denoiser.parameters(), lr=learning_rate)

    @torch.no_grad()
    def refine(self, states: np.ndarray, latents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Refined actions ``(n, sites)`` in [-1, 1] from states ``(n, d_s)`` and latents ``(n, size)``."""
        condition = _condition(states, latents)
        start = torch.from_numpy(rng.standard_normal((len(condition), len(self.latent.layer_of)), dtype=np.float32))
        noise = torch.Generator().manual_seed(int(rng.integers(2**63))) if self.eta > 0 else None
        clean = sample(
            lambda x, tau: self.denoiser.guided(x, tau, condition, self.guidance),
            start,
            self.schedule,
            self.sample_steps,
            target=self.target,
            eta=self.eta,
            generator=noise,
        )
        return clean.clamp(-1, 1).numpy()

    def warm_start(self, state_size: int, *, updates: int, batch: int, rng: np.random.Generator) -> float:
        """Learn the identity: refined = coarse, over random states and latents. Returns the last loss."""
        loss = float("nan")
        for _ in range(updates):
            states = rng.uniform(-1, 1, (batch, state_size)).astype(np.float32)
            latents = rng.uniform(-1, 1, (batch, self.latent.size)).astype(np.float32)
            loss = self._update(states, latents, self.latent.spread(latents), torch.ones(batch))
        return loss

    def learn(
        self,
        transitions: list[Transition],
        *,
        kappa: float,
        updates: int,
        batch: int,
        rng: np.random.Generator,
    ) -> float:
        """Train on replayed transitions with Eq. 19's weights (Algorithm 1, lines 17-21). Returns the mean loss."""
        states = np.stack([t.state for t in transitions])
        latents = np.stack([t.latent for t in transitions])
        clean = np.stack([t.target for t in transitions])
        rewards = torch.tensor([t.target_reward for t in transitions], dtype=torch.float32)
        baselines = torch.tensor([t.baseline for t in transitions], dtype=torch.float32)
        weights = advantage_weights(rewards, baselines, kappa)
        losses = []
        for _ in range(updates):
            rows = rng.integers(len(transitions), size=min(batch, len(transitions)))
            losses.append(self._update(states[rows], latents[rows], clean[rows], weights[torch.from_numpy(rows)]))
        return float(np.mean(losses))

    def _update(self, states: np.ndarray, latents: np.ndarray, clean: np.ndarray, weights: torch.Tensor) -> float:
        loss = hybrid_loss(
            self.denoiser,
            torch.from_numpy(np.ascontiguousarray(clean, dtype=np.float32)),
            _condition(states, latents),
            weights,
            self.schedule,
            generator=self._generator,
            target=self.target,
            dropped=self._dropped,
        )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())


@final
class RefinedActions(gymnasium.ActionWrapper[np.ndarray, np.ndarray, np.ndarray]):
    """An `AllocationEnv` whose action is the coarse latent: refine it, execute it, remember the transition.

    What it pays is the reward beyond uniform's in the same state. That takes the luck of the channel out of the signal
    and, being the same for every action of a state, leaves the best action of a one-step episode where it was.

    Args:
        env: The environment whose action is one normalised rank per site.
        refiner: Frozen while a rollout runs.
        improver: Finds what the refiner is to learn from each action.
        remember: Transitions kept for the refiner's training.
    """

    def __init__(self, env: AllocationEnv, refiner: Refiner, improver: Improver, *, remember: int = 10_000) -> None:
        super().__init__(env)
        self.refiner, self.improver, self.remember = refiner, improver, remember
        self.replay: list[Transition] = []
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (refiner.latent.size,), np.float32)
        self._allocation, self._caps = env, np.array(env.caps.ranks)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._state, info = self.env.reset(seed=seed, options=options)
        return self._state, info

    def action(self, action: np.ndarray) -> np.ndarray:
        """Refine one latent ``(size,)`` into one normalised rank per site ``(sites,)``."""
        return self.refiner.refine(self._state[None], np.asarray(action)[None], self.np_random)[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        before, uniform = self._state, self._allocation.execute(self._allocation.caps)
        refined = self.action(action)
        taken = self._allocation.execute(self._allocation.asked(refined))
        target = self.improver.improve(self._allocation, taken, uniform, self.np_random)
        self._state, reward, terminated, truncated, info = self.env.step(refined)
        self.replay.append(
            Transition(
                state=before,
                latent=np.asarray(action),
                coarse=self.refiner.latent.spread(action),
                refined=refined,
                executed=encode(np.array(taken.ranks.ranks), self._caps),
                reward=float(reward),
                next_state=self._state,
                target=encode(np.array(target.ranks.ranks), self._caps),
                target_reward=target.reward,
                baseline=uniform.reward,
            )
        )
        del self.replay[: -self.remember]
        return self._state, float(reward) - uniform.reward, terminated, truncated, info


def _condition(states: np.ndarray, latents: np.ndarray) -> torch.Tensor:
    """(s, a^out): the condition of Eq. 15 with the state that the paper's text, not its formula, includes."""
    joined = np.concatenate([np.atleast_2d(states), np.atleast_2d(latents)], axis=1)
    return torch.from_numpy(joined.astype(np.float32))
