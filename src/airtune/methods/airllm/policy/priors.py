"""What PPO decides: one value per layer plus one per kind of module, or a rank per site; what the refiner is told.

Knows coarse actions as numbers; neither PPO nor the refiner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import gymnasium
import numpy as np

from airtune.adapters import RankVector
from airtune.methods.airllm.encoding import encode

if TYPE_CHECKING:
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

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        """The most probable actions, from the outputs ``(n, ...)`` of PPO's actor network."""
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
        return cls.of_modules([(site.layer, site.module) for site in sites])

    @classmethod
    def of_modules(cls, modules: Sequence[tuple[int, str]]) -> CoarseLatent:
        """From the layer and the kind of module of every site."""
        layers = sorted({layer for layer, _ in modules})
        kinds = list(dict.fromkeys(kind for _, kind in modules))
        return cls(tuple(layers.index(layer) for layer, _ in modules), tuple(kinds.index(kind) for _, kind in modules))

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

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        """The mean of the Gaussian is the output itself."""
        return outputs


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

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        """Each head's largest logit; a head has cap + 1."""
        heads = np.split(outputs, np.cumsum(np.array(self.caps.ranks) + 1)[:-1], axis=1)
        return np.stack([head.argmax(axis=1) for head in heads], axis=1)


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

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return np.zeros((len(outputs), 0), dtype=np.float32)
