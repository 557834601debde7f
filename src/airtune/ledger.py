"""Costs booked where they arise: bits, seconds, joules, flops, bytes of memory; by role and round.

The ledger knows no models, links or methods: whoever causes a cost names its quantity, role and round. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from airtune.errors import ConfigError

Quantity = Literal[
    "bits", "seconds", "compute_seconds", "joules", "flops", "memory_bytes", "loss_evaluations", "messages"
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One booked cost: `amount` of `quantity`, caused by `role` in `round` doing `what`."""

    quantity: Quantity
    amount: float
    role: str
    round: int
    what: str


class Ledger:
    """An append-only book of costs.

    Example:
        >>> ledger = Ledger()
        >>> ledger.book("bits", 800, role="cloud", round=0, what="adapter")
        >>> ledger.book("bits", 200, role="cloud", round=1, what="adapter")
        >>> ledger.total("bits"), ledger.total("bits", round=1)
        (1000.0, 200.0)
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def book(self, quantity: Quantity, amount: float, *, role: str, what: str, round: int = 0) -> None:
        """Add one cost. Raises `ConfigError` for an unknown quantity or an amount that is negative or not finite."""
        if quantity not in get_args(Quantity):
            raise ConfigError(f"ledger quantity is {quantity!r}; choose one of {', '.join(get_args(Quantity))}")
        if not (math.isfinite(amount) and amount >= 0):
            raise ConfigError(f"ledger amount of {quantity} is {amount}; book a finite amount of at least 0")
        self._entries.append(Entry(quantity, float(amount), role, round, what))

    def total(
        self,
        quantity: Quantity,
        *,
        role: str | None = None,
        round: int | None = None,
        what: Collection[str] | None = None,
    ) -> float:
        """Sum the amounts of a quantity, optionally of one role, one round, or what is among some names."""
        return math.fsum(
            entry.amount
            for entry in self._entries
            if entry.quantity == quantity
            and role in (None, entry.role)
            and round in (None, entry.round)
            and (what is None or entry.what in what)
        )

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield every entry in booking order as a plain mapping, ready for JSON."""
        return (asdict(entry) for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)
