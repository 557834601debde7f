"""Which settings of two runs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def differences(recorded: Mapping[str, Any], asked: Mapping[str, Any], above: str = "") -> list[str]:
    """Name the settings that differ, in the order of their names, with both values."""
    found: list[str] = []
    for key in sorted(recorded.keys() | asked.keys()):
        before, now = recorded.get(key), asked.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{above}{key}.")
        elif not _same(before, now):
            found.append(f"{above}{key} was {_shown(before)}, is {_shown(now)}")
    return found


def _same(before: Any, now: Any) -> bool:
    """Whether two settings mean the same: 1 is 1.0 but not True, and nan is nan."""
    if isinstance(before, bool) or isinstance(now, bool):
        return before is now
    return before == now or json.dumps(before) == json.dumps(now)


def _shown(value: Any) -> str:
    return "not set" if value is None else f"{value!r:.60}"
