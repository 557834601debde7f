"""Settings out of plain values and text: kinds, ranges, and one line for what is neither.

Knows dataclasses, kinds and ranges; not what any setting means.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import Any, SupportsFloat

from airtune.errors import ConfigError


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise `ConfigError` with key, value and what was expected, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{name} is {value!r}; {expected}")


def require_positive(name: str, value: float) -> None:
    """Raise `ConfigError` unless the value is finite and above 0."""
    require(math.isfinite(value) and value > 0, name, value, "choose a finite number above 0")


def require_between(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise `ConfigError` unless the value is finite and within low..high, ends included."""
    expected = f"choose at least {low:g}" if high == math.inf else f"choose {low:g} to {high:g}"
    require(math.isfinite(value) and low <= value <= high, name, value, expected)


def build(kind: type, values: Mapping[str, Any], where: str = "") -> Any:
    """Make a dataclass of settings, groups within it included, from plain values or their text.

    Args:
        where: Dotted prefix of the keys, for errors.

    Raises:
        ConfigError: an unknown key, a value of the wrong kind, or whatever the dataclass itself refuses.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        known = ", ".join(f"{where}{name}" for name in hints)
        raise ConfigError(f"unknown setting {where}{unknown[0]!s}; known here are {known}")
    return kind(**{name: _convert(hints[name], value, where + name) for name, value in values.items()})


def group(name: str, value: object) -> Mapping[str, Any]:
    """The value, if it is a group of settings. Raises `ConfigError` otherwise."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}; expected a group of settings such as {name}.key=value")
    return value


def _convert(kind: Any, value: object, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), group(name, value), f"{name}.")
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        require(value in choices, name, value, f"choose one of {', '.join(choices)}")
        return value
    read, expected = _KINDS[typing.get_origin(kind) or kind]
    try:
        return read(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name} is {value!r}; expected {expected}") from None


def _text(value: object) -> str:
    if not isinstance(value, str | PurePath):
        raise TypeError
    return str(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | SupportsFloat) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _whole(value: object) -> int:
    if _number(value) % 1:
        raise ValueError
    return int(Decimal(str(value)))  # a long seed keeps every digit


def _numbers(value: object) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise TypeError
    return tuple(_number(part) for part in parts)


def _truth(value: object) -> bool:
    found = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError
    return found


_KINDS: Mapping[type, tuple[Callable[[object], object], str]] = {
    str: (_text, "text"),
    bool: (_truth, "true or false"),
    int: (_whole, "a whole number"),
    float: (_number, "a finite number"),
    tuple: (_numbers, "comma-separated finite numbers"),
}
"""How the value of a setting, or its text, is read, and what is expected of it."""
