"""The coarse latent by hand, PPO on a bandit, and a refiner that learns the identity and then what pays."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import gymnasium
import numpy as np
import pytest

from airtune.methods.airllm.coarse import CoarsePolicy
from airtune.methods.airllm.config import PolicyConfig
from airtune.methods.airllm.policy import new_refiner
from airtune.methods.airllm.priors import CoarseLatent
from airtune.methods.airllm.refine import Refiner, Transition
from airtune.models import Site

KINDS = ("query", "key", "value", "out", "fc1", "fc2")
LATENT = CoarseLatent(layer_of=(0, 0, 1, 1), kind_of=(0, 1, 0, 1))
STATE_SIZE = 3
SMALL = PolicyConfig(width=64, train_steps=100, sample_steps=5, condition_dropout=0.1)


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

    def __init__(self, pays: Callable[[float, float], float]) -> None:
        self._pays = pays

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._state = self.np_random.integers(0, 2, 1).astype(np.float32)
        return self._state, {}

    def step(self, action: np.ndarray):
        return self._state, self._pays(float(self._state[0]), float(action[0])), True, False, {}


def near_a_target(state: float, action: float) -> float:
    """Best at 0.6 in state 1 and at -0.6 in state 0."""
    return -abs(action - (0.6 if state else -0.6))


def new_policy(pays: Callable[[float, float], float], seed: int = 0) -> CoarsePolicy:
    return CoarsePolicy(
        Bandit(pays),
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


def test_ppo_is_reproduced_by_its_seed_and_acts_within_the_latents_range():
    actions = []
    for seed in (0, 0, 1):
        policy = new_policy(near_a_target, seed)
        policy.learn()
        actions.append(policy.act(np.linspace(-50, 50, 7, dtype=np.float32)[:, None]))
    assert np.array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])
    assert np.abs(actions[0]).max() <= 1


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
    refiner = new_refiner(LATENT, STATE_SIZE, SMALL, seed=0)
    refiner.warm_start(STATE_SIZE, updates=400, batch=128, rng=np.random.default_rng(0))
    return refiner


def test_a_warm_start_teaches_the_identity(warm):
    untrained = away_from_the_identity(new_refiner(LATENT, STATE_SIZE, SMALL, seed=0))
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


def half_good(*, baseline_of_good: float = 0.0) -> list[Transition]:
    """Every other action is 0.7 everywhere and earns 1, the others are -0.7 and earn 0."""
    found = []
    for place, (state, latent) in enumerate(zip(*material(200), strict=True)):
        reward = float(place % 2 == 0)
        action = np.full(4, 0.7 if reward else -0.7, dtype=np.float32)
        found.append(
            Transition(
                state=state,
                latent=latent,
                coarse=LATENT.spread(latent),
                refined=action,
                executed=action,
                reward=reward,
                next_state=state,
                target=action,
                target_reward=reward,
                baseline=baseline_of_good * reward,
            )
        )
    return found


def mean_action_after(transitions: list[Transition], kappa: float) -> float:
    refiner = new_refiner(LATENT, STATE_SIZE, SMALL, seed=0)
    refiner.learn(transitions, kappa=kappa, updates=300, batch=64, rng=np.random.default_rng(0))
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
