"""Rates against closed forms, published numbers and integrals of scipy's own densities."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise

import pytest
from scipy import integrate, special, stats

from airtune.errors import LinkError
from airtune.links import Link, Nakagami, Rayleigh, Rician
from airtune.links.capacity import efficiency, rate_bps, rayleigh_mean_efficiency

_SNRS_DB = (-5.0, 0.0, 5.0, 10.0, 15.0)


def _linear(db: float) -> float:
    return 10 ** (db / 10)


def _mean_by_power(pdf, snr: float) -> float:
    """E[log2(1 + snr x)] over the density of the power x, cut where it turns."""
    cuts = sorted({0.0, min(1 / snr, 1.0), 0.5, 1.0, 2.0, 6.0, 60.0})
    pieces = [
        integrate.quad(lambda x: pdf(x) * math.log2(1 + snr * x), a, b, epsabs=1e-13, epsrel=1e-12, limit=400)[0]
        for a, b in pairwise(cuts)
    ]
    return math.fsum(pieces)


@pytest.mark.parametrize(("snr_db", "mbit"), zip(_SNRS_DB, (39.6, 100.0, 205.7, 345.9, 502.8), strict=True))
def test_awgn_at_100_mhz(snr_db: float, mbit: float):
    assert rate_bps(100e6, _linear(snr_db)) / 1e6 == pytest.approx(mbit, abs=0.05)


def test_whole_bits_per_hertz_by_hand():
    assert rate_bps(1e6, 1.0) == 1e6
    assert rate_bps(1e6, 3.0) == pytest.approx(2e6, rel=1e-15)
    assert rate_bps(2e6, 255.0) == pytest.approx(16e6, rel=1e-15)
    assert rate_bps(1e6, 4.0, gap=4.0) == 1e6  # a gap of 4 wants 4 times the SNR


def test_a_tiny_snr_keeps_its_digits():
    assert efficiency(1e-12) == pytest.approx(1e-12 / math.log(2), rel=1e-11, abs=0)
    assert efficiency(0.0) == 0.0


@pytest.mark.parametrize(("snr_db", "published"), zip(_SNRS_DB, (0.3621, 0.8603, 1.7160, 2.9065, 4.3302), strict=True))
def test_rayleigh_ergodic_efficiency(snr_db: float, published: float):
    snr = _linear(snr_db)
    found = rayleigh_mean_efficiency(snr)
    assert found == pytest.approx(published, abs=5e-5)
    assert found == pytest.approx(_mean_by_power(lambda x: math.exp(-x), snr), rel=1e-6)


def test_rayleigh_at_0_db_is_the_gompertz_constant():
    assert rayleigh_mean_efficiency(1.0) * math.log(2) == pytest.approx(0.596347362323194, rel=1e-14)


@pytest.mark.parametrize("snr_db", [-120, -60, -40, -29, -28, -17.1, -16.99, -16.98, -16.9, -15, -10, 40, 80, 140])
def test_rayleigh_is_stable_at_both_ends(snr_db: float):
    # Tricomi's U(1, 1, z) = exp(z) E1(z), here as its integral of exp(-t) / (z + t)
    z = 1 / _linear(snr_db)
    cuts = [0.0, *sorted(cut for cut in (z, 100 * z, 1.0) if cut < 700), 700.0]
    expected = math.fsum(
        integrate.quad(lambda t: math.exp(-t) / (z + t), a, b, epsabs=0, epsrel=1e-13, limit=500)[0]
        for a, b in pairwise(cuts)
    )
    assert rayleigh_mean_efficiency(1 / z) * math.log(2) == pytest.approx(expected, rel=1e-12, abs=0)


def test_rayleigh_costs_eulers_constant_at_high_snr():
    # ln(1/z) - gamma for small z: 0.8327 bit/s/Hz below the still channel
    assert efficiency(1e10) - rayleigh_mean_efficiency(1e10) == pytest.approx(0.5772156649 / math.log(2), abs=1e-7)


@pytest.mark.parametrize("snr_db", _SNRS_DB)
@pytest.mark.parametrize("k", [0.0, 0.5, 4.0, 30.0])
def test_rician_equals_the_integral_over_scipys_noncentral_chi_square(k: float, snr_db: float):
    pdf = stats.ncx2(2, 2 * k, scale=1 / (2 * (k + 1))).pdf
    snr = _linear(snr_db)
    assert Rician(k).mean_efficiency(snr) == pytest.approx(_mean_by_power(pdf, snr), rel=1e-6)


@pytest.mark.parametrize("snr_db", _SNRS_DB)
@pytest.mark.parametrize("m", [0.75, 1.0, 2.0, 2.5, 20.0])
def test_nakagami_equals_the_integral_over_scipys_gamma(m: float, snr_db: float):
    pdf = stats.gamma(m, scale=1 / m).pdf
    snr = _linear(snr_db)
    assert Nakagami(m).mean_efficiency(snr) == pytest.approx(_mean_by_power(pdf, snr), rel=1e-6)


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 15.0, 40.0, 80.0])
@pytest.mark.parametrize("m", [1, 2, 3, 8])
def test_nakagami_of_whole_m_equals_the_closed_form(m: int, snr_db: float):
    # Alouini and Goldsmith 1999: exp(m/g) sum of E_k(m/g) for k = 1..m, over ln 2
    z = m / _linear(snr_db)
    expected = math.exp(z) * sum(special.expn(k, z) for k in range(1, m + 1)) / math.log(2)
    assert Nakagami(m).mean_efficiency(_linear(snr_db)) == pytest.approx(expected, rel=1e-9)


def test_half_gaussian_fading_at_high_snr_costs_what_its_mean_logarithm_says():
    # m = 1/2: E[ln |h|^2] = psi(1/2) - ln(1/2) = -gamma - ln 2
    lost = efficiency(1e8) - Nakagami(0.5).mean_efficiency(1e8)
    assert lost == pytest.approx((0.5772156649 + math.log(2)) / math.log(2), abs=1e-3)


@pytest.mark.parametrize("fading", [Rician(0.0), Rician(1e6), Nakagami(0.5), Nakagami(3.3), Nakagami(1e6)], ids=repr)
def test_quadrature_raises_no_warning_and_grows_with_snr(fading: Rician | Nakagami):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates = [fading.mean_efficiency(_linear(snr_db)) for snr_db in range(-120, 81, 10)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(1e-12 / math.log(2), rel=1e-6, abs=0)  # E[log2(1 + g x)] -> g E[x] / ln 2


@pytest.mark.parametrize("epsilon", [1e-4, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("snr_db", _SNRS_DB)
def test_rayleigh_outage_rate_by_its_closed_form(snr_db: float, epsilon: float):
    expected = 100e6 * math.log2(1 + -math.log(1 - epsilon) * _linear(snr_db))
    assert Link(100e6, snr_db, Rayleigh()).outage_rate_bps(epsilon) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0), r"bandwidth_hz is 0\.0"),
        ((1e6, 0.0), r"snr is 0\.0"),
        ((1e6, math.nan), "snr is nan"),
        ((math.inf, 1.0), "bandwidth_hz is inf"),
    ],
)
def test_values_out_of_range_are_refused(arguments: tuple[float, float], message: str):
    with pytest.raises(LinkError, match=message):
        rate_bps(*arguments)
