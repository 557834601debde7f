"""A declared study of arithmetic, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import arithmetic

from airtune.records import Silent
from airtune.records.cells import CellStore
from airtune.studies.declaration import Harness, Preset, Study, Workload, study_from
from airtune.studies.engine import Computed, compute_all
from airtune.studies.gather import Gathered
from airtune.studies.plan import Plan, make_plan

DECLARED: dict[str, Any] = {
    "title": "Sums",
    "beside": "Table 0",
    "paper_says": "More is more.",
    "source": "nowhere",
    "cell": "sum",
    "baseline": "plus 0",
    "workloads": ["numbers"],
    "variants": [{"name": f"plus {n}", "set": {"plus": n}, "paper": float(n)} for n in (0, 1, 2)],
    "tables": [{"measure": "sum", "title": "The sum", "digits": 2, "x": "x"}],
    "figures": [
        {"kind": "points", "measure": "sum", "title": "Sums", "y": "sum"},
        {"kind": "lines", "measure": "sum", "title": "Sums over x", "x": "x", "y": "sum"},
    ],
    "claims": [{"says": "less is less", "better": "plus 0", "worse": "plus 1", "measure": "sum"}],
}
HARNESS = Harness({}, {"numbers": Workload("numbers", "numbers")})


class Listener:
    """Nobody watches, but what is said is kept."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._silent = Silent()
        self.stage = self._silent.stage

    def say(self, line: str) -> None:
        self.said.append(line)


class Runs:
    """Runs the study under some settings in one store."""

    def __init__(self, folder: Path) -> None:
        self.store = CellStore(folder / "cells")
        self.folder, self.listener = folder, Listener()

    def plan(self, seeds: int = 2, declared: Mapping[str, Any] = DECLARED, **overrides: object) -> Plan:
        study: Study = study_from("sums", declared)
        return make_plan(
            study,
            HARNESS,
            Preset("tiny", "", seeds, {"journal": str(self.folder)}),
            arithmetic.KINDS,
            arithmetic.settings,
            overrides=overrides,
            model="",
            data="",
        )

    def compute(self, plan: Plan, jobs: int = 1) -> Computed:
        return compute_all(plan, self.store, jobs=jobs, progress=self.listener)

    def gathered(self, **overrides: Any) -> Gathered:
        plan = self.plan(**overrides)
        return Gathered(plan, self.compute(plan))

    @property
    def journal(self) -> list[str]:
        """What was computed so far, sorted."""
        path = self.folder / "journal.txt"
        return sorted(path.read_text().splitlines()) if path.exists() else []
