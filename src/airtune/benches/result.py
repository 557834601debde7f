"""What a bench found: rows for the table, ratios with what was asked of them. Knows no clock and no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ratio:
    """One number that the bench is about.

    Args:
        name: What is divided by what.
        measured: The ratio, from medians of one process's run.
        asked: What it has to reach.
        at_least: Whether more is better; otherwise the ratio may be at most what was asked.
    """

    name: str
    measured: float
    asked: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        """False also where the measured ratio is no number."""
        return self.measured >= self.asked if self.at_least else self.measured <= self.asked

    @property
    def wanted(self) -> str:
        """What was asked, in words: ``at least 2``."""
        return f"at {'least' if self.at_least else 'most'} {self.asked:g}"


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of one table (each a mapping from column to number or text, all with the same columns) and its ratios."""

    rows: Sequence[Mapping[str, float | str]]
    ratios: Sequence[Ratio]
    notes: Sequence[str] = ()

    @property
    def holds(self) -> bool:
        """Whether every ratio reaches what was asked."""
        return all(ratio.holds for ratio in self.ratios)

    def as_dict(self) -> dict[str, Any]:
        ratios = [{"name": r.name, "measured": r.measured, "asked": r.wanted, "holds": r.holds} for r in self.ratios]
        return {"rows": [dict(row) for row in self.rows], "ratios": ratios, "notes": list(self.notes)}
