"""Evidence against scipy's normal, its gradient against differences, the posterior against conditioning."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal, norm

from airtune.methods.airllm.search.gaussian_process import (
    JITTER,
    PRIOR_MEANS,
    PRIOR_WIDTHS,
    GaussianProcess,
    Kernel,
    Objective,
)

GROUP_OF = np.array([0, 0, 1])


def points(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3))


def covariances(kernel: Kernel, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The kernel written out, pair by pair."""
    found = np.zeros((len(one), len(other)))
    for i, x in enumerate(one):
        for j, y in enumerate(other):
            linear = kernel.linear[0] * (x[0] * y[0] + x[1] * y[1]) + kernel.linear[1] * x[2] * y[2]
            apart = kernel.decay[0] * ((x[0] - y[0]) ** 2 + (x[1] - y[1]) ** 2) + kernel.decay[1] * (x[2] - y[2]) ** 2
            found[i, j] = linear + kernel.amplitude * np.exp(-apart)
    return found


def test_the_objective_is_minus_log_evidence_and_log_prior():
    inputs, logs = points(12, 0), np.array([-1.0, -2.0, -0.5, -3.0, 0.2, -4.0])
    targets = np.random.default_rng(1).normal(size=12)
    kernel = Kernel.of(logs)
    assert (kernel.linear[1], kernel.decay[0], kernel.amplitude) == pytest.approx(np.exp([-2.0, -0.5, 0.2]))
    covariance = covariances(kernel, inputs, inputs) + (np.exp(-4.0) + JITTER) * np.eye(12)
    names = ("linear", "linear", "decay", "decay", "amplitude", "noise")
    prior = sum(norm.logpdf(log, PRIOR_MEANS[name], PRIOR_WIDTHS[name]) for log, name in zip(logs, names, strict=True))
    expected = -multivariate_normal.logpdf(targets, np.zeros(12), covariance) - prior
    constant = 12 / 2 * np.log(2 * np.pi) + sum(np.log(PRIOR_WIDTHS[name] * np.sqrt(2 * np.pi)) for name in names)
    assert Objective(inputs, GROUP_OF, targets)(logs)[0] == pytest.approx(expected - constant)


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_is_that_of_finite_differences(seed):
    rng = np.random.default_rng(seed)
    objective = Objective(points(15, seed), GROUP_OF, rng.normal(size=15))
    logs = rng.normal(-1.5, 1, size=6)
    numeric = approx_fprime(logs, lambda at: objective(at)[0], 1e-6)
    assert objective(logs)[1] == pytest.approx(numeric, rel=1e-4, abs=1e-4)


def test_mean_and_deviation_are_those_of_the_joint_normal_given_the_targets():
    inputs, unseen = points(20, 2), points(7, 3)
    targets = np.sin(inputs[:, 0]) + inputs[:, 2]
    process = GaussianProcess(inputs, GROUP_OF, targets)
    kernel = process.kernel
    seen = covariances(kernel, inputs, inputs) + (kernel.noise + JITTER) * np.eye(20)
    across = covariances(kernel, unseen, inputs)
    assert process.mean(unseen) == pytest.approx(across @ np.linalg.inv(seen) @ targets, abs=1e-6)
    posterior = covariances(kernel, unseen, unseen) - across @ np.linalg.inv(seen) @ across.T
    assert process.deviation(unseen) == pytest.approx(np.sqrt(np.diag(posterior) + kernel.noise), rel=1e-4)


def test_a_smooth_function_is_interpolated_and_is_less_sure_away_from_the_points():
    inputs = points(60, 4)
    process = GaussianProcess(inputs, GROUP_OF, np.sin(inputs[:, 0]) * inputs[:, 2])
    assert process.mean(inputs) == pytest.approx(np.sin(inputs[:, 0]) * inputs[:, 2], abs=0.05)
    near, far = process.deviation(np.array([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]))
    assert far > 2 * near


def test_the_parameters_found_are_a_minimum_of_the_objective():
    inputs = points(40, 5)
    targets = inputs[:, 0] - 0.5 * inputs[:, 2] + 0.1 * np.random.default_rng(6).normal(size=40)
    kernel = GaussianProcess(inputs, GROUP_OF, targets).kernel
    found = np.log([*kernel.linear, *kernel.decay, kernel.amplitude, kernel.noise])
    objective = Objective(inputs, GROUP_OF, targets)
    for index in range(6):
        for by in (-0.5, 0.5):
            assert objective(found)[0] < objective(found + by * np.eye(6)[index])[0]


@pytest.mark.parametrize("far", [40.0, 800.0])
def test_a_kernel_that_rounding_makes_useless_is_worse_than_any_other_and_leads_back(far: float):
    """Amplitude and linear parts of e^40 leave no digit for the noise; e^800 is infinite."""
    inputs = np.repeat(points(6, 0), 2, axis=0)
    objective = Objective(inputs, GROUP_OF, np.random.default_rng(1).normal(size=12))
    logs = np.array([far, far, -3.0, -3.0, far, -30.0])
    with np.errstate(over="ignore"):
        value, gradient = objective(logs)
    away = logs - objective.middle
    assert np.isfinite(value)
    assert value > objective(objective.middle)[0] + 1e5
    assert gradient @ away > 0
    at_its_best = GaussianProcess(inputs, GROUP_OF, np.random.default_rng(1).normal(size=12)).kernel
    assert np.isfinite([*at_its_best.linear, *at_its_best.decay, at_its_best.amplitude, at_its_best.noise]).all()
