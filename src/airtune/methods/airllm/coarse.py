"""The coarse policy: PPO over one value per layer plus one per kind of module (Eqs. 11-12).

PPO is stable-baselines3's, unmodified: it sees an environment whose action is the latent, and stores the raw latent
it emitted. Knows latents and states; not what becomes of a latent further on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from airtune.errors import ConfigError
from airtune.models import Site


@dataclass(frozen=True, slots=True)
class CoarseLatent:
    """a_t^out: one value per layer, then one per kind of module; a site's coarse value is their sum.

    12 values for 6 x 6 sites, 30 for OPT-1.3B's 24 x 6, so that PPO never faces one dimension per site.
    """

    layer_of: tuple[int, ...]
    """Index of each site's layer."""
    kind_of: tuple[int, ...]
    """Index of each site's kind of module."""

    @classmethod
    def of(cls, sites: Sequence[Site]) -> CoarseLatent:
        layers = sorted({site.layer for site in sites})
        kinds = list(dict.fromkeys(site.module for site in sites))
        return cls(tuple(layers.index(site.layer) for site in sites), tuple(kinds.index(site.module) for site in sites))

    @property
    def size(self) -> int:
        return max(self.layer_of) + max(self.kind_of) + 2

    def spread(self, latent: np.ndarray) -> np.ndarray:
        """Latents ``(..., size)`` to normalised coarse ranks ``(..., sites)`` in [-1, 1]."""
        latent = np.asarray(latent, dtype=np.float32)
        layers = latent[..., list(self.layer_of)]
        kinds = latent[..., [max(self.layer_of) + 1 + kind for kind in self.kind_of]]
        return np.clip(layers + kinds, -1, 1)


class CoarsePolicy:
    """pi_theta with its value function V_phi, trained by PPO (Eq. 12: -J_CLIP + c1 J_V - c2 entropy, for descent).

    Args:
        env: Environment whose action is the latent.
        steps: Environment steps of one rollout.
        width: Hidden width of the two-layer networks.
        seed: Seeds the networks, the environment and the sampling of latents.
    """

    def __init__(
        self,
        env: gymnasium.Env,
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
        self._ppo = PPO(
            "MlpPolicy",
            DummyVecEnv([lambda: env]),
            learning_rate=learning_rate,
            n_steps=steps,
            batch_size=min(64, steps),
            n_epochs=epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip,
            ent_coef=entropy_weight,
            vf_coef=0.5,
            policy_kwargs={"net_arch": [width, width], "log_std_init": -0.5},
            seed=seed,
            device="cpu",
        )

    def learn(self) -> None:
        """One rollout and its PPO epochs (Algorithm 1, lines 3-16).

        Raises:
            ConfigError: the policy is no longer finite.
        """
        try:
            self._ppo.learn(self._ppo.n_steps, reset_num_timesteps=False)
        except ValueError as error:  # torch refuses a distribution whose parameters are not finite
            raise ConfigError(
                "PPO diverged: its policy is no longer finite; lower policy.ppo_learning_rate or policy.cost_weight"
            ) from error

    def act(self, states: np.ndarray) -> np.ndarray:
        """The mean latent for each state, ``(n, d_s)`` -> ``(n, size)``, clipped to [-1, 1]."""
        return np.asarray(self._ppo.predict(states, deterministic=True)[0], dtype=np.float32)
