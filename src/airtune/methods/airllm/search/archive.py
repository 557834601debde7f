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
        cost_weight: lambda of Eq. 10. A payload that fills a budget takes the whole deadline, so eta = bits / budget.
    """

    def __init__(self, trainee: TryRanks, air_bits: BitsOf, cost_weight: float = 0.0) -> None:
        self._trainee, self._air_bits, self._cost_weight = trainee, air_bits, cost_weight
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

    def best(self, budget_bits: int) -> Trial:
        """The lowest U + lambda eta among measured vectors that fit; the first measured of equals.

        Raises:
            ConfigError: none of them fits.
        """
        fitting = [(trial, bits) for trial, bits in self._trials.values() if bits <= budget_bits]
        if not fitting:
            raise ConfigError(
                f"none of {len(self)} measured allocations fits {budget_bits} bits; measure one that does first"
            )
        price = self.price(budget_bits)
        return min(fitting, key=lambda found: found[0].loss + price * found[1])[0]

    def price(self, budget_bits: int) -> float:
        """What a bit costs under this budget, in nat."""
        return self._cost_weight / budget_bits

    def __contains__(self, ranks: RankVector) -> bool:
        return ranks in self._trials

    def __len__(self) -> int:
        return len(self._trials)
