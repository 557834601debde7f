"""Twin critics on rewards that are known in closed form, with and without a future."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from airtune.errors import DataError
from airtune.methods.airllm.policy.critic import Outcome, TwinCritics


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def new_critics(seed: int = 0) -> TwinCritics:
    return TwinCritics(1, 2, width=48, learning_rate=3e-3, generator=generator(seed))


def outcomes(count: int, draw: torch.Generator, *, terminal: bool) -> Outcome:
    """R = -|a - s|^2 of uniform states and actions; the state stays."""
    state, action = 2 * torch.rand(count, 1, generator=draw) - 1, 2 * torch.rand(count, 2, generator=draw) - 1
    reward = -(action - state).square().sum(dim=1)
    return Outcome(state, action, reward, state, torch.full((count,), float(terminal)))


def root_mean_square(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def test_of_one_step_episodes_both_critics_regress_the_reward():
    critics, draw = new_critics(), generator(1)
    for _ in range(500):
        critics.learn(outcomes(128, draw, terminal=True), None, 0.95)
    unseen = outcomes(500, generator(2), terminal=True)
    with torch.no_grad():
        first, second = critics(unseen.state, unseen.action)
    spread = root_mean_square(unseen.reward - unseen.reward.mean())
    assert root_mean_square(first - unseen.reward) < 0.15 * spread
    assert root_mean_square(second - unseen.reward) < 0.15 * spread
    assert not torch.equal(first, second)


def test_where_something_follows_they_bootstrap():
    """The best action forever earns 0, so with a' = s the value is R itself; with a' = -s it is R - 8 s^2 g / (1 - g).

    For a' = -s every later step earns -2 (2 s)^2 = -8 s^2; at gamma 0.5 the future is -8 s^2 in all.
    """
    for follows, future in ((1.0, 0.0), (-1.0, 8.0)):
        critics, draw = new_critics(), generator(3)
        for _ in range(900):
            given = outcomes(128, draw, terminal=False)
            critics.learn(given, follows * given.state.expand(-1, 2), 0.5)
        unseen = outcomes(500, generator(4), terminal=False)
        with torch.no_grad():
            first, _ = critics(unseen.state, unseen.action)
        wanted = unseen.reward - future * unseen.state.squeeze(1).square()
        assert root_mean_square(first - wanted) < 0.25 * root_mean_square(wanted - wanted.mean())


def test_a_terminal_row_has_no_future():
    """With following actions given, a terminal batch still takes the very same step as without."""
    with_future, without = new_critics(5), new_critics(5)
    given = outcomes(32, generator(6), terminal=True)
    assert with_future.learn(given, given.action, 0.95) == without.learn(given, None, 0.95)
    assert all(
        torch.equal(one, other) for one, other in zip(with_future.parameters(), without.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (torch.ones(4, 1), r"shapes \[\(4, 1\), \(4, 2\), \(4, 1\)\]"),
        (torch.ones(3), r"\(3,\)"),
        (torch.tensor([0, 0, 0, math.inf]), "a reward is not finite"),
    ],
)
def test_nonsense_is_refused(reward: Tensor, message: str):
    given = outcomes(4, generator(7), terminal=True)
    with pytest.raises(DataError, match=message):
        new_critics().learn(Outcome(given.state, given.action, reward, given.state, given.terminal), None, 0.9)
