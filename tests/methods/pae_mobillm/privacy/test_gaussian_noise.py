"""Noise: its size against integrals and the classical bound, its moments, and that it is tied to a sample's id."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from airtune.errors import ConfigError, DataError
from airtune.methods.pae_mobillm.privacy.gaussian import (
    SENSITIVITY,
    GaussianNoise,
    gaussian_delta,
    gaussian_sigma,
    median_norms,
)

pytestmark = pytest.mark.filterwarnings("error")
IDS = np.array([3, 2**64 - 1, 7], np.uint64)


def values(rows: int = 3, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return scale * rng.normal(size=(rows, 2, 4)).astype("f4"), scale * rng.normal(size=(rows, 3)).astype("f4")


def noise(sigma: float = 1.0, clips: tuple[float, float] = (1.0, 1.0), secret: int = 0) -> GaussianNoise:
    found = GaussianNoise.calibrated(1.0, 1e-5, clips, np.random.default_rng(secret))
    return GaussianNoise(sigma, clips, found.key)


@pytest.mark.parametrize(("epsilon", "sigma"), [(0.3, 2.0), (1.0, 0.7), (4.0, 0.4), (12.0, 0.2)])
def test_delta_is_what_the_loss_of_privacy_integrates_to(epsilon: float, sigma: float):
    """delta = integral of max(0, p - e^epsilon q), p and q normal densities one apart, whose ratio crosses once."""
    crossing = 0.5 - epsilon * sigma**2
    found, _ = integrate.quad(
        lambda x: stats.norm.pdf(x, 0, sigma) - math.exp(epsilon) * stats.norm.pdf(x, 1, sigma),
        *(crossing - 30 * sigma, crossing),
        epsabs=1e-14,
        points=[0.0, 1.0] if crossing > 1 else None,
    )
    assert gaussian_delta(sigma, epsilon) == pytest.approx(found, rel=1e-6, abs=1e-12)


def test_without_epsilon_delta_is_the_total_variation():
    assert gaussian_delta(0.8, 0.0) == pytest.approx(2 * stats.norm.cdf(1 / 1.6) - 1, rel=1e-12)


@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 1.0, 8.0, 100.0, 1e4])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-12])
def test_sigma_is_the_smallest_that_keeps_delta(epsilon: float, delta: float):
    sigma = gaussian_sigma(epsilon, delta, 3.0)
    assert gaussian_delta(sigma, epsilon, 3.0) <= delta
    assert gaussian_delta(sigma * (1 - 1e-4), epsilon, 3.0) > delta
    if epsilon <= 1:  # the bound of Dwork and Roth 2014, theorem A.1
        assert sigma < 3 * math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def test_sigma_against_published_numbers():
    """Least noise at epsilon 1, delta 1e-5 is 3.7303; classically 4.8448."""
    assert gaussian_sigma(1.0, 1e-5) == pytest.approx(3.7303, abs=5e-4)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (1.0, 0.0), (1.0, 1.0), (math.inf, 0.1)])
def test_no_budget_no_noise(epsilon: float, delta: float):
    with pytest.raises(ConfigError, match="expected numbers above 0"):
        gaussian_sigma(epsilon, delta)


def test_clipping_bounds_a_sample_with_all_its_pivots():
    activations, differences = values(rows=6)
    counts = np.array([3, 1, 2])
    sent = noise(0.0, (0.5, 0.25)).outgoing(IDS, activations, differences, counts)
    for part, plain, clip in zip(sent, (activations, differences), (0.5, 0.25), strict=True):
        assert part.dtype == np.float32
        for rows in (slice(0, 3), slice(3, 4), slice(4, 6)):
            assert np.linalg.norm(part[rows]) == pytest.approx(clip, rel=1e-6)
            cosine = (part[rows] * plain[rows]).sum() / np.linalg.norm(plain[rows]) / clip
            assert cosine == pytest.approx(1, rel=1e-6)


def test_what_is_short_enough_is_left_and_nothing_given_is_changed():
    activations, differences = values(scale=0.01)
    before = activations.copy(), differences.copy()
    sent = noise(0.0, (9.0, 9.0)).outgoing(IDS, activations, differences)
    for part, plain, kept in zip(sent, (activations, differences), before, strict=True):
        np.testing.assert_array_equal(part, plain)
        np.testing.assert_array_equal(plain, kept)


def test_a_centre_is_what_samples_are_clipped_towards():
    activations, differences = values()
    centre = np.random.default_rng(5).normal(size=(2, 4)).astype("f4")
    found = GaussianNoise(0.0, (0.5, 9.0), (1, 2), centre).outgoing(IDS, activations + 100 * centre, differences)[0]
    towards = activations + 99 * centre
    lengths = np.linalg.norm(towards.reshape(3, -1), axis=1)
    np.testing.assert_allclose(found, centre + 0.5 * towards / lengths[:, None, None], rtol=1e-5)
    assert median_norms(activations + centre, differences, centre=centre)[0] == pytest.approx(
        median_norms(activations, differences)[0], rel=1e-5
    )


def test_noise_has_its_mean_and_spread():
    rows = 2000
    sent = noise(1.5, (2.0, 0.5)).outgoing(
        np.arange(rows, dtype=np.uint64), np.zeros((rows, 4, 8)), np.zeros((rows, 3))
    )
    for part, spread in zip(sent, (3.0, 0.75), strict=True):
        assert abs(part.mean()) < 5 * spread / math.sqrt(part.size)
        assert part.std() == pytest.approx(spread, rel=5 / math.sqrt(2 * part.size))
        assert stats.kstest(part.ravel() / spread, "norm").pvalue > 1e-3
        across = np.corrcoef(part.reshape(rows, -1)[:-1].ravel(), part.reshape(rows, -1)[1:].ravel())[0, 1]
        assert abs(across) < 5 / math.sqrt(part.size)


def test_a_sample_carries_the_same_noise_whenever_and_beside_whomever_it_is_sent():
    activations, differences = values()
    one = noise().outgoing(IDS, activations, differences)
    order = np.array([2, 0])
    again = noise().outgoing(IDS[order], activations[order], differences[order])
    for first, second in zip(one, again, strict=True):
        np.testing.assert_array_equal(first[order], second)
    averaged = np.mean([noise().outgoing(IDS, activations, differences)[1] for _ in range(50)], axis=0)
    np.testing.assert_allclose(averaged, one[1], rtol=1e-6)


def test_another_id_and_another_secret_carry_other_noise():
    activations, differences = values()
    same = np.repeat(activations[:1], 3, axis=0), np.repeat(differences[:1], 3, axis=0)
    near = np.array([2**64 - 2, 2**64 - 1, 2**63], np.uint64)  # that doubles could not tell apart
    one = noise().outgoing(near, *same)[0].reshape(3, -1)
    other = noise(secret=1).outgoing(near, *same)[0].reshape(3, -1)
    assert len(np.unique(np.concatenate([one, other]), axis=0)) == 6


def test_calibration_covers_both_parts_at_once():
    found = GaussianNoise.calibrated(1.0, 1e-5, (7.0, 2.0), np.random.default_rng(0))
    assert found.sigma == pytest.approx(3.7303 * 2 * math.sqrt(2), rel=1e-3)
    assert pytest.approx(math.hypot(2, 2)) == SENSITIVITY
    assert str(found.key[0]) not in repr(found)


def test_median_norms_by_hand():
    activations = np.array([[[3.0, 4.0]], [[0.0, 0.0]], [[6.0, 8.0]], [[1.0, 0.0]]])
    differences = np.array([[1.0], [1.0], [2.0], [3.0]])
    assert median_norms(activations, differences) == (3.0, 1.5)
    assert median_norms(activations, differences, np.array([2, 1, 1])) == (5.0, 2.0)
    with pytest.raises(DataError, match=r"\(0.0, 1.5\)"):
        median_norms(activations * 0, differences)


def test_norms_of_0_are_refused():
    with pytest.raises(ConfigError, match="median_norms"):
        noise(clips=(0.0, 1.0))
