"""State, cost, reward and projection by hand; the environments under Gymnasium's and stable-baselines3's checkers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from airtune.adapters import RankVector
from airtune.errors import DeadlineError
from airtune.links import ChannelState, Link, Rayleigh
from airtune.methods.airllm.allocation import (
    AllocationEnv,
    AllocationState,
    Trial,
    allocation_reward,
    communication_cost,
    decision_budget,
    project,
)
from airtune.methods.airllm.config import PolicyConfig
from airtune.methods.airllm.improve import Improver
from airtune.methods.airllm.policy import new_refiner, train_policy
from airtune.methods.airllm.priors import CoarseLatent
from airtune.methods.airllm.refine import RefinedActions
from airtune.tasks import Complexity

CAPS = RankVector((8, 8, 4, 8))
COSTS = np.array([10, 30, 20, 5])
LATENT = CoarseLatent(layer_of=(0, 0, 1, 1), kind_of=(0, 1, 0, 1))
SMALL = PolicyConfig(rounds=2, env_steps=16, updates=4, warm_start_updates=5, width=16, train_steps=100, sample_steps=3)


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


def all_of_it(budget_bits: int) -> RankVector:
    """An expert that knows nothing but to ask for everything."""
    return CAPS


def new_improver(proposals: int = 2) -> Improver:
    return Improver(CAPS, [LATENT.layer_of, LATENT.kind_of], all_of_it, proposals=proposals)


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


def test_the_refined_environment_keeps_its_contract():
    refiner = new_refiner(LATENT, 4 + len(CAPS), SMALL, seed=0)
    check_env(RefinedActions(new_env(), refiner, new_improver()), skip_render_check=True)
    check_env_sb3(RefinedActions(new_env(), refiner, new_improver()))


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


def test_the_wrapper_remembers_raw_latent_and_executed_action():
    env = RefinedActions(new_env(), new_refiner(LATENT, 4 + len(CAPS), SMALL, seed=0), new_improver())
    state, _ = env.reset(seed=3)
    latent = np.array([0.9, -0.4, 0.3, -2.0], dtype=np.float32)
    after, paid, *_, info = env.step(latent)
    (kept,) = env.replay
    assert np.array_equal(kept.state, state)
    assert np.array_equal(kept.latent, latent)  # raw, outside [-1, 1] too
    assert kept.coarse == pytest.approx([1.0, -1.0, -0.1, -1.0])  # 0.9+0.3, 0.9-2.0, -0.4+0.3, -0.4-2.0, clipped
    executed = info["executed"]
    assert kept.executed == pytest.approx(2 * np.array(executed.ranks.ranks) / np.array(CAPS.ranks) - 1)
    assert kept.reward == executed.reward
    assert np.array_equal(kept.next_state, after)
    assert paid == pytest.approx(kept.reward - kept.baseline)  # what uniform earns in the same state
    assert kept.target_reward >= max(kept.reward, kept.baseline)


def test_without_proposals_the_refiner_imitates_what_was_executed():
    env = RefinedActions(new_env(), new_refiner(LATENT, 4 + len(CAPS), SMALL, seed=0), new_improver(proposals=0))
    env.reset(seed=1)
    for _ in range(5):
        env.step(np.zeros(4, dtype=np.float32))
        env.reset()
    assert all(np.array_equal(kept.target, kept.executed) for kept in env.replay)


def test_improved_targets_are_the_best_of_what_was_tried():
    env = new_env(links=(Link(1e3, 0.0),))  # 400 bits for directions
    env.reset(seed=0)
    poor = env.execute(RankVector((0, 8, 0, 0)))
    uniform = env.execute(CAPS)
    better = new_improver(proposals=20).improve(env, poor, uniform, np.random.default_rng(0))
    assert better.reward >= uniform.reward > poor.reward
    assert better.air_bits <= env.budget_bits


def test_the_policy_trains_and_its_seed_reproduces_it():
    def decisions(seed: int) -> list[tuple[int, ...]]:
        policy = train_policy(new_env(), LATENT, SMALL, all_of_it, seed=seed)
        state = AllocationState(ChannelState(0.0, 1e3), Complexity(5.0, 0.1, 50), RankVector((4, 4, 2, 4)))
        return [policy.decide(state, 500).ranks for _ in range(3)]

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = decisions(0)
    assert torch.equal(torch.rand(1), expected)  # the global generator is as it was
    assert decisions(0) == first != decisions(1)
    assert all(0 <= rank <= cap for ranks in first for rank, cap in zip(ranks, CAPS.ranks, strict=True))


def test_the_policy_learns_what_pays():
    """With all of the budget to spend, more rank pays: the trained policy earns more than random actions do."""
    config = PolicyConfig(
        rounds=10, env_steps=64, updates=32, warm_start_updates=300, width=64, train_steps=200, sample_steps=5
    )
    rewards: list[float] = []
    train_policy(
        new_env(links=(Link(1e4, 0.0),)),
        LATENT,
        config,
        all_of_it,
        seed=0,
        on_round=lambda _, reward, __: rewards.append(reward),
    )
    env = new_env(links=(Link(1e4, 0.0),))
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    random = np.mean([env.execute(RankVector.of(rng.integers(0, [9, 9, 5, 9]))).reward for _ in range(400)])
    assert np.mean(rewards[-3:]) > random + 0.3
    assert np.mean(rewards[-3:]) > rewards[0] + 0.3
