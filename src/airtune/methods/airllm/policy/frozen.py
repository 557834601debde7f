"""A trained policy, frozen: decides in plain numpy, so that no torch has to load for one decision (Eqs. 11, 15, 17).

PPO's mean action from its actor network, then the DDIM over the residual MLP, with every step's coefficients and time
embedding already worked out. Knows arrays; neither how they were trained nor what they are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from airtune.errors import ConfigError
from airtune.methods.airllm.policy.priors import Prior

Array = NDArray[np.float32]
COEFFICIENTS = ("clean_x", "clean_p", "keep", "move_x", "move_p")
"""Columns of `refiner.steps`. With x0 = clip(clean_x x + clean_p p): x' = keep x0 + move_x x + move_p p."""
EPSILON = 1e-5
"""Of the layer norms, as torch has it."""


@final
@dataclass(frozen=True)
class FrozenPolicy:
    """Acts like the policy it was frozen from, to float32's rounding.

    Args:
        prior: How PPO's action is read.
        guidance: Weight of classifier-free guidance; 1 is plain conditional sampling.
        arrays: | name | shape |
                |------|-------|
                | `actor.I.weight`, `actor.I.bias` | PPO's layers, tanh between them; absent without PPO |
                | `refiner.null` | ``(condition,)``; this and all below absent where PPO decides alone |
                | `refiner.steps` | ``(T_diff, 5)``, `COEFFICIENTS` by step visited |
                | `refiner.times` | ``(T_diff, width)``, what each time adds to the first layer |
                | `refiner.enter_x`, `.enter_condition`, `.enter_bias` | first layer, split by its inputs |
                | `refiner.blocks.I.{norm,first,second}.{weight,bias}`, `refiner.leave.{norm,last}.{weight,bias}` | |

    Raises:
        ConfigError: an array is missing, not finite, or of a shape that does not fit the others.
    """

    prior: Prior
    guidance: float
    arrays: Mapping[str, Array]

    def __post_init__(self) -> None:
        for name, values in self.arrays.items():
            if not np.isfinite(values).all():
                raise ConfigError(f"the policy's {name} holds values that are not finite; train the policy anew")
        null, enter = self.arrays.get("refiner.null"), self.arrays.get("refiner.enter_condition")
        if self.refines and (null is None or enter is None or null.shape != enter.shape[1:]):
            raise ConfigError("the policy's null token does not fit its first layer; save the policy anew")

    @property
    def refines(self) -> bool:
        """Whether a refiner follows PPO."""
        return any(name.startswith("refiner.") for name in self.arrays)

    def act(self, states: np.ndarray, noise: np.random.Generator) -> Array:
        """States ``(n, d_s)`` to normalised ranks ``(n, sites)`` in [-1, 1]; noise draws x_T.

        Raises:
            ConfigError: as for the policy itself; the states have another length than it was trained on.
        """
        try:
            condition = self.prior.condition(self._actor(states))
            if not self.refines:
                return self.prior.spread(condition)
            return self._refine(np.concatenate([states, condition], axis=1, dtype=np.float32), noise)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"the policy's arrays do not fit together ({error}); save it anew") from None

    def _actor(self, states: np.ndarray) -> np.ndarray:
        """PPO's mean latent, or every head's most probable rank."""
        hidden, layers = states, sum(name.startswith("actor.") for name in self.arrays) // 2
        if layers == 0:
            return np.zeros((len(states), 0), dtype=np.float32)
        for layer in range(layers):
            hidden = hidden @ self.arrays[f"actor.{layer}.weight"].T + self.arrays[f"actor.{layer}.bias"]
            hidden = np.tanh(hidden) if layer + 1 < layers else hidden
        return self.prior.mode(hidden)

    def _refine(self, condition: Array, noise: np.random.Generator) -> Array:
        a = self.arrays
        x = noise.standard_normal((len(condition), a["refiner.enter_x"].shape[1]), dtype=np.float32)
        guided = self.guidance != 1
        rows = np.stack([np.broadcast_to(a["refiner.null"], condition.shape), condition]) if guided else condition[None]
        known = rows @ a["refiner.enter_condition"].T + a["refiner.enter_bias"]  # (1 or 2, n, width)
        blocks = sum(name.endswith(".first.weight") for name in a)
        for coefficients, time in zip(a["refiner.steps"], a["refiner.times"], strict=True):
            hidden = x @ a["refiner.enter_x"].T + known + time
            for block in range(blocks):
                inner = self._linear(
                    f"refiner.blocks.{block}.first", self._norm(f"refiner.blocks.{block}.norm", hidden)
                )
                hidden = hidden + self._linear(f"refiner.blocks.{block}.second", _silu(inner))
            found = self._linear("refiner.leave.last", _silu(self._norm("refiner.leave.norm", hidden)))
            prediction = found[0] + self.guidance * (found[1] - found[0]) if guided else found[0]
            clean_x, clean_p, keep, move_x, move_p = coefficients
            clean = np.clip(clean_x * x + clean_p * prediction, -1, 1)
            x = keep * clean + move_x * x + move_p * prediction
        return np.clip(x, -1, 1)

    def _linear(self, name: str, x: Array) -> Array:
        return x @ self.arrays[f"{name}.weight"].T + self.arrays[f"{name}.bias"]

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
        return centred / spread * self.arrays[f"{name}.weight"] + self.arrays[f"{name}.bias"]


def _silu(x: Array) -> Array:
    half: Array = 0.5 * x
    return half + half * np.tanh(half)  # the logistic function, without its overflow
