"""Eqs. 11-12 as the coarse policy uses them: advantages by the recursion, the loss by plain autograd."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from airtune.methods.airllm.policy.coarse import CoarsePolicy

GAMMA, ZETA, CLIP, ENTROPY = 0.9, 0.8, 0.2, 0.01
STEPS, HORIZON = 12, 5


class Walk(gymnasium.Env):
    """The state is the step of the episode; it earns the action less its square, and is cut off after `HORIZON`."""

    observation_space = gymnasium.spaces.Box(0.0, 10.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-10.0, 10.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._at = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray):
        self._at += 1
        earned = float((action - action**2).sum())
        return np.full(1, self._at, np.float32), earned, False, self._at == HORIZON, {}


def new_policy(epochs: int) -> CoarsePolicy:
    return CoarsePolicy(
        DummyVecEnv([Walk]),
        steps=STEPS,
        width=8,
        learning_rate=3e-2,
        epochs=epochs,
        clip=CLIP,
        gamma=GAMMA,
        gae_lambda=ZETA,
        entropy_weight=ENTROPY,
        seed=0,
    )


def value_of(policy: Any, states: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return policy.predict_values(torch.as_tensor(states, dtype=torch.float32)).numpy().ravel()


def test_advantages_follow_eq_11_and_bootstrap_where_an_episode_is_cut():
    """delta_t = R_t + gamma V(s_{t+1}) - V(s_t), A_t = sum (gamma zeta)^l delta_{t+l}, within the episode."""
    learner = new_policy(epochs=1)._ppo  # the library underneath, set as ours sets it
    before = deepcopy(learner.policy)
    learner.learn(STEPS)
    buffer = learner.rollout_buffer
    states, actions = buffer.observations.reshape(STEPS), buffer.actions.reshape(STEPS, 2)
    assert states.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    values = value_of(before, states[:, None])
    rewards = (actions - actions**2).sum(1)
    expected = np.zeros(STEPS)
    for start in range(STEPS):
        for step in range(start, STEPS):
            cut = states[step] == HORIZON - 1
            following = value_of(before, [[states[step] + 1]])[0]  # the state it was cut in, or the next one
            delta = rewards[step] + GAMMA * following - values[step]
            expected[start] += (GAMMA * ZETA) ** (step - start) * delta
            if cut:
                break
    assert buffer.advantages.ravel() == pytest.approx(expected, abs=1e-4)
    assert buffer.returns.ravel() == pytest.approx(expected + values, abs=1e-4)


def test_the_loss_is_eq_12_with_the_signs_that_descent_needs():
    """-E[min(ratio A, clip(ratio) A)] + 0.5 (V - return)^2 - 0.01 entropy: its gradient after one epoch of two.

    A is standardised in the batch. The second epoch starts where Adam's first step, retraced here, has led: ratios
    are no longer 1 there, and some are clipped.
    """
    learner = new_policy(epochs=2)._ppo
    mine = deepcopy(learner.policy)
    learner.learn(STEPS)
    buffer, theirs = learner.rollout_buffer, learner.policy
    states, actions, old, advantages, returns = (
        torch.as_tensor(np.asarray(array)).reshape(STEPS, -1).float()
        for array in (buffer.observations, buffer.actions, buffer.log_probs, buffer.advantages, buffer.returns)
    )
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    adam = torch.optim.Adam(mine.parameters(), lr=3e-2, eps=1e-5)
    clipped = []
    for _ in range(2):
        spread = torch.distributions.Normal(mine.action_net(hidden(mine, states, "policy_net")), mine.log_std.exp())
        ratio = (spread.log_prob(actions).sum(1, keepdim=True) - old).exp()
        clipped.append(int(((ratio - 1).abs() > CLIP).sum()))
        surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages).mean()
        error = (mine.value_net(hidden(mine, states, "value_net")) - returns).square().mean()
        loss = -surrogate + 0.5 * error - ENTROPY * spread.entropy().sum(1).mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(mine.parameters(), 0.5)
        adam.step()
    assert clipped[0] == 0 < clipped[1] < STEPS
    for (name, ours), (_, there) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(ours, there, atol=2e-5, rtol=1e-4, msg=name)


def hidden(policy: Any, states: torch.Tensor, net: str) -> torch.Tensor:
    return getattr(policy.mlp_extractor, net)(states)
