"""The coarse latent by hand, PPO on a bandit, and a refiner that learns the identity and then what pays."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm.policy.coarse import CoarsePolicy
from airtune.methods.airllm.policy.objective import Objective
from airtune.methods.airllm.policy.priors import WIDE, CoarseLatent, DiscreteHeads, NoPrior
from airtune.methods.airllm.policy.refine import Refiner, Replay
from airtune.methods.airllm.policy.settings import PolicyConfig
from airtune.methods.airllm.policy.training import new_refiner
from airtune.models import Site

KINDS = ("query", "key", "value", "out", "fc1", "fc2")
LATENT = CoarseLatent(layer_of=(0, 0, 1, 1), kind_of=(0, 1, 0, 1))
STATE_SIZE = 3
SETTINGS: dict[str, Any] = {"width": 64, "train_steps": 100, "sample_steps": 5, "condition_dropout": 0.1}
SMALL = PolicyConfig(**SETTINGS)


def sites(layers: int) -> list[Site]:
    return [Site(layer, kind, f"layer.{layer}.{kind}", 16, 16) for layer in range(layers) for kind in KINDS]


@pytest.mark.parametrize(("layers", "size"), [(6, 12), (24, 30)])
def test_the_latent_has_a_value_per_layer_and_per_kind(layers, size):
    latent = CoarseLatent.of(sites(layers))
    assert latent.size == size
    assert latent.layer_of == tuple(layer for layer in range(layers) for _ in KINDS)
    assert latent.kind_of == tuple(range(6)) * layers


def test_layers_and_kinds_may_come_with_gaps_and_in_any_order():
    found = CoarseLatent.of([Site(7, "fc2", "a", 4, 4), Site(2, "out", "b", 4, 4), Site(7, "out", "c", 4, 4)])
    assert found == CoarseLatent(layer_of=(1, 0, 1), kind_of=(0, 1, 1))
    assert found.size == 4


def test_spread_adds_layer_and_kind_and_clips():
    one = np.array([0.5, -0.25, 0.25, 0.75])  # two layers, two kinds
    assert LATENT.spread(one) == pytest.approx([0.75, 1.0, 0.0, 0.5])  # 0.5 + 0.75 = 1.25 is clipped
    both = LATENT.spread(np.stack([one, -one]))
    assert both.shape == (2, 4)
    assert both[1] == pytest.approx(-both[0])


class Bandit(gymnasium.Env):
    """One decision an episode, in state 0 or 1; `pays` is the reward of an action in a state."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, pays: Callable[[float, float], float], space: gymnasium.Space | None = None) -> None:
        self._pays = pays
        self.action_space = space or self.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._state = self.np_random.integers(0, 2, 1).astype(np.float32)
        return self._state, {}

    def step(self, action: np.ndarray):
        return self._state, self._pays(float(self._state[0]), float(action[0])), True, False, {}


def near_a_target(state: float, action: float) -> float:
    """Best at 0.6 in state 1 and at -0.6 in state 0."""
    return -abs(action - (0.6 if state else -0.6))


def new_policy(
    pays: Callable[[float, float], float], seed: int = 0, *, envs: int = 1, space: gymnasium.Space | None = None
) -> CoarsePolicy:
    return CoarsePolicy(
        DummyVecEnv([lambda: Bandit(pays, space)] * envs),
        steps=128,
        width=16,
        learning_rate=3e-3,
        epochs=6,
        clip=0.2,
        gamma=0.95,
        gae_lambda=0.95,
        entropy_weight=0.0,
        seed=seed,
    )


STATES = np.array([[0.0], [1.0]], dtype=np.float32)


def test_ppo_moves_each_states_mean_towards_what_pays():
    policy = new_policy(near_a_target)
    before = policy.act(STATES)
    for _ in range(15):
        policy.learn()
    assert np.abs(before).max() < 0.2
    assert policy.act(STATES).ravel() == pytest.approx([-0.6, 0.6], abs=0.25)


