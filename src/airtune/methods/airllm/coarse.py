"""The coarse policy: PPO over one value per layer plus one per kind of module, or over discrete heads (Eqs. 11-12).

PPO is stable-baselines3's, unmodified: it sees environments whose action is the coarse one, and stores the raw action
it emitted. Knows coarse actions and states; not what becomes of them further on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm.encoding import encode
from airtune.models import Site

WIDE = 10.0
"""Bound of PPO's latent space, to which stable-baselines3 clips what it hands on: so wide, that is the raw latent."""


class Prior(Protocol):
    """What PPO decides, and what the refiner is told of it."""

    @property
    def size(self) -> int:
        """Numbers of a coarse action as the refiner's condition."""
        ...

    @property
    def space(self) -> gymnasium.Space:
        """PPO's action space."""
        ...

    def condition(self, actions: np.ndarray) -> np.ndarray:
        """PPO's actions ``(n, ...)`` as ``(n, size)`` numbers in [-1, 1]."""
        ...

    def spread(self, condition: np.ndarray) -> np.ndarray:
        """Those as normalised coarse ranks ``(n, sites)`` in [-1, 1]."""
        ...


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

    @property
    def space(self) -> gymnasium.Space:
        return gymnasium.spaces.Box(-WIDE, WIDE, (self.size,), np.float32)

    def condition(self, actions: np.ndarray) -> np.ndarray:
        """Raw latents ``(n, size)``, clipped to [-1, 1]."""
        return np.clip(np.asarray(actions, dtype=np.float32), -1, 1)

    def spread(self, latent: np.ndarray) -> np.ndarray:
        """Latents ``(..., size)`` to normalised coarse ranks ``(..., sites)`` in [-1, 1]."""
        latent = np.asarray(latent, dtype=np.float32)
        layers = latent[..., list(self.layer_of)]
        kinds = latent[..., [max(self.layer_of) + 1 + kind for kind in self.kind_of]]
        return np.clip(layers + kinds, -1, 1)


@dataclass(frozen=True, slots=True)
class DiscreteHeads:
    """The paper's other reading of a_t: one categorical head per site over the ranks 0..cap (section IV-A.2).

    A refiner is told the chosen ranks, normalised: one-hot would be sites x (r_max + 1) numbers.
    """

    caps: RankVector

    @property
    def size(self) -> int:
        return len(self.caps)

    @property
    def space(self) -> gymnasium.Space:
        return gymnasium.spaces.MultiDiscrete(np.array(self.caps.ranks) + 1)

    def condition(self, actions: np.ndarray) -> np.ndarray:
        """Ranks ``(n, sites)``, normalised."""
        return encode(np.asarray(actions, dtype=np.int64), np.array(self.caps.ranks))

    def spread(self, condition: np.ndarray) -> np.ndarray:
        return condition


@dataclass(frozen=True, slots=True)
class NoPrior:
    """No PPO: the refiner is told the state alone."""

    sites: int
    size: int = 0

    @property
    def space(self) -> gymnasium.Space:
        return gymnasium.spaces.Box(-1.0, 1.0, (0,), np.float32)

    def condition(self, actions: np.ndarray) -> np.ndarray:
        return np.zeros((len(actions), 0), dtype=np.float32)

    def spread(self, condition: np.ndarray) -> np.ndarray:
        """Half of every cap: no opinion."""
        return np.zeros((len(condition), self.sites), dtype=np.float32)


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
