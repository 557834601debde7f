"""Which modules PEFT puts LoRA on, by its settings: tensors of others it leaves aside when it loads a folder.

Knows PEFT's settings and paths; not tensors. An expression is read where it is surely quick; another one, and
`all-linear`, which takes the model to tell, is held to mean every module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airtune.codec.contents import shown
from airtune.errors import DataError

Names = tuple[str, ...] | str | None
"""Modules' names or their ends; an expression for whole paths; None where nothing is said that can be read."""

_QUICK = 3
"""Repeats in an expression that is read; none of them may repeat a group."""
_LAYER = r".*?\.[^.]*"


@dataclass(frozen=True, slots=True)
class Targets:
    """Modules that have LoRA.

    Args:
        names: `target_modules`; None for all.
        excluded: `exclude_modules`; None for none.
        saved: `modules_to_save`, on whose parts there is none.
        layers: `layers_to_transform`, None for all.
        lists: `layers_pattern`: what their list is called, empty for any.
    """

    names: Names
    excluded: Names
    saved: tuple[str, ...]
    layers: frozenset[int] | None
    lists: tuple[str, ...]

    def hold(self, path: str) -> bool:
        """Whether PEFT has LoRA there."""
        if _match(self.excluded, path) or any(f".{name}." in f".{path}." for name in self.saved):
            return False
        if self.names is not None and not _match(self.names, path):
            return False
        if self.layers is None or not isinstance(self.names, tuple) or path in self.names:
            return True
        starts = [rf"(?:^|.*?\.){re.escape(name)}" for name in self.lists] or [_LAYER]
        layer = next((found for start in starts if (found := re.match(rf"{start}\.(\d+)\.", path))), None)
        return layer is not None and int(layer[1]) in self.layers


def read_targets(path: Path, config: Mapping[str, Any]) -> Targets:
    """Raises `DataError` where a setting is of a wrong kind."""
    names, excluded = (
        None if isinstance(given := _names(path, setting, config), str) and not _quick(given) else given
        for setting in ("target_modules", "exclude_modules")
    )
    layers = config.get("layers_to_transform")
    numbers = [layers] if type(layers) is int else layers or []
    if not (isinstance(numbers, list) and all(type(layer) is int for layer in numbers)):
        raise DataError(f"{path} has layers_to_transform {shown(layers)}; expected whole numbers; mend the file")
    lists, saved = _names(path, "layers_pattern", config) or (), _names(path, "modules_to_save", config) or ()
    lists, saved = ((each,) if isinstance(each, str) else each for each in (lists, saved))
    readable = all(re.fullmatch(r"\w+", name) for name in lists)
    return Targets(
        names=names,
        excluded=excluded,
        saved=saved,
        layers=frozenset(numbers) if numbers and readable else None,
        lists=lists,
    )


def _names(path: Path, setting: str, config: Mapping[str, Any]) -> Names:
    value = config.get(setting)
    listed = value if isinstance(value, list) else [value or ""]
    if not all(isinstance(name, str) for name in listed):
        raise DataError(f"{path} has {setting} {shown(value)}; expected modules' names; mend the file")
    return tuple(value) if isinstance(value, list) else value or None


def _quick(expression: str) -> bool:
    """Whether an expression can be matched in little time, and means modules."""
    try:
        re.compile(expression)
    except (re.error, OverflowError, RecursionError):
        return False
    slow = re.search(r"\)[*+?{]", expression) or len(re.findall(r"[*+{]", expression)) > _QUICK
    return not slow and expression.lower() != "all-linear"


def _match(names: Names, path: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, path) is not None
    return any(f".{path}".endswith(f".{name}") for name in names or ())
