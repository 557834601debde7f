"""From a declared study to a graph of cells: workloads x variants x seeds, and all that their cells need.

A variant may have fewer seeds than the rest, always the first ones, so that differences are paired over those.

Equal cells of several variants, studies or runs are one cell, for its key is made of what its result depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airtune.errors import AirtuneError, ConfigError
from airtune.records.cells import Kind, kind_of
from airtune.records.plain import canonical_json
from airtune.studies.declaration import Harness, Preset, Study, Variant, Workload

Settings = Callable[[str, Mapping[str, object]], dict[str, Any]]
"""The method's preset and overrides to all of its settings, validated."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One node of the graph."""

    kind: Kind
    key: str
    settings: Mapping[str, Any]
    needed: Mapping[str, str]
    """Keys of the cells it reads, by name."""
    like: tuple[str, str, str]
    """Kind, workload and variant: cells that agree in these take about as long."""


@dataclass(frozen=True, slots=True)
class Point:
    """One workload, variant and seed, and the cells its values come from: the asked kind's first."""

    workload: str
    variant: Variant
    seed: int
    cells: tuple[tuple[str, str], ...]
    """Kind and key."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study computes, in an order in which every cell comes after those it needs."""

    study: Study
    seeds: int
    points: tuple[Point, ...]
    cells: Mapping[str, Cell]
    notes: tuple[str, ...]
    given: str
    """Preset and settings that the user chose, in words."""


def chosen_workload(harness: Harness, name: str, model: str, data: str) -> tuple[Workload, dict[str, Any], str]:
    """The workload, its settings with the user's model and data in place, and a note where another stands in.

    Raises `ConfigError` where one of model and data is missing, or given to a workload that takes none.
    """
    workload, note = harness.workloads[name], ""
    if workload.instead and not model and not data:
        note = f"no --model and --data were given: {workload.what} is replaced by "
        workload = harness.workloads[workload.instead]
        note += f"{workload.what}"
    settings = dict(workload.set)
    who = f"workload {name} ({workload.what})"
    for option, key, given in (("--model", workload.model, model), ("--data", workload.data, data)):
        if key and not given:
            hint = ", or leave --model and --data out" if workload.instead else ""
            raise ConfigError(f"{who} needs {option}; give a path{hint}")
        local = option == "--data" or given.startswith((".", "/", "~"))  # otherwise a hub's name
        if key and local and not Path(given).expanduser().exists():
            raise ConfigError(f"{option} is {given!r}, which does not exist; give the path of what {who} needs")
        if key:
            settings[key] = given
        elif given and workload is harness.workloads[name]:
            raise ConfigError(f"{who} takes no {option}; leave it out")
    return workload, settings, note


def make_plan(
    study: Study,
    harness: Harness,
    preset: Preset,
    kinds: Mapping[str, Kind],
    settings: Settings,
    *,
    overrides: Mapping[str, object],
    model: str,
    data: str,
    workload: str = "",
) -> Plan:
    """Expand a study, on its own workloads or on the one named.

    Raises:
        ConfigError: settings that contradict the study or each other or that it does not look at, a kind that the
            method does not have, or a workload without its model or data.
    """
    workload = workload or preset.workload
    varied = {key for variant in study.variants for key in variant.set} | set(study.set) | {"seed"}
    if clash := sorted(varied & set(overrides)):
        raise ConfigError(f"study {study.name} varies {clash[0]} itself, but --set gives it; leave it out")
    for named in (*([workload] if workload else []), *study.on):
        if named not in harness.workloads:
            raise ConfigError(f"workload is {named!r}; choose one of {', '.join(harness.workloads)}")
    own_settings: list[tuple[str, dict[str, Any]]] = []
    notes: list[str] = []
    for name in (workload,) if workload else study.workloads:
        chosen, own, note = chosen_workload(harness, name, model, data)
        own_settings.append((chosen.name, own))
        notes += [note] if note else []

    def expanded(overrides: Mapping[str, object], seeds: int) -> tuple[tuple[Point, ...], dict[str, Cell]]:
        return _expand(study, preset, kinds, settings, own_settings, overrides, seeds)

    points, cells = expanded(overrides, preset.seeds)
    notes += _fewer_seeds(study, preset.seeds)
    _refuse_idle(study.name, overrides, lambda overrides: expanded(overrides, 1)[1])
    options = {"--model": model, "--data": data} | {f"--set {key}": value for key, value in overrides.items()}
    given = " ".join(
        [f"--preset {preset.name}", *(f"{name}={value}" for name, value in options.items() if value != "")]
    )
    return Plan(study, preset.seeds, points, cells, tuple(dict.fromkeys(notes)), given)


