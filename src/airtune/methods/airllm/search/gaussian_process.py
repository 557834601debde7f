"""Gaussian process regression with a linear and a squared exponential part (Rasmussen and Williams 2006, ch. 2 and 5).

Knows features in groups; not ranks or losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky
from scipy.optimize import minimize

PRIOR_MEANS = {"linear": -2.0, "decay": -3.0, "amplitude": -1.0, "noise": -5.0}
"""Middle of each parameter's normal prior, in logarithms: for groups of features, and targets, of variance 1."""
PRIOR_WIDTHS = {"linear": 2.0, "decay": 1.5, "amplitude": 1.5, "noise": 2.0}
"""Standard deviations of these priors: weak, but they keep a parameter in place that the targets say nothing about."""
JITTER = 1e-6
IMPOSSIBLE = 1e6
"""Minus log evidence of a kernel whose covariance rounding makes indefinite or infinite: worse than any other."""
ITERATIONS = 60


@dataclass(frozen=True, slots=True)
class Kernel:
    """k(x, x') = sum_g linear_g <x_g, x'_g> + amplitude exp(-sum_g decay_g |x_g - x'_g|^2), over groups of features."""

    linear: np.ndarray
    decay: np.ndarray
    amplitude: float
    noise: float
    """Variance of a target about the function."""

    @classmethod
    def of(cls, logs: np.ndarray) -> Kernel:
        """From logarithms in the order of the fields, shape ``(2 groups + 2,)``."""
        linear, decay = np.exp(logs[:-2]).reshape(2, -1)
        amplitude, noise = np.exp(logs[-2:]).tolist()
        return cls(linear, decay, amplitude, noise)


@final
class GaussianProcess:
    """A posterior over functions, its kernel found by evidence times prior.

    Args:
        inputs: ``(points, features)``, centred.
        group_of: Group index of each feature, ``(features,)``.
        targets: ``(points,)``, centred.
    """

    def __init__(self, inputs: np.ndarray, group_of: np.ndarray, targets: np.ndarray) -> None:
        objective = Objective(inputs, group_of, targets)
        found = minimize(objective, objective.middle, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
        self.kernel = kernel = Kernel.of(found.x)
        self._linear, self._stretch = kernel.linear[group_of], np.sqrt(kernel.decay[group_of])
        self._inputs, self._stretched = inputs, inputs * self._stretch
        self._squares = (self._stretched**2).sum(1)
        covariance = inputs * self._linear @ inputs.T + self._smooth(inputs)
        self._factor = cholesky(covariance + (kernel.noise + JITTER) * np.eye(len(targets)), lower=True)
        self._weights = cho_solve((self._factor, True), targets)
        self._slopes = self._linear * (inputs.T @ self._weights)

    def mean(self, points: np.ndarray) -> np.ndarray:
        """Posterior mean at points ``(n, features)`` -> ``(n,)`` (their Eq. 2.25)."""
        return np.asarray(points @ self._slopes + self._smooth(points) @ self._weights)

    def deviation(self, points: np.ndarray) -> np.ndarray:
        """Standard deviation ``(n,)`` of targets to come: that of the posterior (Eq. 2.26) and the noise."""
        across = points * self._linear @ self._inputs.T + self._smooth(points)
        explained = (across * cho_solve((self._factor, True), across.T).T).sum(1)
        prior = (points**2) @ self._linear + self.kernel.amplitude
        return np.asarray(np.sqrt(np.maximum(prior - explained, 0) + self.kernel.noise))

    def _smooth(self, points: np.ndarray) -> np.ndarray:
        stretched = points * self._stretch
        distances = (stretched**2).sum(1)[:, None] + self._squares - 2 * stretched @ self._stretched.T
        return np.asarray(self.kernel.amplitude * np.exp(-np.maximum(distances, 0)))


@final
class Objective:
    """Minus log evidence (Eq. 5.8, without its constant) and log prior of a kernel's logarithms, with gradient."""

    def __init__(self, inputs: np.ndarray, group_of: np.ndarray, targets: np.ndarray) -> None:
        self._targets = targets
        groups = [inputs[:, group_of == group] for group in np.unique(group_of)]
        self._products = np.stack([group @ group.T for group in groups])
        squares = np.einsum("gii->gi", self._products)
        self._distances = np.maximum(squares[:, :, None] + squares[:, None, :] - 2 * self._products, 0)
        order = [*["linear"] * len(groups), *["decay"] * len(groups), "amplitude", "noise"]
        self.middle = np.array([PRIOR_MEANS[name] for name in order])
        self._widths = np.array([PRIOR_WIDTHS[name] for name in order])

    def __call__(self, logs: np.ndarray) -> tuple[float, np.ndarray]:
        away = (logs - self.middle) / self._widths
        try:
            with np.errstate(over="raise", invalid="raise"):
                value, gradient = self._evidence(Kernel.of(logs))
        except (LinAlgError, FloatingPointError):  # a line search that steps too far; the prior points back
            value, gradient = IMPOSSIBLE, np.zeros_like(logs)
        return float(value + away @ away / 2), gradient + away / self._widths

    def _evidence(self, kernel: Kernel) -> tuple[float, np.ndarray]:
        identity = np.eye(len(self._targets))
        smooth = kernel.amplitude * np.exp(-np.tensordot(kernel.decay, self._distances, 1))
        covariance = np.tensordot(kernel.linear, self._products, 1) + smooth + (kernel.noise + JITTER) * identity
        if not np.isfinite(covariance).all():
            raise LinAlgError("the covariance is not finite")
        factor = cholesky(covariance, lower=True)
        inverse = cho_solve((factor, True), identity)
        weights = inverse @ self._targets
        slope = (inverse - np.outer(weights, weights)) / 2  # by the covariance (Eq. 5.9)
        by_linear = kernel.linear * np.tensordot(self._products, slope, 2)
        by_decay = -kernel.decay * np.tensordot(self._distances, slope * smooth, 2)
        gradient = np.concatenate([by_linear, by_decay, [(slope * smooth).sum(), kernel.noise * np.trace(slope)]])
        return self._targets @ weights / 2 + np.log(np.diag(factor)).sum(), gradient
