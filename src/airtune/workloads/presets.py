"""Presets: TOML files of settings beside a method, and overrides laid over them. Knows no setting's meaning."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from airtune.errors import ConfigError
from airtune.workloads.settings import group

WORKLOAD_KEYS = {"model.name", "task.name", "task.data", "model", "task"}


def preset_values(package: str, preset: str, overrides: Mapping[str, object] = {}) -> dict[str, Any]:
    """Read a preset of a method's package and lay overrides (`group.key` -> value or its text) over it.

    A preset that wants a model and data of one's own says under `instead` what stands in where neither is given.

    Raises:
        ConfigError: unknown preset (the line lists what there is), or a value where a group belongs.
    """
    folder = resources.files(package) / "presets"
    presets = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    if preset not in presets:
        raise ConfigError(f"preset is {preset!r}; choose one of {', '.join(presets)}")
    values = tomllib.loads((folder / f"{preset}.toml").read_text(encoding="utf-8"))
    instead = values.pop("instead", {})
    if not WORKLOAD_KEYS & overrides.keys():
        values = lay_over(values, instead)
    return lay_over(values, overrides)


def lay_over(values: Mapping[str, Any], others: Mapping[str, object]) -> dict[str, Any]:
    """Lay settings over settings: `group.key`, or a whole group, whose other keys stay."""
    found = dict(values)
    for dotted, value in others.items():
        where, _, key = dotted.rpartition(".")
        if where:
            found[where] = {**group(where, found.get(where, {})), key: value}
        elif isinstance(value, Mapping):
            found[key] = {**group(key, found.get(key, {})), **value}
        else:
            found[key] = value
    return found
