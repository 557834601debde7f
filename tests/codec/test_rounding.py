"""Rounding under a metric: against its definition with dense solves, Schur complements and brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from airtune.codec.coded import rounding
from airtune.codec.coded.rounding import Metric, Rounding, round_together
from airtune.codec.entropy import LARGEST_CODE, TABLES, best_table, largest_code
from airtune.codec.entropy.tables import table
from airtune.errors import PayloadError


def correlated(size: int, seed: int = 0, samples: int | None = None) -> np.ndarray:
    """Second moments of correlated numbers of different sizes, shape (size, size)."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(samples or 3 * size, size)) @ rng.normal(size=(size, size))
    mixed *= np.exp(rng.normal(size=size) / 2)
    return mixed.T @ mixed / len(mixed)


def damped(weights: np.ndarray) -> np.ndarray:
    """The matrix with a tenth of its mean eigenvalue added to all of them, scaled back to that mean."""
    matrix = np.diag(weights) if weights.ndim == 1 else weights
    return (matrix + 0.1 * np.trace(matrix) / len(matrix) * np.eye(len(matrix))) / 1.1


def bits_of(code: int, index: int) -> float:
    """What a code costs; 64 where the table does not hold it."""
    largest = largest_code(index)
    return 24 - np.log2(table(index).frequencies[code + largest]) if abs(code) <= largest else 64.0


def cheapest_table(codes: np.ndarray) -> int:
    return min(range(TABLES), key=lambda index: (sum(bits_of(code, index) for code in codes.tolist()), index))


def best_of_three(exact: float, counts: float, price: float, index: int) -> int:
    """Of the nearest code, the next towards zero and zero, the one of least squared error and price of its bits."""
    nearest = round(exact)
    candidates = [nearest, nearest - int(np.sign(nearest)), 0]
    return min(candidates, key=lambda code: counts * (exact - code) ** 2 + price * bits_of(code, index))


def left_over(matrix: np.ndarray, at: int, free: list[int]) -> float:
    """What entry `at` counts once the free entries adapt to it: the Schur complement."""
    adapted = np.linalg.solve(matrix[np.ix_(free, free)], matrix[free, at]) if free else np.zeros(0)
    return float(matrix[at, at] - matrix[at, free] @ adapted)


def by_definition(matrix: np.ndarray, row: np.ndarray, step: float, price: float = 0.0, index: int = 20) -> np.ndarray:
    """Fix entries one by one, what counts most first; move the others to the least error that is left to them."""
    size = len(row)
    order = sorted(range(size), key=lambda at: -matrix[at, at])
    codes, now = np.zeros(size, int), row.copy()
    for done, at in enumerate(order):
        fixed, free = order[: done + 1], order[done + 1 :]
        codes[at] = best_of_three(now[at] / step, left_over(matrix, at, free) * step**2, price, index)
        error = codes[fixed] * step - row[fixed]
        if free:  # d/dx of (x - row) M (x - row)^T over the free entries is 0
            now[free] = row[free] - np.linalg.solve(matrix[np.ix_(free, free)], matrix[np.ix_(free, fixed)] @ error)
    return codes


METRICS = {
    "none": (None, np.eye(6)),
    "zeros": (np.zeros((6, 6)), 1e-100 * np.eye(6)),
    "diagonal": (np.arange(6.0), damped(np.arange(6.0))),
    "matrix": (correlated(6), damped(correlated(6))),
    "of low rank": (correlated(6, samples=2), damped(correlated(6, samples=2))),
    "float32": (correlated(6).astype(np.float32), damped(correlated(6).astype(np.float32).astype(float))),
}


