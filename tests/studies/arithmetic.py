"""A method whose cells are arithmetic: what the engine does with them can be told by hand. Found by other processes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np

from airtune.errors import ConfigError, ModelError
from airtune.records.cells import Done, Kind, Outcome, Value


def everything(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return settings


def base_and_seed(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: settings[name] for name in ("base", "seed")}


def compute_base(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """100 x base + seed, written into a file; notes in the folder `journal` that it was computed."""
    work.mkdir(parents=True, exist_ok=True)
    note(settings, "base")
    (work / "number.txt").write_text(str(100 * settings["base"] + settings["seed"]))
    (work / "scratch.txt").write_text("nobody needs this")
    return Outcome((Value("base", settings["base"]),), files=("number.txt",))


def compute_sum(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """What the base's file says plus `plus`, at two x; items that spread around it; fails, dies or hangs on request."""
    note(settings, f"sum {settings['plus']}")
    if settings["plus"] == settings["fails_at"]:
        raise ModelError("the loss is nan; use another number")
    if settings["plus"] == settings["dies_at"]:
        os._exit(9)
    time.sleep(settings["seconds"])
    number = float((needs["base"].work / "number.txt").read_text()) + settings["plus"]
    if settings["plus"] == settings["nan_at"]:
        number = float("nan")
    values = tuple(Value("sum", number + x, x) for x in (0.0, 10.0))
    items = {value.item_name: value.value + np.array([-1.0, 0.0, 1.0]) for value in values}
    return Outcome(values, items=items if settings["items"] else {})


def compute_share(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Half and double of what the base's file says, and at three places that, 3 more and 5 more.

    Over x the half's reach is 1 at 1, 4 and 9; the double's is x / 3 at 4 and 9.
    """
    number = float((needs["base"].work / "number.txt").read_text())
    places = (Value("height", number + more, at=at) for at, more in {"0.a": 0, "0.b": 3, "1.a": 5}.items())
    reach = [Value("reach", 1.0, x, "half") for x in (1, 4, 9)] + [Value("reach", x / 3, x, "double") for x in (4, 9)]
    return Outcome((Value("share", number / 2, of="half"), Value("share", number * 2, of="double"), *places, *reach))


def of_each(settings: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Bases 1 to `base`, each under settings of its own; the seed is 0 for all."""
    return {f"base {n}": {**settings, "base": n, "seed": 0} for n in range(1, settings["base"] + 1)}


def compute_total(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """What their files say, by name."""
    numbers = {name: float((done.work / "number.txt").read_text()) for name, done in needs.items()}
    return Outcome(tuple(Value("total", number, of=name) for name, number in numbers.items()))


def compute_threads(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Threads of this process: one computes, one watches the parent, and those of NumPy's own pool."""
    return Outcome((Value("threads", len(list(Path("/proc/self/task").iterdir()))),))


def compute_tidied(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """As a library does that holds a lock shared by processes: leaves something to do for when this process ends."""
    Finalize(None, Path.touch, args=(Path(settings["journal"]) / "tidied",), exitpriority=0)
    return Outcome((Value("base", 0.0),))


def note(settings: Mapping[str, Any], what: str) -> None:
    with open(Path(settings["journal"]) / "journal.txt", "a") as file:
        file.write(f"{what} seed {settings['seed']}\n")


def without_journal(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in settings.items() if name != "journal"}


KINDS = {
    "base": Kind("base", 1, (), base_and_seed, compute_base),
    "sum": Kind("sum", 1, ("base",), without_journal, compute_sum),
    "threads": Kind("threads", 1, (), base_and_seed, compute_threads),
    "tidied": Kind("tidied", 1, (), everything, compute_tidied),
    "total": Kind("total", 1, (), base_and_seed, compute_total, also=of_each),
    "share": Kind("share", 1, ("base",), base_and_seed, compute_share),
}
DEFAULTS = {
    "base": 1,
    "plus": 0,
    "seed": 0,
    "fails_at": -1,
    "dies_at": -1,
    "nan_at": -1,
    "seconds": 0.0,
    "items": False,
    "journal": "",
}


def settings(preset: str, overrides: Mapping[str, object]) -> dict[str, Any]:
    if unknown := set(overrides) - set(DEFAULTS):
        raise ConfigError(f"unknown setting {sorted(unknown)[0]}; known are {', '.join(DEFAULTS)}")
    return {**DEFAULTS, **overrides}
