"""Allocators against counts, the policy's decoding by hand, a mean reward by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from airtune.adapters import RankVector
from airtune.links import Link
from airtune.methods.airllm.allocators import AirLLM, Random, Uniform, mean_reward
from airtune.methods.airllm.environment import AllocationEnv
from airtune.tasks import Complexity
from small_losses import STATE, ByFormula, linear_space


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


class Fixed:
    """A policy that always acts alike."""

    def act(self, states: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        return np.array([[1.0, -1.0, 0.0]])


class AsDrawn:
    """A policy that acts by its noise alone."""

    def act(self, states: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        return np.tanh(noise.standard_normal((len(states), 3)))


def test_the_policy_decodes_its_action():
    policy = AirLLM(RankVector((8, 8, 4)), Fixed(), seed=0)
    assert policy.decide(STATE, 0).ranks == (8, 0, 2)
    assert policy.name == "airllm"


def test_the_policy_decides_the_same_for_the_same_state_from_noise_that_is_fixed():
    policies = [AirLLM(RankVector((8, 8, 8)), AsDrawn(), seed=seed) for seed in (0, 0, 1)]
    first, again, other = ([policy.decide(STATE, 0) for _ in range(3)] for policy in policies)
    assert len(set(first)) == 1
    assert first == again != other


def test_a_mean_reward_by_hand():
    """Uniform at rank 2 of 2 on a still link: loss 0.25, 120 bits at 1 kbit/s of 0.5 s, lambda 0.1."""
    env = AllocationEnv(
        ByFormula(lambda ranks: 0.25),
        RankVector((2,)),
        linear_space(RankVector((2,)), [10]).air_bits,
        [Link(1e3, 0.0)],
        [Complexity(5.0, 0.1, 50)],
        deadline_s=0.5,
        cost_weight=0.1,
    )
    assert mean_reward(env, Uniform(env.caps), episodes=3, seed=0) == pytest.approx(-0.25 - 0.1 * 0.12 / 0.5)
