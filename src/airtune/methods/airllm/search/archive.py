"""Real losses measured so far, each rank vector once, and the best of them that fits a budget (Eq. 10).

Knows trials and bits; not what chooses the next one.
"""

from __future__ import annotations

from typing import final

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm.allocation import BitsOf, Trial, TryRanks


@final
class Archive:
    """Measures through a trainee and keeps what it measured. Its length is the number of losses that cost.

    Args:
        trainee: Measures real losses.
        air_bits: Bits on the air of a rank vector.
    """

    def __init__(self, trainee: TryRanks, air_bits: BitsOf) -> None:
        self._trainee, self._air_bits = trainee, air_bits
        self._trials: dict[RankVector, tuple[Trial, int]] = {}

    def measure(self, ranks: RankVector) -> Trial:
        """The trial of these ranks: the known one, or a new one."""
        if ranks not in self._trials:
            self._trials[ranks] = self._trainee.try_ranks(ranks), self._air_bits(ranks)
        return self._trials[ranks][0]

    @property
    def trials(self) -> list[Trial]:
        """In the order they were measured."""
        return [trial for trial, _ in self._trials.values()]

    def best(self, budget_bits: int, cost_weight: float = 0.0) -> Trial:
        """The lowest U + lambda eta among measured vectors that fit; the first measured of equals.

        Args:
            cost_weight: lambda. A payload that fills the budget of a still channel takes the whole deadline:
                eta = bits / budget. Under fading most blocks carry more, and this charges more than they will.

        Raises:
            ConfigError: none of them fits.
        """
        fitting = [(trial, bits) for trial, bits in self._trials.values() if bits <= budget_bits]
        if not fitting:
            raise ConfigError(
                f"none of {len(self)} measured allocations fits {budget_bits} bits; measure one that does first"
            )
        return min(fitting, key=lambda found: found[0].loss + cost_weight * found[1] / budget_bits)[0]

    def __contains__(self, ranks: RankVector) -> bool:
        return ranks in self._trials

    def __len__(self) -> int:
        return len(self._trials)