def test_discrete_heads_learn_a_rank_for_each_state():
    """Rank 3 of 0..3 pays in state 1, rank 0 in state 0, by distance."""
    heads = DiscreteHeads(RankVector((3,)))
    assert heads.space == gymnasium.spaces.MultiDiscrete([4])
    policy = new_policy(lambda state, rank: -abs(rank - 3 * state), space=heads.space, envs=4)
    for _ in range(15):
        policy.learn()
    assert policy.act(STATES).ravel().tolist() == [0, 3]


def test_discrete_heads_condition_a_refiner_on_their_normalised_ranks():
    heads = DiscreteHeads(RankVector((4, 8, 2)))
    assert heads.size == 3
    told = heads.condition(np.array([[0, 8, 1], [4, 2, 2]]))
    assert told.tolist() == [[-1, 1, 0], [1, -0.5, 1]]
    assert np.array_equal(heads.spread(told), told)


def test_without_a_prior_the_refiner_is_told_the_state_alone():
    assert NoPrior(4).condition(np.zeros((3, 0))).shape == (3, 0)
    refiner = new_refiner(NoPrior(4), 4, STATE_SIZE, SMALL, seed=0)
    assert refiner.refine(np.zeros((3, STATE_SIZE)), np.zeros((3, 0)), np.random.default_rng(0)).shape == (3, 4)


def test_ppo_is_reproduced_by_its_seed_and_acts_within_the_latents_range():
    actions = []
    for seed in (0, 0, 1):
        policy = new_policy(near_a_target, seed)
        policy.learn()
        actions.append(policy.act(np.linspace(-50, 50, 7, dtype=np.float32)[:, None]))
    assert np.array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])
    assert np.abs(actions[0]).max() <= 1


def test_latents_reach_the_environment_raw_and_the_refiner_clipped():
    assert LATENT.space == gymnasium.spaces.Box(-WIDE, WIDE, (4,), np.float32)
    assert LATENT.condition(np.array([[1.7, -0.2, -3.0, 1.0]])) == pytest.approx(np.array([[1.0, -0.2, -1.0, 1.0]]))


def test_a_rollout_is_shared_evenly_between_environments():
    with pytest.raises(ConfigError, match="128 steps of a rollout in 3 environments; choose a multiple"):
        new_policy(near_a_target, envs=3)


