"""One suite over every fading, then each kind against its own closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from airtune.errors import LinkError
from airtune.links import FADINGS, Fading, Nakagami, Rayleigh, Rician, Still, Trace, linear_to_db, make_fading

_DRAWS = 200_000
_FADINGS = [
    Still(),
    Rayleigh(),
    Rician(0.0),
    Rician(4.0),
    Rician(1000.0),
    Nakagami(0.5),
    Nakagami(1.0),
    Nakagami(2.5),
    Nakagami(500.0),
    Trace(np.array([-3.0, 0.0, 4.0, 4.0, 10.0, -20.0, 1.0])),
]
_CONTINUOUS = [fading for fading in _FADINGS if not isinstance(fading, Still | Trace)]
_EPSILONS = (1e-6, 0.01, 0.1, 0.5, 0.9, 0.999)

every_fading = pytest.mark.parametrize("fading", _FADINGS, ids=repr)
every_continuous_fading = pytest.mark.parametrize("fading", _CONTINUOUS, ids=repr)


def _amplitude(fading: Fading):
    """The law of |h| as scipy.stats has it."""
    match fading:
        case Rayleigh():
            return stats.rayleigh(scale=math.sqrt(0.5))
        case Rician(k_factor=k):
            return stats.rice(math.sqrt(2 * k), scale=math.sqrt(0.5 / (k + 1)))
        case Nakagami(m=m):
            return stats.nakagami(m)
    raise AssertionError(fading)


def _calm(fading: Fading) -> float:
    """|h| has a standard deviation of about 1/sqrt(2 calm) or less."""
    match fading:
        case Rician(k_factor=k):
            return k + 1
        case Nakagami(m=m):
            return m
    return 1.0


def test_every_kind_is_in_the_suite():
    assert {fading.name for fading in _FADINGS} == set(FADINGS)


@every_fading
def test_a_fading_satisfies_the_protocol(fading: Fading):
    assert isinstance(fading, Fading)


@every_fading
def test_gains_are_complex_of_the_asked_shape_and_follow_the_generator(fading: Fading):
    gains = fading.gains(np.random.default_rng(5), 7)
    assert gains.shape == (7,)
    assert gains.dtype == np.complex128
    np.testing.assert_array_equal(gains, fading.gains(np.random.default_rng(5), 7))


@every_fading
def test_mean_power_is_one(fading: Fading):
    powers = np.abs(fading.gains(np.random.default_rng(0), _DRAWS)) ** 2
    standard_error = powers.std() / math.sqrt(_DRAWS)
    assert powers.mean() == pytest.approx(1.0, abs=5 * standard_error + 1e-4)


@every_fading
def test_drawn_powers_follow_the_stated_law(fading: Fading):
    powers = np.abs(fading.gains(np.random.default_rng(1), _DRAWS)) ** 2
    for power in (0.05, 0.3, 0.9, 1.1, 2.0, 4.0):
        share = float(np.mean(powers <= power))
        assert fading.power_cdf(power) == pytest.approx(share, abs=5 * 0.5 / math.sqrt(_DRAWS))
    assert fading.power_cdf(0.0) == 0.0
    assert fading.power_cdf(1e4) == pytest.approx(1.0, abs=1e-15)


@every_fading
@pytest.mark.parametrize("epsilon", _EPSILONS)
def test_the_quantile_is_the_smallest_power_that_reaches_the_probability(fading: Fading, epsilon: float):
    power = fading.power_quantile(epsilon)
    assert fading.power_cdf(power * (1 + 1e-9)) >= epsilon * (1 - 1e-7)
    assert fading.power_cdf(power * (1 - 1e-9)) <= epsilon


@every_fading
@pytest.mark.parametrize("snr", [1e-6, 0.1, 1.0, 30.0, 1e8])
def test_mean_efficiency_is_that_of_the_draws_and_below_the_still_channel(fading: Fading, snr: float):
    rates = np.log2(1 + snr * np.abs(fading.gains(np.random.default_rng(2), _DRAWS)) ** 2)
    found, still = fading.mean_efficiency(snr), math.log2(1 + snr)
    assert found == pytest.approx(rates.mean(), abs=5 * rates.std() / math.sqrt(_DRAWS) + 1e-4 * still)
    assert found <= still * (1 + 1e-9)  # Jensen


@every_fading
@pytest.mark.parametrize("blocks", [0, -1, 1.5, "3", None])
def test_blocks_are_a_whole_number_of_at_least_one(fading: Fading, blocks):
    with pytest.raises(LinkError, match="blocks is"):
        fading.gains(np.random.default_rng(0), blocks)


@every_fading
@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1])
def test_arguments_out_of_range_are_refused(fading: Fading, bad: float):
    for method in (fading.power_cdf, fading.power_quantile, fading.mean_efficiency):
        with pytest.raises(LinkError, match="; choose "):
            method(bad)


@every_continuous_fading
@pytest.mark.parametrize("power", [0.01, 0.5, 1.0, 1.7])
def test_cdf_equals_the_integral_of_the_amplitude_density(fading: Fading, power: float):
    law, end = _amplitude(fading), math.sqrt(power)
    start = max(0.0, 1 - 40 / math.sqrt(2 * _calm(fading)))
    share = integrate.quad(law.pdf, start, end, epsabs=0, epsrel=1e-11)[0] if start < end else 0.0
    assert fading.power_cdf(power) == pytest.approx(share, rel=1e-6, abs=1e-300)


@every_continuous_fading
@pytest.mark.parametrize("epsilon", _EPSILONS)
def test_quantile_equals_that_of_scipy_stats(fading: Fading, epsilon: float):
    match fading:
        case Rayleigh():
            expected = -math.log(1 - epsilon)
        case Rician(k_factor=k):
            expected = stats.ncx2(2, 2 * k).ppf(epsilon) / (2 * (k + 1))
        case Nakagami(m=m):
            expected = stats.gamma(m, scale=1 / m).ppf(epsilon)
    assert fading.power_quantile(epsilon) == pytest.approx(expected, rel=1e-9, abs=0)


def test_rayleigh_is_circular_and_blocks_are_independent():
    gains = Rayleigh().gains(np.random.default_rng(3), _DRAWS)
    error = 5 / math.sqrt(_DRAWS)
    assert abs(gains.mean()) < error
    assert abs(np.mean(gains**2)) < error  # real and imaginary parts: equal power, uncorrelated
    assert abs(np.mean(gains[1:] * gains[:-1].conj())) < error


def test_rician_has_a_line_of_sight_of_k_over_k_plus_one():
    gains = Rician(4.0).gains(np.random.default_rng(3), _DRAWS)
    assert abs(gains.mean()) ** 2 == pytest.approx(0.8, abs=5e-3)
    assert gains.var() == pytest.approx(0.2, abs=5e-3)


def test_nakagami_power_has_variance_one_over_m():
    powers = np.abs(Nakagami(2.5).gains(np.random.default_rng(3), _DRAWS)) ** 2
    assert powers.var() == pytest.approx(0.4, rel=0.03)


@pytest.mark.parametrize("same", [Rician(0.0), Nakagami(1.0)], ids=repr)
def test_rayleigh_in_disguise(same: Fading):
    for value in (0.01, 0.3, 0.9):
        assert same.power_quantile(value) == pytest.approx(Rayleigh().power_quantile(value), rel=1e-12)
        assert same.power_cdf(value) == pytest.approx(Rayleigh().power_cdf(value), rel=1e-12)
    for snr_db in (-60, -20, 0, 20, 80):
        snr = 10 ** (snr_db / 10)
        assert same.mean_efficiency(snr) == pytest.approx(Rayleigh().mean_efficiency(snr), rel=1e-9, abs=0)


@pytest.mark.parametrize("calm", [Rician(1e6), Nakagami(1e6)], ids=repr)
def test_calm_fading_tends_to_still(calm: Fading):
    # Var |h|^2 is 1/m, or about 2/K: a 0.1 % quantile within 5 standard deviations, a mean rate within the variance
    assert calm.power_quantile(1e-3) == pytest.approx(1.0, abs=5 * math.sqrt(2e-6))
    assert calm.mean_efficiency(1.0) == pytest.approx(1.0, abs=2e-6)


@pytest.mark.parametrize("m", [0.49, 0.0, -1.0, math.nan, math.inf, 1e7, "2", True])
def test_nakagami_refuses_m(m):
    with pytest.raises(LinkError, match=r"^m is .*; choose 0\.5 to 1e\+06, or still fading$"):
        Nakagami(m)


@pytest.mark.parametrize("k_factor", [-0.1, math.nan, math.inf, 1e7, "4", None, 10**400])
def test_rician_refuses_k(k_factor):
    with pytest.raises(LinkError, match=r"^k_factor is .*; choose 0 to 1e\+06 \(linear\), or still fading$"):
        Rician(k_factor)


def test_a_fading_is_made_by_name():
    assert make_fading("still") == Still()
    assert make_fading("rayleigh") == Rayleigh()
    assert make_fading("rician", k_factor=4) == Rician(4.0)
    assert make_fading("nakagami", m=2) == Nakagami(2.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fog", {}, "fading is 'fog'; choose one of still, rayleigh, rician, nakagami, trace"),
        ("rician", {}, "missing a required argument: 'k_factor'.*its options are: k_factor"),
        ("rayleigh", {"k_factor": 1.0}, "unexpected keyword argument 'k_factor'.*its options are: none"),
        ("trace", {}, "missing a required argument: 'path'.*column, session"),
        ("nakagami", {"m": 0.1}, r"m is 0\.1"),
    ],
)
def test_a_wrong_name_or_option_is_refused(name: str, options: dict[str, object], message: str):
    with pytest.raises(LinkError, match=message):
        make_fading(name, **options)


def test_trace_suite_member_has_the_mean_worked_out_by_hand():
    values_db = next(fading for fading in _FADINGS if isinstance(fading, Trace)).values_db
    mean = sum(10 ** (value / 10) for value in values_db) / 7
    assert Trace(values_db).mean_snr_db == pytest.approx(linear_to_db(mean), rel=1e-12)
