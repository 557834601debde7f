"""Intervals against scipy's bootstrap and Student's, and against what can be seen by eye."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from airtune.studies.intervals import Interval, interval, tail


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_the_tail_of_five_seeds_by_hand():
    # t(0.975; 4) = 2.776; sqrt(5 / 4) x 2.776 = 3.104; Phi(-3.104) = 0.00095
    assert tail(5) == pytest.approx(0.00095, abs=2e-5)
    assert tail(100_000) == pytest.approx(0.025, rel=1e-3)


def test_many_seeds_give_scipy_s_percentile_interval():
    values = rng().normal(3, 1, 400)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=rng()).confidence_interval
    ours = interval(values, rng(), draws=20_000)
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=5e-3)


def test_five_normal_seeds_are_covered_about_as_often_as_they_should():
    draw, inside = rng(), 0
    for _ in range(400):
        found = interval(draw.normal(0, 1, 5), draw, draws=2000)
        inside += found.low <= 0 <= found.high
    assert 0.90 <= inside / 400 <= 0.98  # plain percentiles: 0.83


def test_items_widen_an_interval_that_seeds_alone_would_make_a_point():
    items = rng().normal(0, 1, 50)
    same = np.tile(items, (5, 1))  # every seed agrees on every item
    assert interval(same.mean(axis=1), rng()).low == pytest.approx(items.mean())
    crossed = interval(same, rng(), draws=20_000)
    spread = items.std() / np.sqrt(50)
    assert crossed.mean == pytest.approx(items.mean())
    assert (crossed.high - crossed.low) / 2 == pytest.approx(-stats.norm.ppf(tail(5)) * spread, rel=0.1)


def test_one_seed_has_no_interval_and_claims_nothing():
    found = interval(np.array([2.0]), rng())
    assert (found.low, found.high, found.real) == (2.0, 2.0, False)


@pytest.mark.parametrize(
    ("low", "high", "seeds", "real"),
    [(0.1, 0.3, 5, True), (-0.3, -0.1, 5, True), (-0.1, 0.3, 5, False), (0.1, 0.3, 4, False)],
)
def test_a_difference_is_real_if_its_interval_excludes_zero_over_five_seeds(low, high, seeds, real):
    assert Interval(0.2, low, high, seeds).real is real
