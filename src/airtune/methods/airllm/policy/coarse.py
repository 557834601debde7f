"""The coarse policy: PPO over a prior's actions (Eqs. 11-12).

PPO is stable-baselines3's, unmodified: it sees environments whose action is the coarse one, and stores the raw action
it emitted. Knows coarse actions and states; not what becomes of them further on.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from airtune.errors import ConfigError


class CoarsePolicy:
    """pi_theta with its value function V_phi, trained by PPO (Eq. 12: -J_CLIP + c1 J_V - c2 entropy, for descent).

    Args:
        envs: Environments whose action is the prior's, side by side.
        steps: Environment steps of one rollout, over all of them.
        width: Hidden width of the two-layer networks.
        seed: Seeds the networks, the environments and the sampling of actions.

    Raises:
        ConfigError: the environments do not share the steps evenly.
    """

    def __init__(
        self,
        envs: VecEnv,
        *,
        steps: int,
        width: int,
        learning_rate: float,
        epochs: int,
        clip: float,
        gamma: float,
        gae_lambda: float,
        entropy_weight: float,
        seed: int,
    ) -> None:
        if steps % envs.num_envs:
            raise ConfigError(f"{steps} steps of a rollout in {envs.num_envs} environments; choose a multiple of these")
        continuous = {"log_std_init": -0.5} if isinstance(envs.action_space, gymnasium.spaces.Box) else {}
        self._steps = steps
        self._ppo = PPO(
            "MlpPolicy",
            envs,
            learning_rate=learning_rate,
            n_steps=steps // envs.num_envs,
            batch_size=min(64, steps),
            n_epochs=epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip,
            ent_coef=entropy_weight,
            vf_coef=0.5,
            policy_kwargs={"net_arch": [width, width], **continuous},
            seed=seed,
            device="cpu",
        )
        self._ppo.set_logger(Logger(folder=None, output_formats=[]))  # its own makes a folder in /tmp for every PPO

    @property
    def networks(self) -> nn.Module:
        """Actor and value function."""
        return self._ppo.policy

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        return self._ppo.policy.optimizer

    def begin(self, seed: int) -> None:
        """Start the next rollout in a fresh episode, with all that is drawn in it drawn from `seed`.

        It is the global generators that are seeded, for stable-baselines3 draws from them.
        """
        self._ppo.set_random_seed(seed)
        self._ppo._last_obs = None  # makes the next rollout reset the environments

    def learn(self) -> None:
        """One rollout and its PPO epochs (Algorithm 1, lines 3-16).

        Raises:
            ConfigError: the policy is no longer finite.
        """
        try:
            self._ppo.learn(self._steps, reset_num_timesteps=False)
        except ValueError as error:  # torch refuses a distribution whose parameters are not finite
            raise ConfigError(
                "PPO diverged: its policy is no longer finite; lower policy.ppo_learning_rate or policy.cost_weight"
            ) from error

    def act(self, states: np.ndarray) -> np.ndarray:
        """The mean latent (or each head's most probable rank) for each state, ``(n, d_s)`` -> ``(n, ...)``."""
        return np.asarray(self._ppo.predict(states, deterministic=True)[0])

    def actor(self) -> dict[str, torch.Tensor]:
        """The actor network's layers, `actor.I.weight` and `.bias`, tanh between them; its output is the mean action,
        or the logits of all heads in a row."""
        policy: Any = self._ppo.policy
        layers = [module for module in policy.mlp_extractor.policy_net if isinstance(module, nn.Linear)]
        return {
            f"actor.{index}.{name}": value
            for index, layer in enumerate([*layers, policy.action_net])
            for name, value in layer.state_dict().items()
        }
