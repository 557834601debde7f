"""Values as JSON and TOML can hold them: settings and results come in as Python values and go to disk as plain ones.

Paths become text, tuples and arrays lists, NumPy scalars numbers, enumerations their values. It knows no files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

from airtune.errors import RunError


def for_json(value: Any) -> Any:
    """Copy a value into what JSON holds. Numbers that are not finite become None. Raises `RunError` for others."""
    return _finite(_plain(value, "value"))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON text that never holds NaN or Infinity; see `for_json`."""
    return json.dumps(for_json(value), allow_nan=False, ensure_ascii=False, indent=indent)


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces. Raises `RunError` for a number that is not finite."""
    try:
        return json.dumps(_plain(value, "value"), allow_nan=False, sort_keys=True, separators=(",", ":"))
    except ValueError:
        raise RunError(f"value holds a number that is not finite: {value!r:.200}; give finite numbers") from None


def for_toml(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Copy settings into what TOML holds: a key whose value is None is left out, for TOML has no null.

    Raises:
        RunError: a value is not a setting, or a list holds None.
    """
    stated: dict[str, Any] = _stated(_plain(settings, "config"), "config")
    return stated


def _plain(value: Any, where: str) -> Any:
    """Copy a value into mappings with text keys, lists, text, numbers, booleans and None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    match value:
        case Enum():
            return _plain(value.value, where)
        case np.generic() | np.ndarray():
            return _plain(value.tolist(), where)
        case None | bool():
            return value
        case str() | PurePath():
            return str(value).encode(errors="backslashreplace").decode()  # file names may hold what UTF-8 cannot
        case int():
            return int(value)
        case float():
            return float(value)
        case Mapping() if all(isinstance(key, str) for key in value):
            return {_plain(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise RunError(
        f"{where} is a {type(value).__name__}; record text, numbers, paths, lists or mappings with text keys"
    )


def _finite(value: Any) -> Any:
    """A plain value with None for numbers that are not finite."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
    return value


def _stated(value: Any, where: str) -> Any:
    """A plain value without the keys whose value is None."""
    match value:
        case dict():
            return {key: _stated(item, f"{where}.{key}") for key, item in value.items() if item is not None}
        case list() if None in value:
            raise RunError(f"{where} is a list that holds None, which TOML cannot write; leave it out")
        case list():
            return [_stated(item, where) for item in value]
    return value
