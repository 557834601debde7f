"""Parts that the pages of all runs have: notes, facts, costs, settings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airtune.reports import units
from airtune.reports.markup import Markup, join, tag
from airtune.reports.tables import plain_table

_SECRET, _HIDDEN = re.compile(r'^(\w*secret) = (?!"").*$', re.MULTILINE), r"\1 = (not shown)"


def noted(notes: tuple[str, ...]) -> Markup:
    """Notes, set apart; nothing where there are none."""
    if not notes:
        return Markup()
    return tag("aside", tag("h2", "Note" if len(notes) == 1 else "Notes"), bullets(notes), class_="notes")


def facts(pairs: Mapping[str, str]) -> Markup:
    """A short list of names and values; what is empty is left out."""
    return tag("dl", *(join([tag("dt", k), tag("dd", v)]) for k, v in pairs.items() if v), class_="facts")


def bullets(texts: tuple[str, ...], kind: str | None = None) -> Markup:
    """A list; nothing where it is empty."""
    if not texts:
        return Markup()
    return tag("ul", *(tag("li", text) for text in texts), class_=kind)


def costs(ledger: Sequence[Mapping[str, Any]]) -> Iterator[Markup]:
    """What was booked, by quantity and role."""
    found: dict[str, dict[str, list[float]]] = {}
    for entry in ledger:
        value = entry.get("amount")
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.setdefault(str(entry.get("quantity")), {}).setdefault(str(entry.get("role")), []).append(value)
    if not found:
        yield tag("p", "This run booked no costs.")
        return
    roles = sorted({role for by_role in found.values() for role in by_role})
    yield plain_table(("quantity", *roles, "together"), [_cost_row(name, found[name], roles) for name in found])
    yield tag("p", "Sums over the ledger; of memory, the largest single entry.", class_="hint")


def _cost_row(quantity: str, by_role: Mapping[str, list[float]], roles: list[str]) -> tuple[str, ...]:
    gather = max if quantity == "memory_bytes" else math.fsum
    amounts = [units.amount(gather(by_role[role]), quantity) if role in by_role else units.MISSING for role in roles]
    together = units.amount(gather([value for values in by_role.values() for value in values]), quantity)
    return (quantity.replace("_bytes", "").replace("_", " "), *amounts, together)


def configuration(config: str) -> Iterator[Markup]:
    """The settings in force, folded; a page is passed on, so what is called a secret is left out."""
    if not config:
        yield tag("p", "This folder holds no config.toml.")
        return
    yield tag(
        "details",
        tag("summary", "config.toml, as in force"),
        tag("pre", tag("code", _SECRET.sub(_HIDDEN, config.strip()))),
    )
