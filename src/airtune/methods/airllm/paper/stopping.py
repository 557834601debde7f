"""Evaluations on dev, and the paper's early stop (section V-A), the same for every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GOOD_ENOUGH = -0.5
"""The reward above which training may stop, unless -lambda is lower."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The adapter at one step, under the ranks of that step."""

    step: int
    """Training steps done."""
    loss: float
    """On dev, in nat."""
    score: float
    """On dev: accuracy, or perplexity."""
    reward: float
    """Mean over the last T_env steps."""
    total_rank: int


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Stop once the reward exceeds min(-lambda, -0.5) and so many evaluations in a row brought no gain.

    Args:
        cost_weight: lambda of Eq. 10.
        patience: Evaluations in a row.
        by_accuracy: A gain is a higher score than ever before; otherwise, for running text, a lower loss.
    """

    cost_weight: float
    patience: int
    by_accuracy: bool

    @property
    def threshold(self) -> float:
        return min(-self.cost_weight, GOOD_ENOUGH)

    def without_gain(self, evaluations: Sequence[Evaluation]) -> int:
        """Evaluations since the best one; the first of equal ones is the best."""
        worth = [found.score if self.by_accuracy else -found.loss for found in evaluations]
        return len(worth) - 1 - worth.index(max(worth)) if worth else 0

    def stops(self, evaluations: Sequence[Evaluation]) -> bool:
        """Whether training ends after these."""
        if not evaluations or evaluations[-1].reward <= self.threshold:
            return False
        return self.without_gain(evaluations) >= self.patience
