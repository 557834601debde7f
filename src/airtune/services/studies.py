"""Run a study of a method: hand its kinds and settings to the engine, which knows neither."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from airtune.errors import ConfigError
from airtune.records import Progress, Silent
from airtune.services.catalog import METHODS, method_entry
from airtune.studies import Finished, run_study


def run_method_study(
    method: str,
    name: str,
    *,
    preset: str,
    overrides: Mapping[str, object],
    model: str,
    data: str,
    workload: str = "",
    out: Path,
    store: Path,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Finished:
    """Run a study into a folder; see `airtune.studies.run_study`. `jobs` is one per processor where not given."""
    entry = method_entry(method)
    if entry.kinds is None:
        having = ", ".join(name for name, one in METHODS.items() if one.kinds is not None)
        raise ConfigError(f"method {method} has no studies; choose one of {having}")
    return run_study(
        method,
        name,
        kinds=entry.kinds,
        settings=lambda preset, overrides: entry.load_config(preset, overrides).as_dict(),
        preset=preset,
        overrides=overrides,
        model=model,
        data=data,
        workload=workload,
        out=out,
        store=store,
        jobs=(os.cpu_count() or 1) if jobs is None else jobs,
        progress=progress or Silent(),
    )
