"""State, cost, reward and projection by hand; the environments under Gymnasium's and stable-baselines3's checkers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from airtune.adapters import RankVector
from airtune.errors import DeadlineError
from airtune.links import ChannelState, Link, Rayleigh
from airtune.methods.airllm.allocation import (
    AllocationState,
    Trial,
    allocation_reward,
    communication_cost,
    decision_budget,
    project,
)
from airtune.methods.airllm.environment import AllocationEnv
from airtune.tasks import Complexity

CAPS = RankVector((8, 8, 4, 8))
COSTS = np.array([10, 30, 20, 5])


def air_bits(ranks: RankVector) -> int:
    return 100 + int(np.array(ranks.ranks) @ COSTS)


class Quadratic:
    """Loss that falls with rank, most at site 0: easy to learn, known exactly."""

    def try_ranks(self, ranks: RankVector) -> Trial:
        share = np.array(ranks.ranks) / np.array(CAPS.ranks)
        return Trial(ranks, float((1 - share) ** 2 @ [4, 1, 1, 1]), measured=False)


def new_env(horizon: int = 1, links: tuple[Link, ...] = (Link(1e3, 0.0), Link(500.0, -3.0))) -> AllocationEnv:
    complexities = [Complexity(5.0, 0.1, 50), Complexity(6.0, 0.3, 60)]
    return AllocationEnv(
        Quadratic(), CAPS, air_bits, links, complexities, deadline_s=0.5, cost_weight=0.1, horizon=horizon
    )


def test_the_state_vector_by_hand():
    state = AllocationState(ChannelState(10.0, 1e6), Complexity(8.0, 0.25, 40), RankVector((8, 4, 1, 0)))
    assert state.vector(CAPS) == pytest.approx([0.5, 0.0, 0.0, 0.25, 1.0, 0.5, 0.25, 0.0])


def test_cost_and_reward_by_hand():
    link = Link(1e6, 0.0)  # 1 Mbit/s
    eta = communication_cost(250_000, link, ChannelState(0.0, 1e6), deadline_s=0.5)
    assert eta == pytest.approx(0.5)  # 0.25 s of 0.5 s
    assert allocation_reward(0.7, eta, 0.1) == pytest.approx(-0.75)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (100 + 460, (8, 8, 4, 8)),  # everything: 80 + 240 + 80 + 40 = 440
        (100 + 440, (8, 8, 4, 8)),
        (100 + 439, (8, 7, 3, 7)),
        (100 + 4, (0, 0, 0, 0)),
    ],
)
def test_projection_scales_floors_and_refills(budget, expected):
    found = project(CAPS, air_bits, budget)
    assert air_bits(found) <= budget
    if expected == CAPS.ranks or not any(expected):
        assert found.ranks == expected
    else:  # one bit short of all: at most one direction of the dearest site is missing
        assert 439 - 30 <= air_bits(found) - 100 <= 439


@given(
    st.lists(st.integers(0, 8), min_size=4, max_size=4).map(lambda ranks: [*ranks[:2], min(ranks[2], 4), ranks[3]]),
    st.integers(100, 700),
)
def test_projection_fits_never_grows_and_leaves_no_room_for_what_it_refilled_last(ranks, budget):
    asked = RankVector.of(ranks)
    found = project(asked, air_bits, budget)
    assert air_bits(found) <= budget
    assert all(kept <= wanted for kept, wanted in zip(found.ranks, asked.ranks, strict=True))
    if air_bits(asked) <= budget:
        assert found == asked
    nonzero = [wanted for wanted in asked.ranks if wanted]
    if nonzero and found != asked:  # even scaling: no site is more than one rank away from the common factor
        shares = [(kept + 1) / wanted for kept, wanted in zip(found.ranks, asked.ranks, strict=True) if wanted]
        lowest = min(shares)
        assert all((kept - 1) / w < lowest + 1e-9 for kept, w in zip(found.ranks, asked.ranks, strict=True) if w)


def test_a_deadline_that_nothing_meets_is_one_clear_line():
    with pytest.raises(DeadlineError, match="carries 99 bits by the deadline, head and container alone need 100"):
        project(CAPS, air_bits, 99)


def test_budgets_on_still_and_fading_links():
    still, fading = Link(1e6, 0.0), Link(1e6, 0.0, Rayleigh())
    seen = ChannelState(0.0, 1e6)
    assert decision_budget(still, seen, 0.5, late_share=0.05) == 500_000
    expected = 0.5 * 1e6 * math.log2(1 - math.log(0.95))  # the power that 95 % of Rayleigh blocks exceed
    assert decision_budget(fading, seen, 0.5, late_share=0.05) == pytest.approx(expected, abs=1)
    assert decision_budget(fading, seen, 0.5, late_share=0.0) == 500_000


@pytest.mark.parametrize("horizon", [1, 15])
def test_the_environment_keeps_its_contract(horizon):
    check_env(new_env(horizon), skip_render_check=True)
    check_env_sb3(new_env(horizon))


def test_a_step_makes_the_three_calls_of_a_real_round():
    env = new_env(links=(Link(1e3, 0.0),))  # 1 kbit/s, 0.5 s: 500 bits, 400 for directions
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(np.ones(4, dtype=np.float32))
    executed = info["executed"]
    assert executed.asked == CAPS
    assert executed.bits_asked == 540
    assert executed.ranks == project(CAPS, air_bits, 500)
    assert executed.eta == pytest.approx(executed.air_bits / 1000 / 0.5)
    assert reward == pytest.approx(-Quadratic().try_ranks(executed.ranks).loss - 0.1 * executed.eta)
    assert (terminated, truncated) == (True, False)  # a single decision has no future to bootstrap
    longer = new_env(horizon=2)
    longer.reset(seed=0)
    ends = [longer.step(np.ones(4, dtype=np.float32))[2:4] for _ in range(2)]
    assert ends == [(False, False), (False, True)]


def test_a_projection_is_remembered_as_it_is():
    env = new_env(links=(Link(1e3, 0.0),))
    for budget in (300, 500, 300):
        assert env.project(CAPS, budget) == project(CAPS, air_bits, budget)