def material(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    states = rng.random((count, STATE_SIZE), dtype=np.float32)
    return states, rng.uniform(-1, 1, (count, LATENT.size)).astype(np.float32)


def away_from_the_identity(refiner: Refiner) -> float:
    """Root mean square of refined less coarse, over states and latents that training did not draw."""
    states, latents = material(300, seed=9)
    refined = refiner.refine(states, latents, np.random.default_rng(1))
    return float(np.sqrt(((refined - LATENT.spread(latents)) ** 2).mean()))


@pytest.fixture(scope="module")
def warm() -> Refiner:
    refiner = new_refiner(LATENT, 4, STATE_SIZE, SMALL, seed=0)
    refiner.warm_start(STATE_SIZE, updates=400, batch=128, rng=np.random.default_rng(0))
    return refiner


def test_a_warm_start_teaches_the_identity(warm):
    untrained = away_from_the_identity(new_refiner(LATENT, 4, STATE_SIZE, SMALL, seed=0))
    assert away_from_the_identity(warm) < 0.15
    assert away_from_the_identity(warm) < 0.3 * untrained


def test_refined_actions_are_normalised_ranks_and_training_is_left_alone(warm):
    before = {name: value.clone() for name, value in warm.denoiser.state_dict().items()}
    states, latents = material(20)
    refined = warm.refine(states, 5 * latents, np.random.default_rng(0))
    assert refined.shape == (20, 4)
    assert np.abs(refined).max() <= 1
    assert all(value.equal(before[name]) for name, value in warm.denoiser.state_dict().items())


def with_setting(refiner: Refiner, **settings: float) -> Refiner:
    """The same networks under another sampler."""
    other = copy(refiner)
    for name, value in settings.items():
        setattr(other, name, value)
    return other


def test_guidance_weighs_the_condition(warm):
    """Weight 0 does not see the condition, 1 is conditional, 3 goes beyond it."""
    states, latents = material(30)
    none, plain, strong = (
        with_setting(warm, guidance=weight).refine(states, latents, np.random.default_rng(0)) for weight in (0, 1, 3)
    )
    swapped = with_setting(warm, guidance=0).refine(states[::-1], latents[::-1], np.random.default_rng(0))
    assert np.array_equal(none, swapped)
    assert np.abs(none - plain).mean() > 0.1
    assert np.abs(strong).mean() > np.abs(plain).mean() + 0.05
    assert np.array_equal(plain, warm.refine(states, latents, np.random.default_rng(0)))


def test_a_noisy_sampler_is_reproduced_by_its_generator(warm):
    states, latents = material(30)
    noisy = with_setting(warm, eta=1.0)
    first, again, other = (noisy.refine(states, latents, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    still = warm.refine(states, latents, np.random.default_rng(0))  # from the same x_T
    assert not np.allclose(first, still)


def half_good(*, baseline_of_good: float = 0.0) -> Replay:
    """Every other action is 0.7 everywhere and earns 1, the others are -0.7 and earn 0; 0.2 was found to be better."""
    states, latents = material(2000)
    good = np.arange(2000) % 2 == 0
    actions = np.where(good, 0.7, -0.7)[:, None].repeat(4, axis=1).astype(np.float32)
    advantage = (good * (1 - baseline_of_good)).astype(np.float32)
    found = np.full_like(actions, 0.2)
    return Replay(states, latents, actions, found, advantage, states, latents, np.ones(2000, dtype=np.float32))


def mean_action_after(replay: Replay, kappa: float, objective: Objective = "advantage") -> float:
    refiner = new_refiner(LATENT, 4, STATE_SIZE, PolicyConfig(**{**SETTINGS, "objective": objective}), seed=0)
    rng = np.random.default_rng(0)
    refiner.learn(replay, objective=objective, kappa=kappa, gamma=0.95, updates=300, batch=64, rng=rng)
    return float(refiner.refine(*material(400, seed=5), np.random.default_rng(2)).mean())


def test_learning_leans_towards_what_earned_more_by_kappa():
    """Weights e : 1/e make the weighted mean 0.7 tanh(1) = 0.53; with kappa 0 both count alike, their mean is 0."""
    alike, leaning, strong = (mean_action_after(half_good(), kappa) for kappa in (0.0, 1.0, 3.0))
    assert alike == pytest.approx(0, abs=0.2)
    assert leaning == pytest.approx(0.7 * np.tanh(1), abs=0.2)
    assert strong > leaning + 0.1


def test_what_the_baseline_expected_earns_no_weight():
    """The good actions were taken where uniform ranks earn as much: nothing tells the two kinds apart."""
    assert mean_action_after(half_good(baseline_of_good=1.0), kappa=1.0) == pytest.approx(0, abs=0.2)


def test_improved_learns_what_was_found_and_not_what_was_done():
    assert mean_action_after(half_good(), 0.1, "improved") == pytest.approx(0.2, abs=0.05)


def test_a_critics_gradient_moves_actions_to_where_the_value_is_higher():
    """Executed actions are 0 on average; the critics learn that 0.7 pays and -0.7 does not."""
    without, with_value = (mean_action_after(half_good(), kappa, "critic") for kappa in (0.0, 2.0))
    assert without == pytest.approx(0, abs=0.2)
    assert with_value > without + 0.3


def test_a_loss_that_is_no_number_names_the_settings_to_lower():
    replay = half_good()
    replay.executed[:] = np.nan
    with pytest.raises(ConfigError, match=r"the refiner's loss is nan; lower policy\.ddim_learning_rate"):
        mean_action_after(replay, kappa=0.0)
