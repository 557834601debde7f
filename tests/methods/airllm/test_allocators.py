"""Allocators against enumeration, hand-made losses and counts; greedy's bound is proved in its test."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from airtune.adapters import RankVector
from airtune.codec import Binding, Layout
from airtune.links import ChannelState, Link
from airtune.methods.airllm.allocation import AllocationEnv, AllocationState, Trial, project
from airtune.methods.airllm.allocators import AirLLM, Greedy, Random, Uniform, mean_reward
from airtune.tasks import Complexity

STATE = AllocationState(ChannelState(0.0, 1e6), Complexity(5.0, 0.1, 50), RankVector((1, 1, 1)))


class Separable:
    """Loss as a sum over sites; `falls[s][k]` is what direction k of site s takes off, less with every k."""

    def __init__(self, falls: list[list[float]]) -> None:
        self.falls = [sorted(site, reverse=True) for site in falls]
        self.tried: list[RankVector] = []

    def predict(self, ranks: np.ndarray) -> np.ndarray:
        return np.array([sum(sum(f[r:]) for f, r in zip(self.falls, row, strict=True)) for row in ranks])

    def try_ranks(self, ranks: RankVector) -> Trial:
        self.tried.append(ranks)
        return Trial(ranks, self.at(ranks))

    def at(self, ranks: RankVector) -> float:
        return float(self.predict(np.array([ranks.ranks]))[0])

    @property
    def caps(self) -> RankVector:
        return RankVector(tuple(len(site) for site in self.falls))


class ByFormula:
    """A trainee whose loss is a function of the ranks."""

    def __init__(self, loss) -> None:
        self.loss = loss
        self.tried: list[RankVector] = []

    def predict(self, ranks: np.ndarray) -> np.ndarray:
        return np.array([self.loss(row) for row in ranks], dtype=float)

    def try_ranks(self, ranks: RankVector) -> Trial:
        self.tried.append(ranks)
        return Trial(ranks, float(self.loss(np.array(ranks.ranks))))


def linear_bits(costs: np.ndarray, overhead: int = 100):
    return lambda ranks: overhead + int(np.array(ranks.ranks) @ costs)


def greedy_on(losses, caps: RankVector, costs, *, moves: int = 4, air_bits=None, predict=None) -> Greedy:
    costs = np.array(costs)
    air_bits = air_bits or linear_bits(costs)
    return Greedy(caps, air_bits, costs, predict or losses.predict, losses, moves=moves)


def all_ranks(caps: RankVector):
    return (RankVector(ranks) for ranks in itertools.product(*(range(cap + 1) for cap in caps.ranks)))


falls_of_sites = st.lists(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=3), min_size=3, max_size=4)


def test_uniform_asks_for_everything_whatever_the_state():
    caps = RankVector((8, 4, 2))
    assert Uniform(caps).decide(STATE, 1) == caps


def test_random_draws_every_rank_alike():
    caps = RankVector((1, 3, 8))
    random = Random(caps, np.random.default_rng(0))
    drawn = np.array([random.decide(STATE, 0).ranks for _ in range(6000)])
    for site, cap in enumerate(caps.ranks):
        counts = np.bincount(drawn[:, site], minlength=cap + 1)
        assert len(counts) == cap + 1
        assert stats.chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:, 1], drawn[:, 2])[0, 1]) < 0.05
    again = Random(caps, np.random.default_rng(0))
    assert [again.decide(STATE, 0).ranks for _ in range(3)] == [tuple(row) for row in drawn[:3].tolist()]


@settings(max_examples=40, deadline=None)
@given(falls_of_sites)
def test_greedy_is_optimal_where_directions_cost_the_same(falls):
    """Separable, convex, equal costs: taking the best directions one by one is optimal at every budget."""
    losses = Separable(falls)
    greedy = greedy_on(losses, losses.caps, [10] * len(falls))
    totals = {ranks: losses.at(ranks) for ranks in all_ranks(losses.caps)}
    for directions in range(losses.caps.total + 1):
        best = min(loss for ranks, loss in totals.items() if ranks.total <= directions)
        found = greedy.decide(STATE, 100 + 10 * directions)
        assert found.total <= directions
        assert losses.at(found) == pytest.approx(best, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(falls_of_sites, st.lists(st.integers(1, 9), min_size=4, max_size=4), st.floats(0, 1))
def test_greedy_is_within_one_direction_of_the_optimum(falls, costs, share):
    """Separable and convex, any costs: the gap is at most the largest fall of a single direction.

    Every vector on the path of elimination by loss per bit is optimal for the bits it needs (it solves the fractional
    knapsack there). The last one that does not fit needs more bits than the budget, so no feasible vector is better;
    the first one that fits is one direction below it, and what follows only lowers the loss.
    """
    losses, costs = Separable(falls), costs[: len(falls)]
    budget = 100 + int(share * np.dot(losses.caps.ranks, costs))
    air_bits = linear_bits(np.array(costs))
    best = min(losses.at(ranks) for ranks in all_ranks(losses.caps) if air_bits(ranks) <= budget)
    found = greedy_on(losses, losses.caps, costs).decide(STATE, budget)
    assert air_bits(found) <= budget
    assert losses.at(found) <= best + max(max(site) for site in losses.falls) + 1e-6


def test_sites_that_need_each_other_defeat_forward_greedy_and_not_elimination():
    """Sites 0 and 1 pay only together. With 4 of 8 directions: uniform 0.6, forward greedy 0.8, the best 0.4."""

    def loss(ranks: np.ndarray) -> float:
        return 1 - 0.3 * min(ranks[0], ranks[1]) - 0.05 * ranks[2] - 0.05 * ranks[3]

    caps, losses = RankVector((2, 2, 2, 2)), ByFormula(loss)
    forward = np.zeros(4, dtype=int)
    for _ in range(4):
        steps = [forward + np.eye(4, dtype=int)[site] for site in range(4) if forward[site] < 2]
        forward = min(steps, key=loss)
    assert loss(forward) == pytest.approx(0.8)
    uniform = project(caps, linear_bits(np.full(4, 10)), 140)
    assert (uniform.ranks, loss(np.array(uniform.ranks))) == ((1, 1, 1, 1), pytest.approx(0.6))
    found = greedy_on(losses, caps, [10] * 4, moves=0).decide(STATE, 140)
    assert (found.ranks, loss(np.array(found.ranks))) == ((2, 2, 0, 0), pytest.approx(0.4))


def test_a_move_is_judged_by_what_it_frees_as_well():
    """Costs 3, 2, 2 and a budget of 4: elimination keeps site 0 (3.5 off 7.5); sites 1 and 2 take 2 off each."""
    losses = Separable([[3.5], [2.0], [2.0]])
    found = greedy_on(losses, losses.caps, [3, 2, 2], moves=0).decide(STATE, 104)
    assert found.ranks == (0, 1, 1)
    assert losses.at(found) == 3.5


def test_elimination_weighs_loss_by_bits():
    """Two dear sites (10 bits for 2.0 and 2.1) and ten cheap ones (1 bit for 0.5); 10 bits buy the cheap ones: 5.0.

    By loss alone the dearer of the two stays, and no single move from there helps: its best is to the other dear site.
    """
    losses = Separable([[2.0], [2.1], *[[0.5]] * 10])
    found = greedy_on(losses, losses.caps, [10, 10, *[1] * 10], moves=0).propose(110)
    assert found.ranks == (0, 0, *[1] * 10)
    assert losses.tried == []  # a proposal is made on predictions alone


def test_the_real_loss_has_the_last_word():
    """The surrogate holds site 0 dear, in truth site 1 is: the measured move from site 0 to site 1 wins."""
    truth = Separable([[0.1], [1.0], [0.4]])
    mistaken = Separable([[1.0], [0.2], [0.1]])
    greedy = greedy_on(truth, truth.caps, [10, 10, 10], predict=mistaken.predict, moves=1)
    assert greedy.decide(STATE, 110).ranks == (0, 1, 0)
    assert [ranks.ranks for ranks in truth.tried] == [(1, 0, 0), (1, 0, 0), (0, 1, 0)]  # uniform refills site 0 first
    deaf = greedy_on(truth, truth.caps, [10, 10, 10], predict=mistaken.predict, moves=0)
    assert deaf.decide(STATE, 110).ranks == (1, 0, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5), st.floats(0, 1.1))
def test_greedy_never_exceeds_the_budget_nor_its_measurements_and_is_no_worse_than_uniform(seed, moves, share):
    """Predictions are noise, losses are noise, and bits jump as chunk headers do."""
    rng = np.random.default_rng(seed)
    caps = RankVector.of(rng.integers(1, 5, 5))
    costs = rng.integers(5, 40, 5)
    guess = rng.normal(size=(5, 5))
    truth = rng.normal(size=(5, 5))

    def air_bits(ranks: RankVector) -> int:
        body = int(np.array(ranks.ranks) @ costs)
        return 100 + body + 7 * -(-body // 64)

    losses = ByFormula(lambda ranks: truth[np.arange(5), ranks].sum())
    budget = 100 + int(share * (air_bits(caps) - 100))
    greedy = greedy_on(
        losses,
        caps,
        costs,
        moves=moves,
        air_bits=air_bits,
        predict=lambda ranks: guess[np.arange(5), ranks].sum(axis=1),
    )
    assert losses.tried == []  # the path is walked on predictions alone
    found = greedy.decide(STATE, budget)
    assert air_bits(found) <= budget
    assert len(losses.tried) <= 2 + moves
    assert all(air_bits(ranks) <= budget for ranks in losses.tried)
    uniform = project(caps, air_bits, budget)
    assert losses.loss(np.array(found.ranks)) <= losses.loss(np.array(uniform.ranks)) or found == caps


def test_the_full_adapter_is_the_answer_when_it_fits_and_one_bit_less_is_another_question():
    losses = Separable([[0.5, 0.4], [0.3, 0.2], [0.1, 0.05]])
    greedy = greedy_on(losses, losses.caps, [10, 10, 10])
    assert greedy.decide(STATE, 160) == losses.caps
    assert losses.tried == []
    assert greedy.decide(STATE, 159).ranks == (2, 2, 1)


def test_a_budget_is_searched_once():
    losses = Separable([[0.5, 0.4], [0.3, 0.2], [0.1, 0.05]])
    greedy = greedy_on(losses, losses.caps, [10, 10, 10])
    first = greedy.decide(STATE, 130)
    measured = len(losses.tried)
    assert measured == 5  # (2, 1, 0), uniform, and the three moves there are
    assert greedy.decide(STATE, 130) == first
    assert len(losses.tried) == measured


def test_greedy_fits_real_payloads_of_unequal_sites():
    shapes = {f"{layer}.{kind}": shape for layer in range(3) for kind, shape in (("q", (48, 48)), ("f", (192, 48)))}
    layout = Layout.of(shapes, {"head": (4, 48)}, Binding("0" * 64, "1" * 64), {})
    caps = RankVector((8,) * 6)
    weights = np.array([1.0, 0.5, 0.9, 2.0, 0.1, 0.3])
    losses = ByFormula(lambda ranks: (weights / (1 + np.array(ranks))).sum())

    def air_bits(ranks: RankVector) -> int:
        return layout.payload_bits(ranks.allocation(8))

    greedy = greedy_on(losses, caps, layout.site_bits(8), air_bits=air_bits, moves=2)
    least, full = air_bits(RankVector((0,) * 6)), air_bits(caps)
    before = np.inf
    for budget in np.linspace(least, full, 12).astype(int):
        found = greedy.decide(STATE, int(budget))
        assert air_bits(found) <= budget
        loss = losses.loss(found.ranks)
        assert loss <= losses.loss(project(caps, air_bits, int(budget)).ranks)
        assert loss <= before + 1e-9
        before = loss
        room = budget - air_bits(found)
        growable = [cost for cost, rank in zip(layout.site_bits(8), found.ranks, strict=True) if rank < 8]
        assert all(room < cost + 8 * 64 for cost in growable)  # nothing that fits was left out, but for chunk headers


def test_the_policy_decodes_its_action():
    policy = AirLLM(RankVector((8, 8, 4)), lambda states, noise: np.array([[1.0, -1.0, 0.0]]), seed=0)
    assert policy.decide(STATE, 0).ranks == (8, 0, 2)
    assert policy.name == "airllm"


def test_the_policy_decides_the_same_for_the_same_state_from_noise_that_is_fixed():
    def as_drawn(states: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        return np.tanh(noise.standard_normal((len(states), 3)))

    policies = [AirLLM(RankVector((8, 8, 8)), as_drawn, seed=seed) for seed in (0, 0, 1)]
    first, again, other = ([policy.decide(STATE, 0) for _ in range(3)] for policy in policies)
    assert len(set(first)) == 1
    assert first == again != other


def test_a_mean_reward_by_hand():
    """Uniform at rank 2 of 2 on a still link: loss 0.25, 120 bits at 1 kbit/s of 0.5 s, lambda 0.1."""
    env = AllocationEnv(
        ByFormula(lambda ranks: 0.25),
        RankVector((2,)),
        linear_bits(np.array([10])),
        [Link(1e3, 0.0)],
        [Complexity(5.0, 0.1, 50)],
        deadline_s=0.5,
        cost_weight=0.1,
    )
    assert mean_reward(env, Uniform(env.caps), episodes=3, seed=0) == pytest.approx(-0.25 - 0.1 * 0.12 / 0.5)
