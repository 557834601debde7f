"""Twin critics: what an action is worth in a state, learned from executed ones (for Eq. 19's `critic` objective).

Knows states, normalised actions and rewards; does not know how actions are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from airtune.errors import DataError
from airtune.methods.airllm.policy.denoiser import linear


@dataclass(frozen=True, slots=True)
class Outcome:
    """Actions and what came of them, one row each."""

    state: Tensor
    """``(batch, d_s)``."""
    action: Tensor
    """Executed, normalised ``(batch, sites)``."""
    reward: Tensor
    """``(batch,)``."""
    next_state: Tensor
    """``(batch, d_s)``."""
    terminal: Tensor
    """1 where nothing follows, else 0, ``(batch,)``."""


@final
class TwinCritics(nn.Module):
    """Q1 and Q2, two networks of two hidden layers (Fujimoto et al. 1802.09477).

    Args:
        state_size, sites: Lengths of a state and of an action.
        generator: Draws every weight, on the CPU.
    """

    def __init__(
        self, state_size: int, sites: int, *, width: int, learning_rate: float, generator: torch.Generator
    ) -> None:
        super().__init__()

        def network() -> nn.Sequential:
            sizes = (state_size + sites, width, width)
            hidden = [(linear(i, o, generator), nn.SiLU()) for i, o in pairwise(sizes)]
            return nn.Sequential(*(layer for pair in hidden for layer in pair), linear(width, 1, generator))

        self.first, self.second = network(), network()
        self.optimiser = torch.optim.Adam(self.parameters(), lr=learning_rate, fused=True)

    def forward(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Q1 and Q2, each ``(batch,)``, of normalised actions ``(batch, sites)`` in states ``(batch, d_s)``."""
        both = torch.cat([state, action], dim=1)
        return self.first(both).squeeze(1), self.second(both).squeeze(1)

    def learn(self, outcome: Outcome, following: Tensor | None, gamma: float) -> float:
        """One step of regression towards R + gamma min(Q1, Q2)(s', a') where anything follows; return the loss.

        Args:
            following: a', what the policy does in s', ``(batch, sites)``; None where every row is terminal, as in
                nested mode: then the critics regress R alone.

        Raises:
            DataError: shapes do not match, or a reward is not finite.
        """
        rows = len(outcome.reward)
        if outcome.reward.ndim != 1 or len(outcome.state) != rows or len(outcome.action) != rows:
            shapes = [tuple(value.shape) for value in (outcome.state, outcome.action, outcome.reward)]
            raise DataError(f"states, actions and rewards have shapes {shapes}; give one row of each per action")
        if not torch.isfinite(outcome.reward).all():
            raise DataError("a reward is not finite; drop that action from the batch")
        wanted = outcome.reward
        if following is not None:
            with torch.no_grad():
                worth = torch.minimum(*self(outcome.next_state, following))
            wanted = wanted + gamma * (1 - outcome.terminal) * worth
        loss = sum((q - wanted).square().mean() for q in self(outcome.state, outcome.action))
        assert isinstance(loss, Tensor)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())