def _expand(
    study: Study,
    preset: Preset,
    kinds: Mapping[str, Kind],
    settings: Settings,
    workloads: Sequence[tuple[str, Mapping[str, Any]]],
    overrides: Mapping[str, object],
    seeds: int,
) -> tuple[tuple[Point, ...], dict[str, Cell]]:
    """Points and cells of workloads, given as name and settings, x variants x seeds."""
    cells: dict[str, Cell] = {}
    known: dict[str, dict[str, str]] = {}
    points = []
    for name, own in workloads:
        for variant in study.variants:
            base = {**preset.set, **own, **study.set, **study.on.get(name, {}), **variant.set, **overrides}
            for seed in range(min(seeds, variant.seeds or seeds)):
                try:
                    all_settings = settings(preset.preset, {**base, "seed": seed})
                except AirtuneError as error:
                    raise ConfigError(f"study {study.name}, variant {variant.name!r}: {error}") from None
                kind, like = variant.cell or study.cell, (name, variant.name)
                found = _closure(kind, kinds, all_settings, like, cells, known, study.name)
                points.append(Point(name, variant, seed, tuple((kind, key) for key, kind in found.items())))
    return tuple(points), cells


def _fewer_seeds(study: Study, seeds: int) -> list[str]:
    """One line for each number of seeds that some variants have instead of all: who they are."""
    found: dict[int, list[str]] = {}
    for variant in study.variants:
        if 0 < variant.seeds < seeds:
            found.setdefault(variant.seeds, []).append(variant.name)
    return [f"over {count} of {seeds} seeds alone: {', '.join(names)}" for count, names in found.items()]


def _refuse_idle(
    study: str, overrides: Mapping[str, object], cells_of: Callable[[Mapping[str, object]], Mapping[str, Cell]]
) -> None:
    """Raise `ConfigError` for a setting that is other than it would be and yet changes no cell."""
    after = cells_of(overrides)
    for key in overrides:
        try:
            before = cells_of({name: value for name, value in overrides.items() if name != key})
        except ConfigError:  # without it the rest does not go together
            continue
        changed = any(before[other].settings != cell.settings for other, cell in after.items() if other in before)
        if changed and before.keys() == after.keys():
            raise ConfigError(f"--set {key} changes nothing that study {study} computes; leave it out")


def _closure(
    name: str,
    kinds: Mapping[str, Kind],
    settings: Mapping[str, Any],
    like: tuple[str, str],
    cells: dict[str, Cell],
    known: dict[str, dict[str, str]],
    study: str,
) -> dict[str, str]:
    """Put the cell of this kind and all it needs among the cells; return key -> kind, this cell first.

    `known` holds what was returned for a kind and settings before: several variants may ask for the same.
    """
    if name not in kinds:
        raise ConfigError(f"study {study} asks for cells of kind {name!r}; this method has {', '.join(kinds)}")
    kind, asked = kinds[name], canonical_json([name, settings])
    if asked not in known:
        below: dict[str, str] = {}
        needed = {}
        for other, its_settings in {**dict.fromkeys(kind.needs, settings), **kind.also(settings)}.items():
            found = _closure(kind_of(other), kinds, its_settings, like, cells, known, study)
            needed[other] = next(iter(found))
            below |= found
        key = kind.key(settings, needed)
        cells.setdefault(key, Cell(kind, key, settings, needed, (name, *like)))
        known[asked] = {key: name, **below}
    return known[asked]
