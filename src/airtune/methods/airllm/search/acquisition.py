"""Which allocation to measure next: what a search on the surrogate proposes, and then what lies around the best.

Each answer is learned from before the next question, so measurements gather where they are needed: at the budgets
that are asked for, among allocations that promise to be good. Knows losses by measuring and predicting; not links.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, final

import numpy as np

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import Trial
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.moves import PredictLoss, eliminate, forward, neighbours, priced, propose
from airtune.methods.airllm.search.space import Space

PROBED = 0.5
"""Share of the measurements that are taken before any are chosen by the surrogate."""
REFITTED = 1.01
"""Growth of the archive at which the surrogate is fitted again."""


class Surrogate(Protocol):
    """Learns losses from trials and predicts them, ``(n, sites)`` -> ``(n,)``."""

    def fit(self, trials: Sequence[Trial]) -> object: ...

    def predict(self, ranks: np.ndarray) -> np.ndarray: ...


@final
class Acquisition:
    """Measures one allocation at a time for a budget, and keeps the surrogate fitted to what it has.

    Args:
        archive: Holds at least two trials before anything is proposed.
        guess: Losses that are guessed before any was measured; what it leads to is measured early.
    """

    def __init__(
        self, space: Space, surrogate: Surrogate, archive: Archive, *, guess: PredictLoss | None = None
    ) -> None:
        self.space, self.surrogate, self.archive, self._guess = space, surrogate, archive, guess
        self._fitted = -1
        self._proposed: dict[tuple[int, float], RankVector] = {}
        self._failed: set[tuple[int, float]] = set()
        """Questions whose last proposal was not the best."""
        self._guessed: set[tuple[int, float]] = set()

    def propose(self, budget_bits: int, cost_weight: float = 0.0) -> RankVector:
        """What elimination and exchange find by predictions alone, lambda being `cost_weight` (Eq. 10)."""
        self.learn()
        asked = budget_bits, cost_weight
        if asked not in self._proposed:
            self._proposed[asked] = propose(self.space, self._path, budget_bits, self._objective(*asked))
        return self._proposed[asked]

    def step(self, budget_bits: int, cost_weight: float = 0.0) -> Trial | None:
        """Measure one more allocation that fits.

        Projected uniform and the guess first, then what is proposed. After a proposal that is not the best so far, or
        is known, the most promising neighbour of the best. None where all neighbours are known: no single exchange
        improves on it.
        """
        if (uniform := self.space.uniform(budget_bits)) not in self.archive:
            return self.archive.measure(uniform)
        asked = budget_bits, cost_weight
        if self._guess is not None and asked not in self._guessed:
            self._guessed.add(asked)
            if (guessed := forward(self.space, budget_bits, self._guess)) not in self.archive:
                return self.archive.measure(guessed)
        proposal = self.propose(*asked)
        if asked not in self._failed and proposal not in self.archive:
            trial = self.archive.measure(proposal)
            if trial != self.archive.best(*asked):
                self._failed.add(asked)
            return trial
        self._failed.discard(asked)
        best = np.array(self.archive.best(*asked).ranks.ranks)
        for row in neighbours(self.space, best, budget_bits, self._objective(*asked)):
            if (ranks := RankVector.of(row)) not in self.archive:
                return self.archive.measure(ranks)
        return None

    def _objective(self, budget_bits: int, cost_weight: float) -> PredictLoss:
        return priced(self.space, self.surrogate.predict, cost_weight / budget_bits)

    def learn(self) -> None:
        """Fit the surrogate again, if the archive has grown enough since."""
        if self._fitted < 0 or len(self.archive) > self._fitted * REFITTED:
            self.surrogate.fit(self.archive.trials)
            self._path, self._fitted = eliminate(self.space, self.surrogate.predict), len(self.archive)
            self._proposed.clear()


def collect(
    acquisition: Acquisition,
    probes: Sequence[RankVector],
    budgets: Sequence[int],
    count: int,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> None:
    """Measure `count` allocations: a share of them probes, then one for each budget by turns, whatever bits cost.

    Fewer where probes and budgets know no more.

    Args:
        budgets: Bits on the air that allocations will be asked for; one that holds the full adapter needs no search.
    """
    archive, space = acquisition.archive, acquisition.space
    known = len(archive)
    for ranks in probes:
        if len(archive) - known < max(2, round(PROBED * count)) and ranks not in archive:
            on_trial(archive.measure(ranks))
    asked = [budget for budget in dict.fromkeys(budgets) if not space.fits(space.top, budget)]
    while asked and len(archive) - known < count:
        budget = asked.pop(0)
        if (trial := acquisition.step(budget)) is not None:
            on_trial(trial)
            asked.append(budget)
    for ranks in probes:
        if len(archive) - known < count and ranks not in archive:
            on_trial(archive.measure(ranks))
