"""Greedy's last word, its count of measurements, and random search, table and oracle beside enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.links import ChannelState
from airtune.methods.airllm.allocation import AllocationState, project
from airtune.methods.airllm.search.acquisition import Acquisition
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.greedy import ForwardGreedy, Greedy
from airtune.methods.airllm.search.lookup import LookupTable, RandomSearch
from airtune.methods.airllm.search.oracle import Oracle
from airtune.methods.airllm.search.space import Space
from small_losses import OVERHEAD, STATE, ByFormula, Separable, acquisition_on, all_ranks, linear_space


def greedy_on(losses: ByFormula, space: Space, evaluations: int, surrogate: ByFormula | None = None) -> Greedy:
    return Greedy(acquisition_on(losses, space, surrogate), evaluations=evaluations)


def test_the_real_loss_has_the_last_word():
    """The surrogate holds site 0 dear, in truth site 1 is: of three measured vectors the best is sent."""
    truth = Separable([[0.1], [1.0], [0.4]])
    mistaken = Separable([[1.0], [0.2], [0.1]])
    space = linear_space(truth.caps, [10, 10, 10])
    assert greedy_on(truth, space, 2, mistaken).decide(STATE, OVERHEAD + 10).ranks == (0, 1, 0)
    assert len(truth.tried) == 2


def test_what_was_measured_is_proposed_instead_of_what_was_predicted():
    """So a policy that learns from proposals knows the losses that greedy knows; budgets not asked for stay guesses."""
    truth = Separable([[0.1], [1.0], [0.4]])
    mistaken = Separable([[1.0], [0.2], [0.1]])
    space = linear_space(truth.caps, [10, 10, 10])
    greedy = greedy_on(truth, space, 2, mistaken)
    assert greedy.propose(OVERHEAD + 10).ranks == (1, 0, 0)
    assert greedy.settle(OVERHEAD + 10).ranks == (0, 1, 0) == greedy.decide(STATE, OVERHEAD + 10).ranks
    assert greedy.propose(OVERHEAD + 10).ranks == (0, 1, 0)
    assert greedy.propose(OVERHEAD + 20).ranks == (1, 1, 0)
    assert len(truth.tried) == 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7), st.floats(0, 1.1))
def test_greedy_never_exceeds_budget_or_evaluations_and_is_no_worse_than_uniform(seed, evaluations, share):
    """Predictions are noise, losses are noise, and bits jump as chunk headers do."""
    rng = np.random.default_rng(seed)
    caps = RankVector.of(rng.integers(1, 5, 5))
    costs = rng.integers(5, 40, 5)
    guess, truth = rng.normal(size=(5, 5)), rng.normal(size=(5, 5))

    def air_bits(ranks: RankVector) -> int:
        body = int(np.array(ranks.ranks) @ costs)
        return OVERHEAD + body + 7 * -(-body // 64)

    space = Space(caps, air_bits, costs)
    losses = ByFormula(lambda ranks: truth[np.arange(5), ranks].sum())
    surrogate = ByFormula(lambda ranks: guess[np.arange(5), ranks].sum())
    budget = OVERHEAD + int(share * (air_bits(caps) - OVERHEAD))
    found = greedy_on(losses, space, evaluations, surrogate).decide(STATE, budget)
    assert air_bits(found) <= budget
    assert len(losses.tried) <= evaluations
    assert all(air_bits(ranks) <= budget for ranks in losses.tried)
    assert found == caps or losses.at(found) <= losses.at(space.uniform(budget))


def test_a_budget_is_searched_once():
    losses = Separable([[0.5, 0.4], [0.3, 0.2], [0.1, 0.05]])
    greedy = greedy_on(losses, linear_space(losses.caps, [10] * 3), 4)
    assert greedy.decide(STATE, OVERHEAD + 60) == losses.caps
    assert losses.tried == [losses.caps]  # it has no neighbours
    losses.tried.clear()
    first = greedy.decide(STATE, OVERHEAD + 30)
    assert first.ranks == (2, 1, 0)
    assert len(losses.tried) == 4
    assert greedy.decide(STATE, OVERHEAD + 30) == first
    assert len(losses.tried) == 4


def test_fewer_directions_are_sent_where_they_were_measured_to_be_better():
    """Loss (total - 3)^2 of caps (2, 2, 2): everything fits and costs 9, a probe of total 3 costs nothing."""
    losses = ByFormula(lambda ranks: float((np.sum(ranks) - 3) ** 2))
    space = linear_space(RankVector((2, 2, 2)), [10] * 3)
    archive = Archive(losses, space.air_bits)
    archive.measure(RankVector((1, 1, 1)))
    greedy = Greedy(Acquisition(space, losses, archive), evaluations=3)
    assert greedy.decide(STATE, 10**9).ranks == (1, 1, 1)


def test_forward_greedy_by_measured_losses_is_blind_to_what_pays_only_together():
    """With 4 of 8 directions: forward greedy 0.8, uniform 0.6, the best 0.4."""
    losses = ByFormula(lambda ranks: 1 - 0.3 * min(ranks[0], ranks[1]) - 0.05 * ranks[2] - 0.05 * ranks[3])
    space = linear_space(RankVector((2, 2, 2, 2)), [10] * 4)
    archive = Archive(losses, space.air_bits)

    def measured(ranks: np.ndarray) -> np.ndarray:
        return np.array([archive.measure(RankVector.of(row)).loss for row in ranks])

    found = ForwardGreedy(space, measured).decide(STATE, OVERHEAD + 40)
    assert found.ranks == (0, 0, 2, 2)
    assert losses.at(found) == pytest.approx(0.8)
    assert losses.at(greedy_on(losses, space, 2).decide(STATE, OVERHEAD + 40)) == pytest.approx(0.4)


def test_random_search_sends_the_best_of_what_it_drew():
    losses = ByFormula(lambda ranks: float(np.sin(7 * np.array(ranks) @ [1.0, 2.3, 0.7])))
    space = linear_space(RankVector((4, 4, 4)), [10, 20, 30])
    archive = Archive(losses, space.air_bits)
    search = RandomSearch(space, archive, np.random.default_rng(0), evaluations=12)
    budget = OVERHEAD + 110
    found = search.decide(STATE, budget)
    rng = np.random.default_rng(0)
    drawn = [RankVector.of(rng.integers(0, [5, 5, 5])) for _ in range(11)]
    candidates = [space.uniform(budget), *(project(ranks, space.air_bits, budget) for ranks in drawn)]
    assert losses.at(found) == min(losses.at(ranks) for ranks in candidates)
    assert losses.tried == list(dict.fromkeys(candidates))
    assert search.decide(STATE, budget) == found
    assert losses.tried == list(dict.fromkeys(candidates))


def test_the_table_answers_with_the_nearest_snr_not_above():
    losses = ByFormula(lambda ranks: -float(np.sum(ranks)))
    space = linear_space(RankVector((4, 4)), [10, 10])
    archive = Archive(losses, space.air_bits)
    for ranks in ((1, 0), (2, 1), (4, 3)):
        archive.measure(RankVector(ranks))
    table = LookupTable(archive, {5.0: OVERHEAD + 40, -5.0: OVERHEAD + 10, 15.0: OVERHEAD + 80})
    archive.measure(RankVector((4, 4)))  # too late
    answers = {-30.0: (1, 0), -5.0: (1, 0), 4.9: (1, 0), 5.0: (2, 1), 14.9: (2, 1), 15.0: (4, 3), 40.0: (4, 3)}
    for snr_db, ranks in answers.items():
        state = AllocationState(ChannelState(snr_db, 1e6), STATE.complexity, STATE.ranks)
        assert table.decide(state, 0).ranks == ranks
    above = LookupTable(archive, {5.0: OVERHEAD + 40, -5.0: OVERHEAD + 10}, above=True)
    for snr_db, ranks in {-30.0: (1, 0), -5.0: (1, 0), -4.9: (2, 1), 5.0: (2, 1), 40.0: (2, 1)}.items():
        state = AllocationState(ChannelState(snr_db, 1e6), STATE.complexity, STATE.ranks)
        assert above.decide(state, 0).ranks == ranks
    with pytest.raises(ConfigError, match="fits 105 bits"):
        LookupTable(archive, {0.0: OVERHEAD + 5})
    with pytest.raises(ConfigError, match="no SNR"):
        LookupTable(archive, {})


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_oracle_is_enumeration(seed, share):
    rng = np.random.default_rng(seed)
    table, costs = rng.normal(size=(3, 4, 2)), rng.integers(1, 9, 3)
    space = linear_space(RankVector((2, 3, 1)), costs)
    losses = ByFormula(lambda ranks: float(table[tuple(ranks)]))
    budget = OVERHEAD + int(share * (np.array([2, 3, 1]) @ costs))
    found = Oracle(space, Archive(losses, space.air_bits)).decide(STATE, budget)
    fitting = [
        ranks
        for ranks in itertools.product(range(3), range(4), range(2))
        if np.dot(ranks, costs) <= share * (np.array([2, 3, 1]) @ costs)
    ]
    assert found.ranks == min(fitting, key=lambda ranks: table[ranks])
    assert len(losses.tried) == len(fitting)


def test_the_oracle_refuses_what_it_cannot_try():
    space = linear_space(RankVector((8,) * 35), [10] * 35)
    with pytest.raises(ConfigError, match=r"35 sites have 2.5e\+33 allocations, the oracle tries at most 10000"):
        Oracle(space, Archive(ByFormula(lambda ranks: 0.0), space.air_bits))
    assert len(list(all_ranks(RankVector((2, 3, 1))))) == 24
    small = linear_space(RankVector((2, 3, 1)), [10] * 3)
    with pytest.raises(ConfigError, match="24 allocations"):
        Oracle(small, Archive(ByFormula(lambda ranks: 0.0), small.air_bits), most=23)
