"""Fronts and bits saved, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from airtune.errors import DataError
from airtune.methods.airllm.bits.front import best_within, bits_saved, front, spread, unbeaten

BITS = [100.0, 200.0, 200.0, 400.0, 800.0]
LOSSES = [3.0, 2.8, 2.9, 2.85, 2.5]


@pytest.mark.parametrize(("budget", "index"), [(99, None), (100, 0), (300, 1), (400, 1), (1e9, 4)])
def test_the_best_within_a_budget_need_not_be_the_largest(budget: float, index: int | None):
    assert best_within(BITS, LOSSES, budget) == index


def test_a_front_has_nothing_that_something_smaller_beats():
    assert front(BITS, LOSSES) == [0, 1, 4]
    assert front([5.0, 5.0], [2.0, 1.0]) == [1]


def test_of_a_front_s_points_that_lie_close_together_the_best_is_kept():
    bits, losses = [100.0, 110.0, 119.0, 121.0, 150.0, 119.5], [5.0, 4.0, 3.0, 2.0, 1.0, 9.0]
    assert spread(bits, losses, apart=1.2) == [2, 3, 4]
    assert spread(bits, losses, apart=1.0) == front(bits, losses) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("losses", "errors", "left"),
    [
        ([[1, 2, 3, 4], [2.0, 3.1, 3.9, 5.0]], 2, [0]),  # by 1 in every item, nearly
        ([[1, 2, 3, 4], [1.5, 2.5, 2.5, 4.5]], 2, [0, 1]),  # 0.25 worse, standard error 0.25
        ([[1, 2, 3, 4], [1.5, 2.5, 2.5, 4.5]], 1.01, [0, 1]),
        ([[1, 2, 3, 4], [1.5, 2.5, 2.5, 4.5]], 0.99, [0]),
        ([[1, 2, 3, 4], [0, 1, 2, 3]], 0, [0, 1]),  # larger and better
    ],
)
def test_only_who_is_clearly_beaten_by_something_no_larger_drops_out(
    losses: list[list[float]], errors: float, left: list[int]
):
    assert unbeaten([10.0, 20.0], np.array(losses, float), errors=errors) == left


def test_a_front_of_half_the_bits_saves_half():
    bits = np.array([10.0, 20.0, 50.0, 90.0])
    losses = 4.0 - np.log(bits)
    assert bits_saved(bits / 2, losses, bits, losses).share == pytest.approx(0.5)
    assert bits_saved(bits, losses, bits / 2, losses).share == pytest.approx(-1.0)
    assert bits_saved(bits[::-1], losses[::-1], bits, losses).share == pytest.approx(0.0)


def test_where_bits_are_exponential_in_the_loss_the_mean_is_that_of_the_lines():
    """log bits = 10 - 2 loss against 9 - loss over losses 1 to 2: the difference is 1 - loss, -0.5 on average."""
    losses = np.linspace(1.0, 2.0, 7)
    found = bits_saved(np.exp(10 - 2 * losses), losses, np.exp(9 - losses), losses)
    assert found == pytest.approx((1 - np.exp(-0.5), 1.0, 2.0))
    upper = bits_saved(np.exp(10 - 2 * losses), losses, np.exp(9 - losses), losses, between=(1.5, 3.0))
    assert upper == pytest.approx((1 - np.exp(-0.75), 1.5, 2.0))  # 1 - loss is -0.75 on average there


def test_only_losses_that_both_reach_count():
    losses = np.linspace(1.0, 2.0, 11)
    far = np.append(losses, 5.0)
    assert bits_saved(np.exp(-losses) / 4, losses, np.exp(-far), far).share == pytest.approx(0.75, abs=1e-6)


def test_losses_that_do_not_fall_are_averaged_with_their_neighbours():
    """2.4 and 2.6 in the wrong order become 2.5 at the smaller of the two sizes."""
    tidy = bits_saved([10, 20, 80], [3.0, 2.5, 2.0], [20, 40, 160], [3.0, 2.5, 2.0])
    assert bits_saved([10, 20, 40, 80], [3.0, 2.4, 2.6, 2.0], [20, 40, 160], [3.0, 2.5, 2.0]) == pytest.approx(tidy)
    assert tidy.share == pytest.approx(0.5)


@pytest.mark.parametrize("other", [([10.0, 20.0], [1.5, 1.0]), ([10.0], [2.5]), ([10.0, 20.0], [2.5, 2.5])])
def test_fronts_without_a_common_loss_are_refused(other: tuple[list[float], list[float]]):
    with pytest.raises(DataError):
        bits_saved([10.0, 20.0], [3.0, 2.0], *other)
