"""Intervals against scipy's Student's, tables worked out by hand, and how often they hold a mean that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from airtune.studies.intervals import Interval, interval


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_seeds_alone_give_scipy_s_student_interval():
    values = rng().normal(3, 1, 5)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = interval(values)
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), theirs.low, theirs.high))
    assert interval(values[:, None]) == found


def test_items_alone_give_scipy_s_student_interval_over_items():
    items = rng().normal(3, 1, 500)
    theirs = stats.ttest_1samp(items, 0).confidence_interval(0.95)
    found = interval(np.tile(items, (5, 1)))  # every seed agrees on every item
    assert (found.mean, found.low, found.high) == pytest.approx((items.mean(), theirs.low, theirs.high))
    normal = stats.norm.interval(0.95, items.mean(), stats.sem(items))
    assert (found.low, found.high) == pytest.approx(normal, abs=2e-3)


def test_a_table_by_hand():
    # Seeds 1 and 7: 18 / 2 = 9. Items 2 and 6: 8 / 2 = 4, less the residual's 4 / (2 x 2) = 1 that seeds have already.
    # t(0.975; 1) = 12.7062 for both, so half = 12.7062 sqrt(9 + 3) = 44.0155.
    found = interval(np.array([[0.0, 2.0], [4.0, 10.0]]))
    assert (found.mean, found.low, found.high) == pytest.approx((4, -40.0155, 48.0155), abs=1e-3)


def test_items_that_vary_less_than_chance_take_nothing_away():
    # Items 2 and 2, residuals -1, 1, 1, -1: 0 - 4 / 4 < 0 counts as 0; seeds 1 and 3: 2 / 2 = 1.
    found = interval(np.array([[0.0, 2.0], [4.0, 2.0]]))
    assert (found.mean, found.low, found.high) == pytest.approx((2, -10.7062, 14.7062), abs=1e-3)


@pytest.mark.parametrize(
    ("of_seed", "of_item", "residual", "items"),
    [(0, 1, 0, 500), (0.02, 1, 1, 500), (0.1, 1, 1, 500), (0.3, 1, 1, 500), (0, 0, 1, 500), (1, 0, 0, 1)],
)
def test_95_of_100_intervals_hold_the_mean(of_seed, of_item, residual, items):
    """Standard deviations of normal effects; 1,000 tables of five seeds have a standard error of 0.007."""
    draw, inside = rng(), 0
    for _ in range(1000):
        effects = of_seed * draw.normal(size=(5, 1)) + of_item * draw.normal(size=(1, items))
        found = interval(effects + residual * draw.normal(size=(5, items)))
        inside += found.low <= 0 <= found.high
    assert 0.92 <= inside / 1000 <= 0.985


def test_one_seed_has_no_interval_and_claims_nothing():
    found = interval(np.array([2.0]))
    assert (found.low, found.high, found.real) == (2.0, 2.0, False)


@pytest.mark.parametrize(
    ("low", "high", "seeds", "real"),
    [(0.1, 0.3, 5, True), (-0.3, -0.1, 5, True), (-0.1, 0.3, 5, False), (0.1, 0.3, 4, False)],
)
def test_a_difference_is_real_if_its_interval_excludes_zero_over_five_seeds(low, high, seeds, real):
    assert Interval(0.2, low, high, seeds).real is real
