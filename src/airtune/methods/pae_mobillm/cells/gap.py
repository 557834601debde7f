"""The `gap` cell: what true labels are worth over differences, by number of classes, item by item of test.

Same samples, network, first weights and order by seed; rate and epochs of each the best on dev. Above 0, differences
are behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airtune.methods.pae_mobillm.cells.ways import known
from airtune.records.cells import Done, Outcome, Value


def gap_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Nothing beside the cells it reads."""
    return {}


def compute_gap(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Value: `gap`, accuracy on test by true labels less that by differences, at the number of classes."""
    classes = int(known(needs["reading"], "classes"))
    items = needs["labels"].items["score/labels/"] - needs["side"].items["score/pae/"]
    value = Value("gap", float(items.mean()), of="gap", at=f"{classes} classes")
    return Outcome((value,), items={value.item_name: items})
