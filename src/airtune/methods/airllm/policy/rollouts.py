"""Environments whose action is the coarse one: refine it, execute it once, remember what came of it (Algorithm 1).

`RefinedActions` wraps stable-baselines3's vector of environments, so PPO stays unmodified, and one batch of denoising
serves them all. Knows environments and actions; not how either learner is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from airtune.adapters import RankVector
from airtune.errors import ModelError
from airtune.methods.airllm.encoding import encode
from airtune.methods.airllm.environment import AllocationEnv, Executed
from airtune.methods.airllm.policy.improve import Improver
from airtune.methods.airllm.policy.priors import Prior
from airtune.methods.airllm.policy.refine import Replay

Refine = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""States ``(n, d_s)`` and coarse actions ``(n, size)`` -> normalised ranks ``(n, sites)``."""


@dataclass(frozen=True, slots=True)
class Transition:
    """What Algorithm 1 stores: s, raw a^out, coarse, refined and executed action, R, s'; and what to learn from it.

    All but the raw action are on the normalised scale [-1, 1].
    """

    state: np.ndarray
    raw: np.ndarray
    """What PPO emitted, before any clipping: a latent, or a rank per site."""
    coarse: np.ndarray
    """The same as one normalised rank per site."""
    refined: np.ndarray
    executed: np.ndarray
    """After rounding and projection onto the deadline."""
    reward: float
    next_state: np.ndarray
    terminal: bool
    """Nothing follows; a truncated episode goes on."""
    improved: np.ndarray
    """The executed action, or the better one that was found for it."""
    baseline: float
    """What uniform ranks would have earned in the same state; 0 where nobody tried them."""


@final
class RefinedActions(VecEnvWrapper):
    """`AllocationEnv`s whose action is the prior's.

    What they pay is the reward beyond uniform's in the same state. That takes the luck of the channel out of the signal
    and, being the same for every action of a state, leaves the best action of a one-step episode where it was.

    Args:
        envs: A vector of `AllocationEnv`.
        refine: Frozen while a rollout runs; None executes the coarse action as it is.
        improver: Finds what a refiner is to learn from each action; None leaves the executed one.
        rng: Draws the sampler's noise and the improver's proposals; may be replaced between rollouts.
        remember: Transitions kept for the refiner's training.
        against_uniform: Try uniform ranks beside every action; without, what is paid is the reward itself.
    """

    def __init__(
        self,
        envs: DummyVecEnv,
        prior: Prior,
        refine: Refine | None,
        improver: Improver | None,
        *,
        rng: np.random.Generator,
        remember: int = 10_000,
        against_uniform: bool = True,
    ) -> None:
        super().__init__(envs, action_space=prior.space)
        self.prior, self.improver, self.remember = prior, improver, remember
        self.replay: list[Transition] = []
        self.rng = rng
        self._refine, self._against_uniform = refine, against_uniform
        self._allocations: Sequence[AllocationEnv] = envs.envs  # type: ignore[assignment]
        self._caps = np.array(self._allocations[0].caps.ranks)

    def reset(self) -> VecEnvObs:
        self._states = np.array(self.venv.reset())
        return self._states

    def step_async(self, actions: np.ndarray) -> None:
        """Refine the coarse actions, and find better ones and uniform's rewards while the states still stand."""
        condition = self.prior.condition(actions)
        self._raw, self._coarse = np.array(actions), self.prior.spread(condition)
        self._refined = self._coarse if self._refine is None else self._refine(self._states, condition, self.rng)
        uniforms = [env.execute(env.caps) for env in self._allocations] if self._against_uniform else []
        self._baselines = [uniform.reward for uniform in uniforms] or [0.0] * self.num_envs
        self._better: list[Executed | None] = [None] * self.num_envs
        if self.improver is not None:
            self._better = [
                self.improver.best(env, env.asked(refined), uniform, self.rng)
                for env, refined, uniform in zip(self._allocations, self._refined, uniforms, strict=True)
            ]
        self.venv.step_async(self._refined)

    def step_wait(self) -> VecEnvStepReturn:
        """Remember each transition.

        Raises:
            ModelError: a reward is not finite.
        """
        before = self._states
        states, rewards, dones, infos = self.venv.step_wait()
        self._states = np.array(states)
        for row, info in enumerate(infos):
            taken: Executed = info["executed"]
            if not np.isfinite(taken.reward):
                found = (
                    f"the reward of ranks {list(taken.ranks.ranks)[:8]}... is {taken.reward} (loss {taken.trial.loss})"
                )
                raise ModelError(f"{found}; expected a finite number; measure the losses anew, or train more gently")
            better = self._better[row]
            improved = better if better is not None and better.reward > taken.reward else taken
            self.replay.append(
                Transition(
                    state=before[row],
                    raw=self._raw[row],
                    coarse=self._coarse[row],
                    refined=self._refined[row],
                    executed=self._encoded(taken.ranks),
                    reward=taken.reward,
                    next_state=info["terminal_observation"] if dones[row] else self._states[row],
                    terminal=bool(dones[row]) and not info.get("TimeLimit.truncated", False),
                    improved=self._encoded(improved.ranks),
                    baseline=self._baselines[row],
                )
            )
        del self.replay[: -self.remember]
        return self._states, rewards - np.array(self._baselines, dtype=np.float32), dones, infos

    def collect(self, steps: int) -> None:
        """Act without PPO for this many environment steps, over all environments, from where they stand."""
        nothing = np.zeros((self.num_envs, *self.action_space.shape), dtype=np.float32)  # type: ignore[misc]
        for _ in range(steps // self.num_envs):
            self.step(nothing)

    def stacked(self, act: Callable[[np.ndarray], np.ndarray] | None) -> Replay:
        """The remembered transitions as arrays; `act` is PPO's answer to states, None without PPO."""
        after = np.stack([t.next_state for t in self.replay])
        following = np.zeros((len(after), 0)) if act is None else act(after)

        def rows(of: Callable[[Transition], object]) -> np.ndarray:
            return np.array([of(transition) for transition in self.replay], dtype=np.float32)

        return Replay(
            state=rows(lambda t: t.state),
            condition=self.prior.condition(np.stack([t.raw for t in self.replay])),
            executed=rows(lambda t: t.executed),
            improved=rows(lambda t: t.improved),
            advantage=rows(lambda t: t.reward - t.baseline),
            next_state=after,
            next_condition=self.prior.condition(following),
            terminal=rows(lambda t: t.terminal),
        )

    def _encoded(self, ranks: RankVector) -> np.ndarray:
        return encode(np.array(ranks.ranks), self._caps)
