"""A study as it is declared: what is varied, on what, what is shown, and what the paper says. One TOML file each.

A method's folder holds `NAME.toml` for every study, and `harness.toml` with the presets and workloads they run under.
Settings are named as the method names them; nothing here knows what they mean.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from typing import Any

from airtune.errors import ConfigError

HARNESS = "harness"


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of a table: a name, settings over the workload's, the cell it is read from, and the paper's number."""

    name: str
    set: Mapping[str, Any] = field(default_factory=dict)
    cell: str = ""
    """Kind of cell; the study's own where empty."""
    of: str = ""
    """Whose values of that cell (an allocator's, say); all where empty."""
    paper: float | None = None
    seeds: int = 0
    """Run for the first so many seeds alone; for all that the preset has where 0. Tables say so."""


@dataclass(frozen=True, slots=True)
class Table:
    """One measure of every variant, over seeds."""

    measure: str
    title: str
    unit: str = ""
    factor: float = 1.0
    digits: int = 3
    better: str = "lower"
    """`lower`, `higher`, or `` (neither)."""
    x: str = ""
    """What x is, with its unit; each x gets a column of its own."""
    mean: bool = True
    """Whether the mean over all x says something."""
    at: str = ""
    """What `at` is (an input, a size); each gets a line of its own."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One drawing of a measure: `lines` over x, `points` by variant, or `map` of sites."""

    kind: str
    measure: str
    title: str
    x: str = ""
    y: str = ""
    factor: float = 1.0
    log: str = ""
    """Logarithmic axes: `x`, `both`, or none."""
    variants: Sequence[str] = ()
    """Those that are drawn; all where empty."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A measure made of a curve: the first x at which it has covered a share of the way from a floor to the best end.

    The best end is the highest mean of the last three points over all variants under the same seed. A curve that never
    gets there counts as one point beyond its end.
    """

    name: str
    curve: str
    floor: str
    share: float = 0.95


NO_BOUNDS = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Claim:
    """Something the paper says that a paired difference, or a mean of one variant, can support or contradict."""

    says: str
    better: str
    worse: str = ""
    """Empty where `better` is not compared with another variant, but with the bounds of `between`."""
    measure: str = ""
    margin: float | None = None
    """Where given: `better` is behind `worse` by less than this at every x (in the measure's own unit)."""
    between: Sequence[float] = NO_BOUNDS
    """Bounds of the mean of `better`, where `worse` names none."""
    at: str | None = None
    """Place of a measure that has places, such as an input's name; read with `between` alone."""
    x: float | None = None
    """With `between`: where a measure over x is read; the mean over all x where none is given. With `margin`: the least
    x that is looked at."""
    places: str = ""
    """Regular expression of the places at which `better` is said to have more of the measure ..."""
    than: str = ""
    """... than at the places of this one."""


@dataclass(frozen=True, slots=True)
class Study:
    """A declared study."""

    name: str
    title: str
    beside: str
    """Which table or figure of the paper it stands beside; empty for none."""
    paper_says: str
    source: str
    cell: str
    baseline: str
    variants: tuple[Variant, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...] = ()
    claims: tuple[Claim, ...] = ()
    workloads: tuple[str, ...] = ("decoder",)
    paper_measure: str = ""
    notes: tuple[str, ...] = ()
    """What a reader has to know before the tables."""
    not_run: tuple[str, ...] = ()
    """What belongs here and is not measured, and why."""
    reach: Reach | None = None
    redrawn: str = "adapter, calibration set, policy and channel"
    """What a seed draws anew, in words."""
    set: Mapping[str, Any] = field(default_factory=dict)
    on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings over those, on the workload of that name alone."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How large every study is made: the method's own preset, settings over it, and how many seeds."""

    name: str
    preset: str
    seeds: int
    set: Mapping[str, Any] = field(default_factory=dict)
    workload: str = ""
    """What it runs on where the user names nothing; the study's own workloads where empty."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A model and a task. What it lacks is asked for, or another workload stands in."""

    name: str
    what: str
    model: str = ""
    """The setting that names the model, where the user gives it."""
    data: str = ""
    """The setting that names the data, where the user gives it."""
    instead: str = ""
    """Workload to fall back on where model and data were not given."""
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Harness:
    """Presets and workloads of a method's studies."""

    presets: Mapping[str, Preset]
    workloads: Mapping[str, Workload]


