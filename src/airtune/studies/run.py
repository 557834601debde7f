"""One study from its name to its page: read, expand, compute, gather, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from airtune.errors import ConfigError
from airtune.records import Progress, write_bytes, write_text
from airtune.records.cells import CellStore, Kind
from airtune.studies.declaration import read_harness, read_study
from airtune.studies.engine import compute_all
from airtune.studies.figures import draw
from airtune.studies.gather import Gathered
from airtune.studies.markdown import markdown
from airtune.studies.page import page
from airtune.studies.plan import Settings, make_plan


@dataclass(frozen=True, slots=True)
class Finished:
    """Where a study's page is, and the cells that failed: settings in words, and why."""

    page: Path
    failed: tuple[str, ...]


def run_study(
    method: str,
    name: str,
    *,
    kinds: Mapping[str, Kind],
    settings: Settings,
    preset: str,
    overrides: Mapping[str, object],
    model: str,
    data: str,
    workload: str = "",
    out: Path,
    store: Path,
    jobs: int,
    progress: Progress,
) -> Finished:
    """Run a study into a folder: `results.csv`, `results.md`, `figures/*.png`, `page.html`.

    What other studies, or an interrupted run of this one, left in the store is not computed again.

    Raises:
        ConfigError: an unknown study or preset, contradictory settings, a model or data that is missing, or a folder
            that cannot be made.
    """
    study, harness = read_study(method, name), read_harness(method)
    if preset not in harness.presets:
        raise ConfigError(f"preset of a study is {preset!r}; choose one of {', '.join(harness.presets)}")
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}; choose at least 1")
    plan = make_plan(
        study,
        harness,
        harness.presets[preset],
        kinds,
        settings,
        overrides=overrides,
        model=model,
        data=data,
        workload=workload,
    )
    for option, folder in (("--out", out), ("--store", store)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{option} is {str(folder)!r}, no folder can be there ({error}); choose another"
            ) from None
    for note in plan.notes:
        progress.say(f"Note: {note}.")
    computed = compute_all(plan, CellStore(store), jobs=jobs, progress=progress)
    gathered = Gathered(plan, computed)
    drawings = draw(gathered)
    write_text(out / "results.csv", gathered.csv())
    write_text(out / "results.md", markdown(gathered))
    for drawing in drawings:
        write_bytes(out / "figures" / f"{drawing.name}.png", drawing.light)
    write_text(out / "page.html", page(gathered, drawings))
    return Finished(out / "page.html", tuple(gathered.failures()))
