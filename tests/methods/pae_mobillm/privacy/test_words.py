"""The linear reader: precision by hand and by all orders, words that are there and words that are not."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from airtune.errors import DataError
from airtune.methods.pae_mobillm.privacy.words import (
    average_precision,
    bag_of_words,
    chance_precision,
    frequent_tokens,
    words,
)


def test_average_precision_by_hand():
    """Ranked true, false, true, false: (1 / 1 + 2 / 3) / 2."""
    truth = np.array([False, True, True, False])
    assert average_precision(np.array([0.1, 0.9, 0.3, 0.5]), truth) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([0.0, 1, 1, 0]), truth) == 1.0


@pytest.mark.parametrize(("count", "true"), [(1, 1), (5, 1), (5, 2), (6, 5)])
def test_chance_is_the_mean_over_all_orders(count: int, true: int):
    truth = np.arange(count) < true
    found = [average_precision(np.array(order), truth) for order in permutations(range(count))]
    assert chance_precision(count, true) == pytest.approx(np.mean(found), rel=1e-12)


def test_frequent_tokens_and_bags_by_hand():
    texts = [np.array([5, 5, 5, 2]), np.array([7, 2]), np.array([7, 9, 2])]
    assert frequent_tokens(texts, 3).tolist() == [2, 7, 5]
    assert bag_of_words(texts, np.array([7, 5, 2])).tolist() == [[0, 1, 1], [1, 0, 1], [1, 0, 1]]


def hidden(bags: np.ndarray, noise: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = bags @ np.random.default_rng(7).normal(size=(bags.shape[1], 40)) + 5
    return (mixed + noise * rng.normal(size=mixed.shape)).astype(np.float32)


def test_words_that_are_linear_in_the_states_are_read_and_noise_hides_them():
    rng = np.random.default_rng(0)
    public, private = rng.random((400, 12)) < 0.2, rng.random((300, 12)) < 0.2
    clear, dim, dark = (
        words(hidden(private, noise, 1), private, hidden(public, noise, 2), public, layer=4) for noise in (0.1, 5, 500)
    )
    assert clear.value > 0.999
    assert (clear.count, clear.layer) == (300, 4)
    assert clear.value > dim.value > dark.value
    assert dark.value == pytest.approx(dark.chance, abs=0.05)
    assert dark.chance == pytest.approx(private.mean(), abs=0.02)


def test_more_coordinates_than_texts_and_constant_ones_do_no_harm():
    rng = np.random.default_rng(0)
    public, private = rng.random((60, 4)) < 0.3, rng.random((80, 4)) < 0.3
    wide = [
        np.concatenate([hidden(bags, 0.1, 1), 3 + 1e-7 * rng.normal(size=(len(bags), 60))], 1)
        for bags in (public, private)
    ]
    assert words(wide[1], private, wide[0], public).value > 0.9
    constant = [np.full((len(bags), 8), 3.0, np.float32) for bags in (public, private)]
    found = words(constant[1], private, constant[0], public)
    assert found.value == pytest.approx(found.chance, abs=0.15)


def test_words_that_tell_nothing_apart_are_refused():
    with pytest.raises(DataError, match="tells the samples apart"):
        words(np.ones((3, 2)), np.ones((3, 2), bool), np.ones((3, 2)), np.ones((3, 2), bool))
