"""Truncation against numpy's SVD of the dense update, Eckart and Young's error, and choices worked out by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from airtune.adapters import RankVector
from airtune.codec import Factors
from airtune.errors import ConfigError
from airtune.methods.airllm.baselines.truncation import cut, keep_within, spectral


def random_factors(out: int, rank: int, fan_in: int, seed: int = 0) -> Factors:
    """Directions of very different size, not orthogonal to each other."""
    rng = np.random.default_rng(seed)
    sizes = 3.0 ** -np.arange(rank) * rng.choice([-1, 1], rank)
    return Factors(rng.normal(size=(out, rank)), sizes, rng.normal(size=(rank, fan_in)))


SHAPES = [(12, 3, 7), (7, 3, 12), (9, 1, 9), (6, 6, 10), (4, 9, 5), (16, 5, 3), (8, 0, 6)]


@pytest.mark.parametrize(("out", "rank", "fan_in"), SHAPES)
def test_the_update_is_the_same_and_has_the_singular_values_of_the_dense_one(out, rank, fan_in):
    raw = random_factors(out, rank, fan_in)
    found = spectral(raw)
    kept = min(out, rank, fan_in)
    assert found.rank == kept
    assert found.update() == pytest.approx(raw.update(), abs=2e-6)
    assert found.lam == pytest.approx(np.linalg.svd(raw.update(), compute_uv=False)[:kept], abs=2e-6)
    assert found.p.T @ found.p == pytest.approx(np.eye(kept), abs=1e-6)
    assert found.q @ found.q.T == pytest.approx(np.eye(kept), abs=1e-6)


@pytest.mark.parametrize(("out", "rank", "fan_in"), SHAPES)
def test_every_prefix_is_the_best_approximation_of_its_rank(out, rank, fan_in):
    """Eckart and Young: the squared error of the best rank-k approximation is the sum of the other squared values."""
    raw = random_factors(out, rank, fan_in, seed=1)
    found, values = spectral(raw), np.linalg.svd(raw.update(), compute_uv=False)
    for k in range(found.rank + 1):
        error = np.linalg.norm(raw.update() - found.prefix(k).update())
        assert error == pytest.approx(np.sqrt(np.sum(values[k:] ** 2)), abs=5e-6)
    if found.rank > 2:  # the factors' own prefix is not that
        assert np.linalg.norm(raw.update() - raw.prefix(1).update()) > np.sqrt(np.sum(values[1:] ** 2)) + 1e-3


def with_values(*values: float) -> Factors:
    count = len(values)
    return Factors(np.eye(4, count), np.array(values, np.float32), np.eye(count, 5))


SITES = {"a": with_values(5.0, 1.0), "b": with_values(4.0, 3.0, 2.0), "c": with_values(0.5)}


def test_a_cut_has_as_many_directions_as_it_is_asked_for():
    assert [site.rank for site in cut(SITES, RankVector((1, 3, 0))).values()] == [1, 3, 0]


COSTS = np.array([10, 40, 1])


def bits(ranks: RankVector) -> int:
    return 7 + int(np.array(ranks.ranks) @ COSTS)


@pytest.mark.parametrize(
    ("budget", "ranks"),
    [
        (7, (0, 0, 0)),
        (8, (0, 0, 1)),  # a's first has the most energy per bit (2.5), but does not fit: c's (0.25)
        (17, (1, 0, 0)),
        (18, (1, 0, 1)),
        (57, (1, 1, 0)),  # then b's first (0.4), which leaves nothing
        (68, (2, 1, 1)),  # b's second (0.225) no longer fits, which closes b; c's and a's second (0.1) do
        (148, (2, 3, 1)),
        (1e9, (2, 3, 1)),
    ],
)
def test_a_budget_keeps_the_most_energy_per_bit(budget, ranks):
    found = keep_within(SITES, COSTS, bits, budget)
    assert found.ranks == ranks
    assert bits(found) <= budget


def test_where_every_direction_costs_the_same_the_energy_kept_is_the_most_there_is():
    for count in range(7):
        kept = keep_within(SITES, np.array([10, 10, 10]), lambda ranks: 10 * ranks.total, 10 * count + 9)
        energies = [
            sum(float(np.sum(site.lam[:rank] ** 2)) for site, rank in zip(SITES.values(), ranks, strict=True))
            for ranks in product(range(3), range(4), range(2))
            if sum(ranks) == count
        ]
        found = sum(float(np.sum(site.lam**2)) for site in cut(SITES, kept).values())
        assert found == pytest.approx(max(energies))


def test_a_budget_below_head_and_container_is_refused():
    with pytest.raises(ConfigError, match="alone take 7 bits, the budget is 6"):
        keep_within(SITES, COSTS, bits, 6.4)
