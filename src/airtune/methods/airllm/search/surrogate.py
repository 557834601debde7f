"""A reward surrogate: predicts the loss of an allocation, and how far off that may be, from measured ones.

It proposes: no row of a result comes from it. Knows ranks and losses; not models or links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.stats import norm, spearmanr

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm.allocation import Trial
from airtune.methods.airllm.search.direction_gains import DirectionGains
from airtune.methods.airllm.search.gaussian_process import GaussianProcess

COVERED = 0.9
"""Share of measured losses that the interval of a prediction should hold."""
SMALLEST_SPREAD = 1e-9


@final
class LossSurrogate:
    """A Gaussian process over rank vectors.

    A site's rank enters as two numbers: whether it is above 0, and log2(1 + r) as a share of log2(1 + cap). They stand
    for themselves, and averaged over each layer, each kind of module and the whole adapter: sites that were rarely
    measured take after their group. The linear part of the kernel says what ranks are worth, the squared exponential
    part how sites depend on each other. More rank may predict a larger loss, where that was measured. Where gradients
    have said what directions are worth, their sum is one number more: how much of it is true is learned like the rest.

    Args:
        caps: Largest rank of each site, at least 1.
        groups: Index of each site's group, one row per grouping, shape ``(groupings, sites)``: layers, kinds, say.
        gains: What directions are held to lower the loss by.
    """

    def __init__(
        self, caps: RankVector, groups: Sequence[Sequence[int]] = (), gains: DirectionGains | None = None
    ) -> None:
        self._gains = gains
        self._scale = 1 / np.log2(1 + np.array(caps.ranks))
        pools = [np.eye(len(caps))]
        for grouping in (*groups, (0,) * len(caps)):
            members = np.array(grouping)
            pools.append(np.stack([(members == index) / np.sum(members == index) for index in np.unique(members)]))
        self._pool = np.concatenate(pools).T
        self._group_of = np.tile(np.repeat(np.arange(len(pools)), [len(pool) for pool in pools]), 2)
        if gains is not None:
            self._group_of = np.append(self._group_of, len(pools))

    def features(self, ranks: np.ndarray) -> np.ndarray:
        """Shape ``(n, sites)`` -> ``(n, 2 * pools)``, each in [0, 1], 0 at rank 0 and 1 at the caps; then gains."""
        found = [(ranks > 0) @ self._pool, np.log2(1 + ranks) * self._scale @ self._pool]
        return np.concatenate([*found, *([] if self._gains is None else [self._gains.of(ranks)[:, None]])], axis=1)

    def fit(self, trials: Sequence[Trial]) -> LossSurrogate:
        """Learn from measured trials.

        Raises:
            ConfigError: fewer than two trials.
        """
        if len(trials) < 2:
            raise ConfigError(f"the surrogate was given {len(trials)} measurements; measure at least 2 allocations")
        losses = np.array([trial.loss for trial in trials])
        found = self.features(np.array([trial.ranks.ranks for trial in trials]))
        spreads = [
            found[:, self._group_of == group].var(axis=0).sum() ** 0.5 for group in range(self._group_of[-1] + 1)
        ]
        self._centre, self._stretch = found.mean(axis=0), 1 / np.maximum(spreads, SMALLEST_SPREAD)[self._group_of]
        self._mean, self._spread = float(losses.mean()), max(float(losses.std()), SMALLEST_SPREAD)
        self._process = GaussianProcess(
            (found - self._centre) * self._stretch, self._group_of, (losses - self._mean) / self._spread
        )
        return self

    def predict(self, ranks: np.ndarray) -> np.ndarray:
        """Predicted losses of rank vectors, shape ``(n, sites)`` -> ``(n,)``."""
        return self._mean + self._spread * self._process.mean(self._inputs(ranks))

    def deviation(self, ranks: np.ndarray) -> np.ndarray:
        """Standard deviation of a measured loss about its prediction, in nat, ``(n, sites)`` -> ``(n,)``."""
        return self._spread * self._process.deviation(self._inputs(ranks))

    def try_ranks(self, ranks: RankVector) -> Trial:
        """The environment's view: a trial that was predicted, not measured."""
        return Trial(ranks, float(self.predict(np.array(ranks.ranks))[0]), measured=False)

    def _inputs(self, ranks: np.ndarray) -> np.ndarray:
        return (self.features(np.atleast_2d(np.asarray(ranks))) - self._centre) * self._stretch


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How well losses are predicted that a surrogate was not fitted to."""

    rmse: float
    """Root mean square error in nat."""
    r2: float
    """Share of the variance explained."""
    rank_correlation: float
    """Spearman's, of predicted with measured losses."""
    coverage: float
    """Share of losses within the interval that should hold `COVERED` of them."""


def held_out(surrogate: LossSurrogate, trials: Sequence[Trial], folds: int = 5) -> Fidelity:
    """Cross-validate: trial i is predicted from those of other folds than i mod `folds`.

    Leaves the surrogate fitted to all trials.

    Raises:
        ConfigError: fewer than three trials.
    """
    folds = min(folds, len(trials))
    fold_of = np.arange(len(trials)) % max(folds, 1)
    losses = np.array([trial.loss for trial in trials])
    ranks = np.array([trial.ranks.ranks for trial in trials])
    predicted, deviation = np.zeros_like(losses), np.zeros_like(losses)
    for fold in range(folds):
        held = fold_of == fold
        surrogate.fit([trial for trial, out in zip(trials, held, strict=True) if not out])
        predicted[held], deviation[held] = surrogate.predict(ranks[held]), surrogate.deviation(ranks[held])
    surrogate.fit(trials)
    return fidelity(predicted, deviation, losses)


def fidelity(predicted: np.ndarray, deviation: np.ndarray, losses: np.ndarray) -> Fidelity:
    """Compare predictions with what was measured, all of shape ``(n,)``."""
    error = float(((losses - predicted) ** 2).mean())
    varies = min(np.ptp(losses), np.ptp(predicted)) > 0
    within = np.abs(losses - predicted) <= norm.ppf((1 + COVERED) / 2) * deviation
    return Fidelity(
        error**0.5,
        1 - error / max(float(losses.var()), SMALLEST_SPREAD**2),
        float(spearmanr(predicted, losses).statistic) if varies else 0.0,
        float(within.mean()),
    )
