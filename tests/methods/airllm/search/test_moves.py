"""Searches on known losses against enumeration, hand-made counter-examples and a proved bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.adapters import RankVector
from airtune.codec import Binding, Layout
from airtune.methods.airllm.search.moves import (
    LEAST_EXCHANGE,
    best_fitting,
    eliminate,
    exchange,
    forward,
    neighbours,
    priced,
    propose,
)
from airtune.methods.airllm.search.space import Space
from small_losses import OVERHEAD, ByFormula, Separable, all_ranks, best_loss, linear_space

falls_of_sites = st.lists(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=3), min_size=3, max_size=4)


def proposed(losses: ByFormula, space: Space, budget_bits: int) -> RankVector:
    return propose(space, eliminate(space, losses.predict), budget_bits, losses.predict)


def pair_of_partners(ranks: np.ndarray) -> float:
    """Sites 0 and 1 pay only together; sites 2 and 3 pay a little each."""
    return 1 - 0.3 * min(ranks[0], ranks[1]) - 0.05 * ranks[2] - 0.05 * ranks[3]


@settings(max_examples=40, deadline=None)
@given(falls_of_sites)
def test_elimination_is_optimal_where_directions_cost_the_same(falls):
    """Separable, convex, equal costs: taking the best directions one by one is optimal at every budget."""
    losses = Separable(falls)
    space = linear_space(losses.caps, [10] * len(falls))
    totals = {ranks: losses.at(ranks) for ranks in all_ranks(losses.caps)}
    for directions in range(losses.caps.total + 1):
        best = min(loss for ranks, loss in totals.items() if ranks.total <= directions)
        for found in (
            proposed(losses, space, OVERHEAD + 10 * directions),
            forward(space, OVERHEAD + 10 * directions, losses.predict),
        ):
            assert found.total <= directions
            assert losses.at(found) == pytest.approx(best, abs=directions * LEAST_EXCHANGE + 1e-6)


@settings(max_examples=60, deadline=None)
@given(falls_of_sites, st.lists(st.integers(1, 9), min_size=4, max_size=4), st.floats(0, 1))
def test_a_proposal_is_within_one_direction_of_the_optimum(falls, costs, share):
    """Separable and convex, any costs: the gap is at most the largest fall of a single direction.

    Every vector on the path of elimination by loss per bit is optimal for the bits it needs (it solves the fractional
    knapsack there). The last one that does not fit needs more bits than the budget, so no feasible vector is better;
    the first one that fits is one direction below it, and what follows only lowers the loss.
    """
    losses, costs = Separable(falls), costs[: len(falls)]
    space = linear_space(losses.caps, costs)
    budget = OVERHEAD + int(share * np.dot(losses.caps.ranks, costs))
    found = proposed(losses, space, budget)
    assert space.air_bits(found) <= budget
    assert losses.at(found) <= best_loss(losses, space, budget) + max(max(site) for site in losses.falls) + 1e-6


@settings(max_examples=40, deadline=None)
@given(falls_of_sites, st.integers(0, 10), st.randoms(use_true_random=False))
def test_exchange_reaches_the_optimum_from_anywhere_where_directions_cost_the_same(falls, directions, random):
    """Separable, convex, equal costs: a full vector that no exchange improves holds the best directions."""
    losses = Separable(falls)
    space = linear_space(losses.caps, [10] * len(falls))
    directions = min(directions, losses.caps.total)
    start = random.choice([ranks for ranks in all_ranks(losses.caps) if ranks.total == directions])
    budget = OVERHEAD + 10 * directions
    found = exchange(space, np.array(start.ranks), budget, losses.predict)
    assert found.sum() == directions
    assert losses.loss(found) == pytest.approx(best_loss(losses, space, budget), abs=directions * LEAST_EXCHANGE + 1e-6)


def test_sites_that_need_each_other_defeat_forward_greedy_and_not_elimination():
    """With 4 of 8 directions: uniform 0.6, forward greedy 0.8, the best 0.4."""
    caps, losses = RankVector((2, 2, 2, 2)), ByFormula(pair_of_partners)
    space = linear_space(caps, [10] * 4)
    budget = OVERHEAD + 40
    assert forward(space, budget, losses.predict).ranks == (0, 0, 2, 2)
    assert losses.at(RankVector((0, 0, 2, 2))) == pytest.approx(0.8)
    assert space.uniform(budget).ranks == (1, 1, 1, 1)
    assert losses.at(RankVector((1, 1, 1, 1))) == pytest.approx(0.6)
    assert proposed(losses, space, budget).ranks == (2, 2, 0, 0)
    assert best_loss(losses, space, budget) == pytest.approx(0.4) == losses.at(RankVector((2, 2, 0, 0)))


def test_an_exchange_is_judged_by_what_it_frees_as_well():
    """Costs 3, 2, 2 and a budget of 4: elimination keeps site 0 (3.5 off 7.5); sites 1 and 2 take 2 off each."""
    losses = Separable([[3.5], [2.0], [2.0]])
    space = linear_space(losses.caps, [3, 2, 2])
    assert best_fitting(space, eliminate(space, losses.predict), OVERHEAD + 4, losses.predict).tolist() == [1, 0, 0]
    assert proposed(losses, space, OVERHEAD + 4).ranks == (0, 1, 1)


def test_a_dear_direction_is_paid_for_by_two_cheap_ones():
    """Costs 2 and 3, budget 4: (2, 0) is full; site 1 costs both directions of site 0 and is worth it."""
    losses = Separable([[0.1, 0.1], [1.0]])
    space = linear_space(losses.caps, [2, 3])
    assert exchange(space, np.array([2, 0]), OVERHEAD + 4, losses.predict).tolist() == [0, 1]


def test_elimination_weighs_loss_by_bits():
    """Two dear sites (10 bits for 2.0 and 2.1) and ten cheap ones (1 bit for 0.5); 10 bits buy the cheap ones: 5.0.

    By loss alone the dearer of the two stays, and no single exchange from there helps: its best is to the other one.
    """
    losses = Separable([[2.0], [2.1], *[[0.5]] * 10])
    space = linear_space(losses.caps, [10, 10, *[1] * 10])
    assert proposed(losses, space, OVERHEAD + 10).ranks == (0, 0, *[1] * 10)


def test_neighbours_come_most_promising_first_and_none_twice():
    losses = Separable([[0.5, 0.4], [0.3, 0.1], [0.1, 0.05]])
    space = linear_space(losses.caps, [10, 10, 10])
    found = [tuple(row.tolist()) for row in neighbours(space, np.array([1, 1, 1]), OVERHEAD + 30, losses.predict)]
    # each of three gives to each of two; what is left of 1.45 is 0.25, 0.45, 0.55, 0.8, 0.95, 1
    assert found == [(2, 1, 0), (2, 0, 1), (1, 2, 0), (1, 0, 2), (0, 2, 1), (0, 1, 2)]


def test_the_full_adapter_needs_no_search():
    losses = Separable([[0.5, 0.4], [0.3, 0.2], [0.1, 0.05]])
    space = linear_space(losses.caps, [10, 10, 10])
    assert proposed(losses, space, OVERHEAD + 60) == losses.caps
    assert proposed(losses, space, OVERHEAD + 59).ranks == (2, 2, 1)


def test_a_direction_that_costs_more_than_it_promises_is_not_bought():
    """10 bits a direction at 0.02 nat a bit: those worth 0.5 and 0.3 nat pay their 0.2, the one of 0.1 does not."""
    losses = Separable([[0.5, 0.1], [0.3]])
    space = linear_space(losses.caps, [10, 10])
    objective = priced(space, losses.predict, 0.02)
    assert objective(np.array([[2, 1]])) == pytest.approx([0.6])
    for budget in (OVERHEAD + 20, OVERHEAD + 30, OVERHEAD + 90):
        assert propose(space, eliminate(space, losses.predict), budget, objective).ranks == (1, 1)
    assert propose(space, eliminate(space, losses.predict), OVERHEAD + 10, objective).ranks == (1, 0)
    assert proposed(losses, space, OVERHEAD + 30).ranks == (2, 1)


def test_what_is_predicted_to_harm_is_left_out_even_where_it_fits():
    losses = ByFormula(lambda ranks: 1 - 0.3 * ranks[0] + 0.1 * ranks[1])
    space = linear_space(RankVector((2, 1)), [10, 10])
    assert proposed(losses, space, OVERHEAD + 30).ranks == (2, 0)


def test_proposals_fit_real_payloads_of_unequal_sites():
    shapes = {f"{layer}.{kind}": shape for layer in range(3) for kind, shape in (("q", (48, 48)), ("f", (192, 48)))}
    layout = Layout.of(shapes, {"head": (4, 48)}, Binding("0" * 64, "1" * 64), {})
    caps = RankVector((8,) * 6)
    weights = np.array([1.0, 0.5, 0.9, 2.0, 0.1, 0.3])
    losses = ByFormula(lambda ranks: (weights / (1 + np.array(ranks))).sum())
    space = Space(caps, lambda ranks: layout.payload_bits(ranks.allocation(8)), layout.site_bits(8))
    least, full = space.bits(np.zeros(6, dtype=int)), space.bits(space.top)
    before = np.inf
    for budget in np.linspace(least, full, 12).astype(int).tolist():
        found = proposed(losses, space, budget)
        assert space.air_bits(found) <= budget
        assert losses.at(found) <= losses.at(space.uniform(budget)) + 1e-9
        assert losses.at(found) <= before + 1e-9
        before = losses.at(found)
        room = budget - space.air_bits(found)
        growable = [cost for cost, rank in zip(layout.site_bits(8), found.ranks, strict=True) if rank < 8]
        assert all(room < cost + 8 * 64 for cost in growable)  # nothing that fits was left out, but for chunk headers
