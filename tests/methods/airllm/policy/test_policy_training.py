"""Rollouts, and Algorithm 1 in every variant, on an environment whose losses are known."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from airtune.adapters import RankVector
from airtune.errors import ConfigError, ModelError
from airtune.links import ChannelState, Link
from airtune.methods.airllm.allocation import AllocationState, Trial
from airtune.methods.airllm.environment import AllocationEnv
from airtune.methods.airllm.policy.improve import Improver
from airtune.methods.airllm.policy.priors import CoarseLatent, Prior
from airtune.methods.airllm.policy.rollouts import RefinedActions
from airtune.methods.airllm.policy.settings import PolicyConfig
from airtune.methods.airllm.policy.training import name_of, new_refiner, train_policy
from airtune.tasks import Complexity

CAPS = RankVector((8, 8, 4, 8))
COSTS = np.array([10, 30, 20, 5])
LATENT = CoarseLatent(layer_of=(0, 0, 1, 1), kind_of=(0, 1, 0, 1))
TINY: dict[str, Any] = {
    "rounds": 2,
    "env_steps": 16,
    "parallel": 4,
    "updates": 4,
    "warm_start_updates": 5,
    "width": 32,
    "train_steps": 20,
    "sample_steps": 3,
}
STATE = AllocationState(ChannelState(0.0, 1e3), Complexity(5.0, 0.1, 50), RankVector((4, 4, 2, 4)))


class Quadratic:
    """Loss that falls with rank, most at site 0: easy to learn, known exactly. Counts what is tried."""

    def __init__(self, loss: float | None = None) -> None:
        self.tried: list[RankVector] = []
        self._loss = loss

    def try_ranks(self, ranks: RankVector) -> Trial:
        self.tried.append(ranks)
        share = np.array(ranks.ranks) / np.array(CAPS.ranks)
        return Trial(ranks, float((1 - share) ** 2 @ [4, 1, 1, 1]) if self._loss is None else self._loss)


def new_env(losses: Quadratic | None = None, horizon: int = 1, bandwidths: tuple[float, ...] = (1e3,)) -> AllocationEnv:
    return AllocationEnv(
        losses or Quadratic(),
        CAPS,
        lambda ranks: 100 + int(np.array(ranks.ranks) @ COSTS),
        [Link(bandwidth, 0.0) for bandwidth in bandwidths],
        [Complexity(5.0, 0.1, 50), Complexity(6.0, 0.3, 60)],
        deadline_s=0.5,
        cost_weight=0.1,
        horizon=horizon,
    )


def all_of_it(budget_bits: int) -> RankVector:
    """An expert that knows nothing but to ask for everything."""
    return CAPS


def new_improver(proposals: int = 2) -> Improver:
    return Improver(CAPS, [LATENT.layer_of, LATENT.kind_of], all_of_it, proposals=proposals)


def new_rollout(
    env: AllocationEnv, *, count: int = 1, improver: Improver | None = None, prior: Prior = LATENT
) -> RefinedActions:
    refiner = new_refiner(prior, 4, 8, PolicyConfig(**TINY), seed=0)
    envs = DummyVecEnv([partial(copy, env)] * count)
    return RefinedActions(envs, prior, refiner.refine, improver, rng=np.random.default_rng(0))


def test_a_rollout_remembers_raw_coarse_refined_and_executed_action():
    rollout = new_rollout(new_env(), count=2, improver=new_improver())
    rollout.seed(3)
    states = rollout.reset()
    raw = np.array([[0.9, -0.4, 0.3, -2.0], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    after, paid, dones, infos = rollout.step(raw)
    assert dones.all()
    for row, kept in enumerate(rollout.replay):
        executed = infos[row]["executed"]
        assert np.array_equal(kept.state, states[row])
        assert np.array_equal(kept.raw, raw[row])  # outside [-1, 1] too
        assert kept.executed == pytest.approx(2 * np.array(executed.ranks.ranks) / np.array(CAPS.ranks) - 1)
        assert np.abs(kept.refined).max() <= 1
        assert kept.reward == executed.reward
        assert kept.terminal
        assert np.array_equal(kept.next_state, infos[row]["terminal_observation"])
        assert not np.array_equal(kept.next_state, after[row])  # the next episode's state is not what followed
        assert paid[row] == pytest.approx(kept.reward - kept.baseline)  # what uniform earns in the same state
    assert rollout.replay[0].coarse == pytest.approx([1.0, -0.1, -0.1, -1.0])  # 0.9+0.3, 0.9-1, -0.4+0.3, -0.4-1
    stacked = rollout.stacked(lambda states: np.full((len(states), 4), 7.0))
    assert stacked.condition[0] == pytest.approx([0.9, -0.4, 0.3, -1.0])
    assert stacked.next_condition.tolist() == [[1.0] * 4] * 2
    assert stacked.advantage == pytest.approx(paid)


def test_a_truncated_episode_goes_on_and_a_single_decision_does_not():
    rollout = new_rollout(new_env(horizon=2))
    rollout.reset()
    for _ in range(2):
        rollout.step(np.zeros((1, 4), dtype=np.float32))
    assert [kept.terminal for kept in rollout.replay] == [False, False]
    assert np.array_equal(rollout.replay[0].next_state, rollout.replay[1].state)


def test_each_action_is_executed_once():
    losses = Quadratic()
    rollout = new_rollout(new_env(losses))
    rollout.reset()
    rollout.step(np.zeros((1, 4), dtype=np.float32))
    assert len(losses.tried) == 2  # uniform, and the action
    improving = new_rollout(new_env(losses), improver=new_improver(proposals=3))
    improving.reset()
    improving.step(np.zeros((1, 4), dtype=np.float32))
    assert len(losses.tried) == 2 + 2 + 3 + 1  # and three proposals and the expert's


def test_without_an_improver_the_refiner_learns_from_what_was_executed():
    rollout = new_rollout(new_env())
    rollout.reset()
    for _ in range(3):
        rollout.step(np.zeros((1, 4), dtype=np.float32))
    assert all(np.array_equal(kept.improved, kept.executed) for kept in rollout.replay)


def test_improved_actions_are_the_best_of_what_was_tried():
    env = new_env()  # 500 bits, 400 of them for directions
    env.reset(seed=0)
    poor, uniform = env.execute(RankVector((0, 8, 0, 0))), env.execute(CAPS)
    better = new_improver(proposals=20).best(env, poor.asked, uniform, np.random.default_rng(0))
    assert better.reward >= uniform.reward > poor.reward
    assert better.air_bits <= env.budget_bits


VARIANTS: dict[str, dict[str, Any]] = {
    "airllm": {},
    "airllm-discrete": {"prior": "discrete"},
    "airllm-ddpm": {"refiner": "ddpm"},
    "airllm-unet": {"backbone": "unet"},
    "airllm-ddpm-unet": {"refiner": "ddpm", "backbone": "unet"},
    "ddim": {"prior": "none"},
    "ddpm": {"prior": "none", "refiner": "ddpm"},
    "ppo": {"refiner": "none"},
    "ppo-discrete": {"refiner": "none", "prior": "discrete"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_decides_and_says_its_name(name: str):
    heard: list[tuple[int, float, float]] = []
    config = PolicyConfig(**TINY, **VARIANTS[name])
    policy = train_policy(new_env(), LATENT, config, all_of_it, seed=0, on_round=lambda *said: heard.append(said[:3]))
    found = policy.decide(STATE, 500).ranks
    assert policy.name == name == name_of(config)
    assert all(0 <= rank <= cap for rank, cap in zip(found, CAPS.ranks, strict=True))
    assert [steps for steps, _, _ in heard] == [16, 32]
    assert all((loss > 0) == (config.refiner != "none") for _, _, loss in heard)


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("objective", ["advantage", "critic", "improved"])
def test_every_objective_trains_on_single_and_on_longer_episodes(objective: str, horizon: int):
    config = PolicyConfig(**TINY, objective=objective)  # type: ignore[arg-type]
    losses: list[float] = []
    train_policy(
        new_env(horizon=horizon),
        LATENT,
        config,
        all_of_it,
        seed=0,
        on_round=lambda _, __, loss, ___: losses.append(loss),
    )
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(("train_steps", "sample_steps"), [(600, 30), (800, 50), (1000, 100)])
def test_the_papers_numbers_of_steps_work(train_steps: int, sample_steps: int):
    config = PolicyConfig(**{**TINY, "rounds": 1, "train_steps": train_steps, "sample_steps": sample_steps})
    assert train_policy(new_env(), LATENT, config, all_of_it, seed=0).decide(STATE, 500)


def test_the_policys_seed_reproduces_it_and_other_generators_are_left_alone():
    def decisions(seed: int) -> list[tuple[int, ...]]:
        policy = train_policy(new_env(), LATENT, PolicyConfig(**TINY), all_of_it, seed=seed)
        return [policy.decide(STATE, 500).ranks for _ in range(3)]

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = decisions(0)
    assert torch.equal(torch.rand(1), expected)  # the global generator is as it was
    assert decisions(0) == first != decisions(1)


@pytest.mark.parametrize("variant", [{}, {"refiner": "none"}, {"prior": "none"}])
def test_the_policy_learns_what_pays(variant: dict[str, Any]):
    """With all of the budget to spend, more rank pays: the trained policy earns more than random actions do."""
    settings = {"rounds": 10, "env_steps": 64, "updates": 32, "warm_start_updates": 200, "width": 64}
    ppo = {"ppo_learning_rate": 3e-3}
    config = PolicyConfig(**{**TINY, **settings, **ppo, "train_steps": 200, "sample_steps": 5, **variant})
    rewards: list[float] = []
    env = new_env(bandwidths=(1e4,))
    train_policy(env, LATENT, config, all_of_it, seed=0, on_round=lambda _, reward, __, ___: rewards.append(reward))
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    random = np.mean([env.execute(RankVector.of(rng.integers(0, [9, 9, 5, 9]))).reward for _ in range(400)])
    assert np.mean(rewards[-3:]) > random + 0.3


def test_a_reward_that_is_no_number_stops_with_the_round_and_the_ranks():
    with pytest.raises(ModelError, match=r"policy training, round 1: the reward of ranks \[.*\]\.\.\. is nan"):
        train_policy(new_env(Quadratic(float("nan"))), LATENT, PolicyConfig(**TINY), all_of_it, seed=0)


def test_a_learning_rate_that_blows_up_stops_with_the_round_and_what_to_lower():
    config = PolicyConfig(**{**TINY, "ddim_learning_rate": 1e30, "warm_start_updates": 0})
    with pytest.raises(ConfigError, match=r"policy training, round \d+: the refiner's loss is (nan|inf); lower"):
        train_policy(new_env(), LATENT, config, all_of_it, seed=0)
