"""Allocators that search by predicted losses: greedy, whose answers are measured, and forward greedy.

Knows states only by their budget: each budget is searched once.
"""

from __future__ import annotations

from typing import final

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import AllocationState
from airtune.methods.airllm.search.acquisition import Acquisition
from airtune.methods.airllm.search.moves import PredictLoss, forward, priced
from airtune.methods.airllm.search.space import Space


@final
class Greedy:
    """Backward elimination and exchange on predicted losses; then the real loss has the last word.

    For each budget, once: allocations are measured (`Acquisition.step`), the surrogate learning from each, and the best
    of all that were ever measured and fit is the answer. With hundreds of evaluations this is a local search on real
    losses, and its answer the best known.

    Args:
        evaluations: Losses measured for each budget, at most.
        cost_weight: lambda of Eq. 10.
    """

    def __init__(
        self, acquisition: Acquisition, *, evaluations: int, cost_weight: float = 0.0, name: str = "greedy"
    ) -> None:
        self.name = name
        self._acquisition, self._evaluations, self._cost_weight = acquisition, evaluations, cost_weight
        self._decided: dict[int, RankVector] = {}

    def propose(self, budget_bits: int) -> RankVector:
        """What was decided for a budget; where nothing was, what elimination and exchange find by predictions alone."""
        return self._decided.get(budget_bits) or self._acquisition.propose(budget_bits, self._cost_weight)

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        return self.settle(budget_bits)

    def settle(self, budget_bits: int) -> RankVector:
        """Measure for a budget, once, and keep the best that is known to fit."""
        if budget_bits not in self._decided:
            for _ in range(self._evaluations):
                if self._acquisition.step(budget_bits, self._cost_weight) is None:
                    break
            found = self._acquisition.archive.best(budget_bits, self._cost_weight)
            self._decided[budget_bits] = found.ranks
            self._acquisition.learn()
        return self._decided[budget_bits]


@final
class ForwardGreedy:
    """From rank 0 everywhere, always the direction that promises most per bit; blind to sites that pay only together.

    Args:
        predict: Predicted losses, or measured ones where that is affordable: one per site and direction.
        cost_weight: lambda of Eq. 10.
    """

    name = "forward"

    def __init__(self, space: Space, predict: PredictLoss, *, cost_weight: float = 0.0) -> None:
        self._space, self._predict, self._cost_weight = space, predict, cost_weight

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        objective = priced(self._space, self._predict, self._cost_weight / budget_bits)
        return forward(self._space, budget_bits, objective)