def studies_of(method: str) -> list[str]:
    """Names of the studies declared for a method."""
    folder = resources.files("airtune.studies") / method
    names = (entry.name for entry in folder.iterdir()) if folder.is_dir() else iter(())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml") and name != f"{HARNESS}.toml")


def read_study(method: str, name: str) -> Study:
    """Read a declaration. Raises `ConfigError` for an unknown study or key, or a variant that is not declared."""
    known = studies_of(method)
    if name not in known:
        known_here = ", ".join(known) or "none: it declares no study"
        raise ConfigError(f"study is {name!r}; of {method} choose one of {known_here}; --method names another method")
    return study_from(name, _read(method, name))


def study_from(name: str, declared: Mapping[str, Any]) -> Study:
    """A study from its declaration as TOML gives it; errors as `read_study`."""
    parts = {"variants": Variant, "tables": Table, "figures": Figure, "claims": Claim}
    made = {
        key: tuple(_make(kind, entry, f"{name}.{key}") for entry in declared.get(key, ()))
        for key, kind in parts.items()
    }
    if "reach" in declared:
        made["reach"] = _make(Reach, declared["reach"], f"{name}.reach")
    rest = {
        key: tuple(value) if isinstance(value, list) else value for key, value in declared.items() if key not in made
    }
    study: Study = _make(Study, {"name": name, **rest, **made}, name)
    for variant in study.variants:
        if type(variant.seeds) is not int or variant.seeds < 0:
            found = f"variant {variant.name!r} of study {name} has seeds = {variant.seeds!r}"
            raise ConfigError(f"{found}; give a whole number above 0, or leave it out for all seeds")
    names = [variant.name for variant in study.variants]
    named = [study.baseline]
    for claim in study.claims:
        _check_claim(name, claim)
        named += [claim.better, *([claim.worse] if claim.worse else [])]
    for figure in study.figures:
        named += figure.variants
        if figure.log not in ("", "x", "both"):
            raise ConfigError(f"figure {figure.title!r} of study {name} has log = {figure.log!r}; give x or both")
    for found in named:
        if found not in names:
            raise ConfigError(f"study {name} names the variant {found!r}; choose one of {', '.join(names)}")
    return study


def _check_claim(study: str, claim: Claim) -> None:
    """Refuse a claim that could not fail, or would look at nothing."""
    bounded, within = claim.between != NO_BOUNDS, bool(claim.than)
    if bool(claim.worse) + bounded + within != 1 or bool(claim.places) != within:
        given = "give it one of `worse`, `between`, and `places` with `than`"
        raise ConfigError(f"claim {claim.says!r} of study {study} has none or several; {given}")
    read = {"at", "x"} if bounded else {"margin", "x"} if claim.worse and claim.margin is not None else set()
    if any(getattr(claim, name) is not None for name in {"margin", "at", "x"} - read):
        found = f"claim {claim.says!r} of study {study} has options that it does not read"
        raise ConfigError(f"{found}: `margin` goes with `worse`, `at` with `between`, `x` with either of those")
    pair = isinstance(claim.between, Sequence) and len(claim.between) == 2
    if not (pair and claim.between[0] < claim.between[1]):
        raise ConfigError(f"claim {claim.says!r} of study {study} is between {claim.between!r}; give [lower, upper]")


def read_harness(method: str) -> Harness:
    """Read a method's presets and workloads."""
    declared = _read(method, HARNESS)
    presets = {
        name: _make(Preset, {"name": name, **entry}, f"presets.{name}") for name, entry in declared["presets"].items()
    }
    workloads = {
        name: _make(Workload, {"name": name, **entry}, f"workloads.{name}")
        for name, entry in declared["workloads"].items()
    }
    return Harness(presets, workloads)


def _read(method: str, name: str) -> dict[str, Any]:
    file = resources.files("airtune.studies") / method / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _make(kind: Any, entry: Mapping[str, Any], where: str) -> Any:
    known = [part.name for part in fields(kind)]
    if unknown := sorted(set(entry) - set(known)):
        raise ConfigError(f"{where} holds {unknown[0]!r}; known there are {', '.join(known)}")
    try:
        return kind(**entry)
    except TypeError as error:
        raise ConfigError(f"{where} is not complete ({error}); known there are {', '.join(known)}") from None
