"""Areas against scipy's Mann-Whitney test, hit rates by hand, and a network that remembers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from airtune.errors import DataError
from airtune.methods.pae_mobillm.privacy.leak import area_under_curve, hit_rate
from airtune.methods.pae_mobillm.privacy.membership import membership


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_is_mann_and_whitneys(ties: bool):
    rng = np.random.default_rng(0)
    high, low = rng.normal(0.4, size=70), rng.normal(size=50)
    if ties:
        high, low = high.round(), low.round()
    expected = mannwhitneyu(high, low).statistic / (70 * 50)
    assert area_under_curve(high, low) == pytest.approx(expected, abs=1e-12)
    assert area_under_curve(low, high) == pytest.approx(1 - expected, abs=1e-12)


def test_hit_rates_by_hand():
    positives, negatives = np.array([9.0, 8, 6, 5]), np.arange(8.0)
    assert hit_rate(positives, negatives, 0.0) == 0.5  # above 7
    assert hit_rate(positives, negatives, 0.125) == 0.5  # above 6, one false alarm of eight
    assert hit_rate(positives, negatives, 0.25) == 0.75  # above 5
    assert hit_rate(positives, negatives, 1.0) == 1.0
    assert hit_rate(np.full(4, 7.0), negatives, 0.0) == 0.0  # a tie with a negative is no hit
    with pytest.raises(DataError, match="both kinds"):
        hit_rate(positives, negatives[:0], 0.01)


def test_a_network_that_remembers_gives_its_members_away():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(300, 3))
    area, hits = membership((true, true), (true + 1, true))
    assert (area.value, hits.value) == (1.0, 1.0)
    assert (area.chance, hits.chance, area.count) == (0.5, 0.01, 600)


def test_a_network_as_far_from_both_gives_nothing_away():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(4000, 3)), rng.normal(size=(4000, 3))) for _ in range(2)]
    area, hits = membership(pairs[0], pairs[1])
    assert area.value == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / 2000))
    assert hits.value == pytest.approx(0.01, abs=0.01)
