"""A reward surrogate: predicts the loss of an allocation from measured ones, so that a policy trains by the thousand.

It proposes and never reports: no number a run prints comes from it. Knows ranks and losses; not models or links.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm.allocation import Trial

RIDGE = 1e-2
"""Pull of every coefficient towards 0, per measurement, after features are scaled to [0, 1]."""


class LossSurrogate:
    """Loss as a constant plus non-negative parts that fall as ranks rise.

    For each site: a part that is lost at rank 0, one that falls as 1 / (1 + r), and one that falls linearly to the cap;
    the same three averaged over each layer, each kind of module and the whole adapter, which carry what the sites have
    in common. Coefficients are non-negative least squares with a ridge: more rank never predicts a larger loss.

    Args:
        caps: Largest rank of each site.
        groups: Index of each site's group, one row per grouping, shape ``(groupings, sites)``: layers, kinds, say.
    """

    def __init__(self, caps: RankVector, groups: Sequence[Sequence[int]] = ()) -> None:
        self._caps = np.array(caps.ranks, dtype=float)
        sites = len(caps)
        rows = [np.eye(sites)]
        for grouping in groups:
            members = np.array(grouping)
            rows += [(members == index)[None] / np.sum(members == index) for index in np.unique(members)]
        rows.append(np.full((1, sites), 1 / sites))
        self._pool = np.concatenate(rows)

    def features(self, ranks: np.ndarray) -> np.ndarray:
        """Shape ``(n, sites)`` -> ``(n, features)``, each in [0, 1], 0 at the caps, falling in every rank."""
        caps = np.maximum(1.0, self._caps)
        floor = 1 / (1 + caps)
        parts = (ranks == 0, (1 / (1 + ranks) - floor) / (1 - floor), (caps - ranks) / caps)
        return np.concatenate([part @ self._pool.T for part in parts], axis=1)

    def fit(self, trials: Sequence[Trial]) -> LossSurrogate:
        """Learn from measured trials.

        Raises:
            ConfigError: fewer than two trials.
        """
        if len(trials) < 2:
            raise ConfigError(f"the surrogate was given {len(trials)} measurements; measure at least 2 allocations")
        ranks = np.array([trial.ranks.ranks for trial in trials], dtype=float)
        losses = np.array([trial.loss for trial in trials])
        inputs = self.features(ranks)
        self._base = float(losses.min())
        ridge = np.sqrt(RIDGE) * np.eye(inputs.shape[1] + 1)
        ridge[-1, -1] = 0.0  # the constant is free
        design = np.concatenate([np.column_stack([inputs, np.ones(len(inputs))]), ridge])
        spread = max(float(losses.std()), 1e-9)
        target = np.concatenate([(losses - self._base) / spread, np.zeros(len(ridge))])
        self._coefficients = nnls(design, target, maxiter=50 * design.shape[1])[0] * spread
        return self

    def predict(self, ranks: np.ndarray) -> np.ndarray:
        """Predicted losses of rank vectors, shape ``(n, sites)`` -> ``(n,)``."""
        inputs = self.features(np.atleast_2d(np.asarray(ranks, dtype=float)))
        return self._base + inputs @ self._coefficients[:-1] + self._coefficients[-1]

    def try_ranks(self, ranks: RankVector) -> Trial:
        """The environment's view: a trial that was predicted, not measured."""
        return Trial(ranks, float(self.predict(np.array(ranks.ranks))[0]), measured=False)


def held_out_error(surrogate: LossSurrogate, trials: Sequence[Trial], folds: int = 5) -> tuple[float, float]:
    """Cross-validated error of the surrogate: root mean square in nat, and share of variance explained (R^2).

    Refits the surrogate on all trials before it returns.
    """
    losses = np.array([trial.loss for trial in trials])
    predicted = np.zeros_like(losses)
    for fold in range(folds):
        held = np.arange(len(trials)) % folds == fold
        surrogate.fit([trial for trial, out in zip(trials, held, strict=True) if not out])
        predicted[held] = surrogate.predict(
            np.array([t.ranks.ranks for t, out in zip(trials, held, strict=True) if out])
        )
    surrogate.fit(trials)
    residual = losses - predicted
    variance = float(((losses - losses.mean()) ** 2).mean())
    return float(np.sqrt((residual**2).mean())), 1 - float((residual**2).mean()) / max(variance, 1e-18)


def probes(caps: RankVector, budgets: Sequence[float], count: int, rng: np.random.Generator) -> list[RankVector]:
    """Draw allocations worth measuring: around every budget, shaped by site, by layer, by kind, and uniform.

    Args:
        budgets: Shares of the full adapter, in (0, 1], that allocations will be asked for.
    """
    top = np.array(caps.ranks, dtype=float)
    drawn = [caps]
    while len(drawn) < count:
        share = budgets[len(drawn) % len(budgets)] * rng.uniform(0.7, 1.4)
        spread = rng.choice([0.0, 0.5, 1.0])
        weights = np.exp(spread * rng.normal(size=len(top)))
        weights[rng.random(len(top)) < rng.choice([0.0, 0.1])] = 0.0
        ranks = share * top * weights / max(float(weights.mean()), 1e-9)
        drawn.append(RankVector.of(np.clip(np.floor(ranks + rng.random(len(top))), 0, top)))
    return drawn
