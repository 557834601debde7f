"""One episode of Algorithm 1: T_env steps with the refiner frozen, an update of PPO, then of the refiner.

Everything that an episode draws comes from the seed and its number, so that a resumed run draws what an unbroken one
would have. Knows the environment and its two learners; not that a step of the environment trains a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, final

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from airtune.methods.airllm.allocators import AirLLM, Allocator
from airtune.methods.airllm.environment import AllocationEnv, Decoder
from airtune.methods.airllm.paper.checkpoint import Kept, Tensors, of_module, of_optimiser
from airtune.methods.airllm.policy.priors import CoarseLatent
from airtune.methods.airllm.policy.rollouts import RefinedActions, Transition
from airtune.methods.airllm.policy.settings import PolicyConfig
from airtune.methods.airllm.policy.training import (
    BATCH,
    GAMMA,
    WARM_START_BATCH,
    TrainedPolicy,
    global_generators_kept,
    name_of,
    new_ppo,
    new_prior,
    new_refiner,
)
from airtune.records import generator, seed_for

ARRAYS = ("state", "raw", "coarse", "refined", "executed", "next_state")
"""What a remembered transition holds as arrays, beside its reward."""


class Agent(Protocol):
    """Whoever chooses the ranks of every step."""

    name: str

    @property
    def kept(self) -> Mapping[str, Kept]:
        """What its learning changes."""
        ...

    def episode(self, number: int) -> float:
        """T_env steps of the environment and what is learned from them; returns the refiner's loss, 0 without one."""
        ...

    def allocator(self) -> Allocator:
        """How it decides now."""
        ...


@final
class Algorithm1:
    """PPO and the refiner, without the half that the variant leaves out; the reward is paid as it is.

    Args:
        env: Of horizon T_env; a step may train.
        decoder: As the environment's.
    """

    def __init__(
        self, env: AllocationEnv, latent: CoarseLatent, config: PolicyConfig, *, seed: int, decoder: Decoder
    ) -> None:
        self.name = name_of(config)
        self._env, self._config, self._seed, self._decoder = env, config, seed, decoder
        sites, state_size = len(env.caps), int(env.observation_space.shape[0])  # type: ignore[index]
        self._prior = new_prior(config, latent, env.caps)
        self._refiner, self._coarse = None, None
        with global_generators_kept():
            if config.refiner != "none":
                self._refiner = new_refiner(self._prior, sites, state_size, config, seed)
                rng, updates = generator(seed, "warm-start"), config.warm_start_updates
                self._refiner.warm_start(state_size, updates=updates, batch=WARM_START_BATCH, rng=rng)
            self._envs = RefinedActions(
                DummyVecEnv([lambda: env]),
                self._prior,
                self._refiner.refine if self._refiner is not None else None,
                None,
                rng=generator(seed, "rollouts"),
                against_uniform=False,
            )
            if config.prior != "none":
                self._coarse = new_ppo(self._envs, config, env.horizon, seed)

    @property
    def kept(self) -> Mapping[str, Kept]:
        found = {"replay": Kept(self._give_replay, self._take_replay)}
        if self._coarse is not None:
            found |= {"ppo": of_module(self._coarse.networks), "ppo-optimiser": of_optimiser(self._coarse.optimiser)}
        if self._refiner is not None:
            refiner = self._refiner
            found |= {
                "refiner": of_module(refiner.learning),
                "refiner-average": of_module(refiner.averaged),
                "refiner-optimiser": of_optimiser(refiner.optimiser),
            }
            if refiner.critics is not None:
                found |= {
                    "critics": of_module(refiner.critics),
                    "critics-optimiser": of_optimiser(refiner.critics.optimiser),
                }
        return found

    def episode(self, number: int) -> float:
        config, coarse = self._config, self._coarse
        seed = seed_for(self._seed, "episode", number) % 2**31
        self._envs.rng = generator(self._seed, "rollouts", number)
        with global_generators_kept():  # stable-baselines3 seeds and draws from them
            if coarse is not None:
                coarse.begin(seed)
                coarse.learn()  # lines 2-16
            else:
                self._envs.seed(seed)
                self._envs.reset()
                self._envs.collect(self._env.horizon)
            if self._refiner is None:
                return 0.0
            self._refiner.begin(seed)
            return self._refiner.learn(  # lines 17-21
                self._envs.stacked(coarse.act if coarse is not None else None),
                objective=config.objective,
                kappa=config.kappa,
                gamma=GAMMA,
                updates=config.updates,
                batch=BATCH,
                rng=generator(self._seed, "replay", number),
            )

    def allocator(self) -> AirLLM:
        policy = TrainedPolicy(self._prior, self._coarse, self._refiner)
        return AirLLM(self._env.caps, policy, self._seed, self.name, self._decoder)

    def _give_replay(self) -> Tensors:
        replay = self._envs.replay
        found = {name: torch.from_numpy(np.stack([getattr(t, name) for t in replay])) for name in ARRAYS}
        return found | {"reward": torch.tensor([t.reward for t in replay], dtype=torch.float64)}

    def _take_replay(self, tensors: Tensors) -> None:
        columns = {name: tensors[name].numpy() for name in ARRAYS}
        self._envs.replay = [
            Transition(
                **{name: column[row] for name, column in columns.items()},
                reward=reward,
                improved=columns["executed"][row],
                terminal=False,  # an episode is cut out of an endless task
                baseline=0.0,
            )
            for row, reward in enumerate(tensors["reward"].tolist())
        ]
