"""A reward surrogate: predicts the loss of an allocation from measured ones, so that a policy trains by the thousand.

It proposes: no row of a result comes from it. Knows ranks and losses; not models or links.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm.allocation import Trial

RIDGE = 1e-2
"""Weight of a coefficient's square beside a measurement's squared error, both in standard deviations of the losses."""
PARTS = 3
"""Parts that each site's rank contributes."""


class LossSurrogate:
    """Loss as a constant plus non-negative parts that fall as ranks rise.

    For each site: a part that is lost at rank 0, one that falls as 1 / (1 + r), and one that falls linearly to the cap;
    the same three averaged over each layer, each kind of module and the whole adapter, which carry what the sites have
    in common. Coefficients are non-negative least squares with a ridge: more rank never predicts a larger loss. The
    constant is free.

    Args:
        caps: Largest rank of each site, at least 1.
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
        return np.concatenate([part @ self._pool.T for part in self._parts(ranks)], axis=1)

    def _parts(self, ranks: np.ndarray) -> tuple[np.ndarray, ...]:
        floor = 1 / (1 + self._caps)
        return ranks == 0, (1 / (1 + ranks) - floor) / (1 - floor), (self._caps - ranks) / self._caps

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
        centre, spread = inputs.mean(axis=0), max(float(losses.std()), 1e-9)  # centred: no constant to fit
        design = np.concatenate([inputs - centre, np.sqrt(RIDGE) * np.eye(len(centre))])
        target = np.concatenate([(losses - losses.mean()) / spread, np.zeros(len(centre))])
        coefficients = nnls(design, target, maxiter=50 * len(centre))[0] * spread
        self._constant = float(losses.mean() - centre @ coefficients)
        self._weights = coefficients.reshape(PARTS, -1) @ self._pool  # of each part at each site, pooled ones included
        return self

    def predict(self, ranks: np.ndarray) -> np.ndarray:
        """Predicted losses of rank vectors, shape ``(n, sites)`` -> ``(n,)``."""
        parts = self._parts(np.atleast_2d(np.asarray(ranks, dtype=float)))
        return self._constant + sum(part @ weights for part, weights in zip(parts, self._weights, strict=True))

    def try_ranks(self, ranks: RankVector) -> Trial:
        """The environment's view: a trial that was predicted, not measured."""
        return Trial(ranks, float(self.predict(np.array(ranks.ranks))[0]), measured=False)


def held_out_error(surrogate: LossSurrogate, trials: Sequence[Trial], folds: int = 5) -> tuple[float, float]:
    """Cross-validated error of the surrogate: root mean square in nat, and share of variance explained (R^2).

    Trial i is predicted from those of other folds than i mod `folds`. Leaves the surrogate fitted to all trials.

    Raises:
        ConfigError: fewer than three trials.
    """
    folds = min(folds, len(trials))
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
    """Draw allocations worth measuring: the full adapter, then some around every budget, even and uneven.

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