@pytest.fixture(autouse=True, params=[64, 3], ids=["in one block", "in blocks"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is fed back goes through one block of columns, or through several."""
    monkeypatch.setattr(rounding, "_BLOCK", request.param)


@pytest.mark.parametrize(("weights", "matrix"), METRICS.values(), ids=METRICS)
def test_inner_products_are_the_matrix(weights, matrix: np.ndarray):
    rng, metric = np.random.default_rng(1), Metric(weights, 6)
    rows, others = rng.normal(size=(2, 4, 6))
    assert np.allclose(metric.weighted(rows) @ others.T, rows @ matrix @ others.T)
    assert np.allclose(metric.square(rows), [row @ matrix @ row for row in rows])


@pytest.mark.parametrize(("weights", "matrix"), METRICS.values(), ids=METRICS)
def test_whitened_rows_have_plain_inner_products(weights, matrix: np.ndarray):
    rows, metric = np.random.default_rng(2).normal(size=(4, 6)), Metric(weights, 6)
    white = metric.whiten(rows)
    assert np.allclose(white @ white.T, rows @ matrix @ rows.T)
    assert np.allclose(metric.unwhiten(white), rows)


@pytest.mark.parametrize(("weights", "matrix"), METRICS.values(), ids=METRICS)
def test_importance_is_what_is_left_once_later_entries_adapt(weights, matrix: np.ndarray):
    found = Metric(weights, 6).importance
    order = sorted(range(6), key=lambda at: -matrix[at, at])
    for done, at in enumerate(order):
        assert found[at] == pytest.approx(left_over(matrix, at, order[done + 1 :]))
    assert Metric(weights, 6).mean_importance == pytest.approx(found.mean())
    assert np.prod(found) == pytest.approx(np.linalg.det(matrix))


@pytest.mark.parametrize("step", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("name", METRICS)
def test_rounding_is_its_definition(name: str, step: float):
    weights, matrix = METRICS[name]
    rows = np.random.default_rng(3).normal(size=(8, 6))
    steps = step * np.linspace(0.5, 2, 8)
    expected = [by_definition(matrix, row, own) for row, own in zip(rows, steps, strict=True)]
    codes = Metric(weights, 6).round(rows, steps)
    assert codes.dtype == np.int16
    assert codes.tolist() == np.array(expected).tolist()


@pytest.mark.parametrize("weights", [None, np.arange(1.0, 8.0)])
def test_without_correlation_rounding_is_to_the_nearest(weights):
    rows = np.random.default_rng(4).normal(size=(5, 7))
    steps = np.full(5, 0.13)
    assert np.array_equal(Metric(weights, 7).round(rows, steps), np.rint(rows / 0.13))
    full = None if weights is None else np.diag(weights)
    assert np.array_equal(Metric(full, 7).round(rows, steps), np.rint(rows / 0.13))


def test_feedback_lowers_the_error_of_a_correlated_metric():
    weights = correlated(24, samples=12)
    matrix, rows = damped(weights), np.random.default_rng(5).normal(size=(64, 24))
    metric = Metric(weights, 24)

    def mean_error(codes: np.ndarray) -> float:
        errors = rows - 0.2 * codes
        return float(np.mean([error @ matrix @ error for error in errors]))

    fed_back = mean_error(metric.round(rows, np.full(64, 0.2)))
    assert fed_back < 0.5 * mean_error(np.rint(rows / 0.2))
    # each entry's rounding error is uniform over a step, and counts its importance: step^2 / 12 of it on average
    assert fed_back == pytest.approx(24 * metric.mean_importance * 0.2**2 / 12, rel=0.1)


def test_codes_stay_within_the_largest():
    rows = np.array([[1e9, -1e9, 3.0]])
    assert Metric(None, 3).round(rows, np.ones(1)).tolist() == [[LARGEST_CODE, -LARGEST_CODE, 3]]
    codes = Metric(correlated(3), 3).round(rows, np.ones(1))
    assert np.abs(codes).max() <= LARGEST_CODE


@pytest.mark.parametrize("price", [0.0, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("weights", [None, np.arange(0.2, 3, 0.1), correlated(28)], ids=["none", "diagonal", "matrix"])
def test_prices_choose_the_best_of_three_codes(weights, price: float):
    matrix = np.eye(28) if weights is None else damped(weights)
    rows, steps = np.random.default_rng(6).normal(scale=2, size=(3, 28)), np.array([0.5, 1.0, 0.2])
    prices = price * np.array([1, 0.5, 2]) * Metric(weights, 28).mean_importance
    expected, to_the_nearest = [], []
    for row, step, own in zip(rows, steps, prices, strict=True):
        nearest = by_definition(matrix, row, step)
        index = cheapest_table(nearest)
        assert index == best_table(nearest)[0]
        to_the_nearest.append(nearest.tolist())
        expected.append(by_definition(matrix, row, step, own, index).tolist())
    assert Metric(weights, 28).round(rows, steps, prices).tolist() == expected
    assert (price == 0) == (expected == to_the_nearest)


@pytest.mark.parametrize("weights", [None, correlated(30)], ids=["none", "matrix"])
def test_dearer_bits_are_bought_less(weights):
    rows, metric = np.random.default_rng(7).normal(scale=3, size=(4, 30)), Metric(weights, 30)
    codes = [
        metric.round(rows, np.ones(4), np.full(4, price * metric.mean_importance)) for price in (0.0, 0.1, 1.0, 1e6)
    ]
    bits = [sum(best_table(row)[1] for row in found) for found in codes]
    assert bits[0] > bits[1] > bits[2] > bits[3] == 0


INDEFINITE = np.array([[1.0, 3.0], [3.0, 1.0]])
REFUSED = {
    "another size": (np.ones(3), r"shape \(3,\); give finite numbers of shape \(2, 2\) or \(2,\)"),
    "not square": (np.ones((2, 3)), r"shape \(2, 3\)"),
    "three axes": (np.ones((2, 2, 1)), "shape"),
    "NaN": (np.array([1.0, np.nan]), "finite"),
    "NaN in a matrix": (np.full((2, 2), np.nan), "finite"),
    "infinite": (np.array([np.inf, 1.0]), "finite"),
    "indefinite": (INDEFINITE, "positive semidefinite"),
    "negative": (-np.eye(2), "positive semidefinite"),
    "of no trace": (np.diag([1.0, -1.0]), "positive semidefinite"),
    "negative diagonal": (np.array([1.0, -1.0]), "positive semidefinite"),
}


@pytest.mark.parametrize(("weights", "message"), REFUSED.values(), ids=REFUSED)
def test_other_metrics_are_refused(weights, message: str):
    with pytest.raises(PayloadError, match=message) as refusal:
        Metric(weights, 2)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("weights", "matrix"), METRICS.values(), ids=METRICS)
def test_errors_are_fed_back_under_any_way_of_rounding(weights, matrix: np.ndarray):
    """To whole steps it is `round`; to a coarser set of values, the definition with that set."""
    rng, metric = np.random.default_rng(5), Metric(weights, 6)
    rows, steps = rng.normal(size=(3, 6)), np.array([0.3, 0.5, 0.2])
    codes = metric.round(rows, steps)
    whole = metric.fed_back(rows, lambda part: np.round(part / steps[:, None]) * steps[:, None])
    np.testing.assert_allclose(whole, codes * steps[:, None], atol=1e-12)
    values = np.array([-1.5, -0.4, 0.4, 1.5])
    found = metric.fed_back(rows, lambda part: values[np.abs(part[..., None] - values).argmin(axis=-1)])
    for row, rounded in zip(rows, found, strict=True):
        now, order = row.copy(), sorted(range(6), key=lambda at: -matrix[at, at])
        for done, at in enumerate(order):
            fixed, free = order[: done + 1], order[done + 1 :]
            assert rounded[at] == values[np.abs(now[at] - values).argmin()]
            if free:
                error = rounded[fixed] - row[fixed]
                now[free] = row[free] - np.linalg.solve(matrix[np.ix_(free, free)], matrix[np.ix_(free, fixed)] @ error)


def test_what_is_rounded_together_is_what_each_becomes_alone():
    """Two sizes, two numbers of rows, metrics with and without feedback, rows without number, and one with prices."""
    rng = np.random.default_rng(5)
    asked = []
    for seed, (size, count) in enumerate([(6, 3), (9, 3), (6, 3), (6, 2), (6, 3), (9, 3), (6, 0)]):
        steps = rng.uniform(0.05, 0.3, count)
        asked.append(Rounding(Metric(correlated(size, seed), size), rng.normal(size=(count, size)), steps))
    asked.append(Rounding(Metric(rng.uniform(1, 2, 6), 6), rng.normal(size=(3, 6)), np.full(3, 0.1)))
    asked.append(replace(asked[0], prices=np.full(3, 1e3)))
    found = round_together(asked)
    assert len(found) == len(asked)
    for one, codes in zip(asked, found, strict=True):
        assert codes.dtype == np.int16
        np.testing.assert_array_equal(codes, one.metric.round(one.rows, one.steps, one.prices))
    assert not np.array_equal(found[0], np.rint(asked[0].rows / asked[0].steps[:, None]))  # errors are fed back
    assert not np.array_equal(found[0], found[-1])
    assert round_together([]) == []
