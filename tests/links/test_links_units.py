"""Decibels and noise power against numbers from the textbooks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airtune.errors import LinkError
from airtune.links import db_to_linear, linear_to_db, thermal_noise_w


@pytest.mark.parametrize(("db", "linear"), [(-30.0, 1e-3), (-10.0, 0.1), (0.0, 1.0), (10.0, 10.0), (20, 100.0)])
def test_round_decibels_by_hand(db: float, linear: float):
    assert db_to_linear(db) == pytest.approx(linear, rel=1e-15)
    assert linear_to_db(linear) == pytest.approx(db, abs=1e-14)
    assert type(db_to_linear(db)) is type(linear_to_db(linear)) is float


def test_three_decibels_double():
    assert db_to_linear(10 * math.log10(2)) == pytest.approx(2.0, rel=1e-15)
    assert linear_to_db(0.5) == pytest.approx(-3.010299956639812, rel=1e-15)


def test_arrays_keep_their_shape():
    db = np.array([[-10.0, 0.0], [10.0, 20.0]])
    linear = db_to_linear(db)
    np.testing.assert_allclose(linear, [[0.1, 1.0], [10.0, 100.0]], rtol=1e-15)
    np.testing.assert_allclose(linear_to_db(linear), db, atol=1e-14)


@given(st.floats(-300, 300))
def test_there_and_back(db: float):
    assert linear_to_db(db_to_linear(db)) == pytest.approx(db, abs=1e-10)


@pytest.mark.parametrize("db", [math.nan, math.inf, -math.inf, 3001.0, np.array([0.0, math.nan])])
def test_decibels_without_a_linear_value_are_refused(db):
    with pytest.raises(LinkError, match=r"decibels is (nan|-?inf|3001\.0); choose -3000 to 3000 dB"):
        db_to_linear(db)


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf, np.array([1.0, -1.0])])
def test_ratios_without_decibels_are_refused(ratio):
    with pytest.raises(LinkError, match=r"power ratio is .*; choose a finite number above 0"):
        linear_to_db(ratio)


def test_thermal_noise_is_minus_174_dbm_per_hertz():
    dbm = linear_to_db(thermal_noise_w(1.0) * 1e3)
    assert dbm == pytest.approx(-173.975, abs=1e-3)  # the -174 dBm/Hz of link budgets, at 290 K
    # 100 MHz with a noise figure of 7 dB: -173.975 + 80 + 7
    assert linear_to_db(thermal_noise_w(100e6, noise_figure_db=7.0) * 1e3) == pytest.approx(-86.975, abs=1e-3)
    assert thermal_noise_w(1e6, temperature_k=580.0) == pytest.approx(2 * thermal_noise_w(1e6), rel=1e-15, abs=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bandwidth_hz": -1.0}, r"bandwidth_hz is -1\.0"),
        ({"bandwidth_hz": 1.0, "noise_figure_db": -1.0}, r"noise_figure_db is -1\.0"),
        ({"bandwidth_hz": 1.0, "temperature_k": 0.0}, r"temperature_k is 0\.0"),
    ],
)
def test_unphysical_noise_is_refused(arguments: dict[str, float], message: str):
    with pytest.raises(LinkError, match=message):
        thermal_noise_w(**arguments)
