"""Files of a run folder and their values, checked: what has the wrong type is named and refused in one line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airtune.errors import RunError


def read_summary(path: Path) -> Mapping[str, Any]:
    """What a finished run wrote."""
    if not path.is_file():
        raise RunError(f"{path.parent} holds no summary.json; give the folder of a finished run")
    summary = _json(path.name, read_text(path))
    if not isinstance(summary, Mapping):
        raise RunError(f"{path} holds a {type(summary).__name__}; expected an object: run again")
    return summary


def read_text(path: Path) -> str:
    """A file of text; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}); expected UTF-8 text: run again") from None


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RunError(f"{where} is not valid JSON ({error}); repair the line or run again") from None


def read_lines(path: Path) -> Iterable[Mapping[str, Any]]:
    """Every object of a file with one on each line."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            entry = _json(f"{path.name} line {number}", line)
            if not isinstance(entry, Mapping):
                raise RunError(f"{path.name} line {number} holds a {type(entry).__name__}; expected an object")
            yield entry


def number(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    """The number under a key; None where nothing is."""
    value = entry.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise RunError(f"summary.json {where}.{key} is {value!r:.40}; expected a number or null")
    return value


def integer(value: Any, where: str) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RunError(f"summary.json {where} is {value!r:.40}; expected a whole number")
    return value


def listed(entry: Mapping[str, Any], key: str) -> Sequence[Any]:
    """The list under a key; empty where nothing is."""
    value = entry.get(key) or []
    if not isinstance(value, list):
        raise RunError(f"summary.json {key} is a {type(value).__name__}; expected a list")
    return value


def mapped(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key; empty where nothing is."""
    value = entry.get(key) or {}
    if not isinstance(value, Mapping):
        raise RunError(f"summary.json {key} is a {type(value).__name__}; expected an object")
    return value


def label(value: Any) -> str:
    """Any JSON value as a short text; missing is empty."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {label(part)}" if key != "name" else label(part) for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(label(part) for part in value)
    return "" if value is None else str(value)
