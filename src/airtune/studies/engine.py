"""Computes the cells of a plan: several at once, each once, resumable after a kill at any moment.

Knows the graph and the store; not what a cell means. What is on disk and whole is not computed again; what is damaged
is removed, said, and redone; what fails is reported, and all that does not need it goes on.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import final

from airtune.records import Progress, append_line, read_lines
from airtune.records.cells import CellStore, DamagedCell, Done
from airtune.records.lock import locked
from airtune.records.plain import json_text
from airtune.studies.plan import Cell, Plan
from airtune.studies.worker import Job, Report, Worker

LOOK_AGAIN_S = 2.0
"""How long a cell that another process computes is left alone before it is asked about again."""


@dataclass
class Computed:
    """What came of a plan's cells, by key."""

    done: dict[str, Done] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Why; a cell that needs a failed one fails too."""
    fresh: set[str] = field(default_factory=set)
    """Computed in this run."""


@final
class Durations:
    """Measured seconds of finished cells: of the same kind, workload and variant where there are some."""

    def __init__(self, store: CellStore) -> None:
        self._path = store.root / "seconds.jsonl"
        self._known: dict[tuple[str, ...], list[float]] = {}
        for line in read_lines(self._path):
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                self._learn(tuple(map(str, entry["like"])), float(entry["seconds"]))

    def add(self, like: tuple[str, str, str], seconds: float) -> None:
        with locked(self._path.parent):  # of two studies on one store
            append_line(self._path, json_text({"like": like, "seconds": seconds}))
        self._learn(like, seconds)

    def of(self, like: tuple[str, str, str]) -> float | None:
        """Median seconds of the most alike cells measured; None where no cell of the kind was."""
        for length in (3, 2, 1):
            if found := self._known.get(like[:length]):
                return statistics.median(found[-20:])
        return None

    def _learn(self, like: tuple[str, ...], seconds: float) -> None:
        for length in (1, 2, 3):
            self._known.setdefault(like[:length], []).append(seconds)


def compute_all(plan: Plan, store: CellStore, *, jobs: int, progress: Progress) -> Computed:
    """Compute every cell of a plan that is not there yet, on so many processes."""
    found, durations = Computed(), Durations(store)
    for key, cell in plan.cells.items():
        if store.holds(cell.kind.name, key):
            try:
                found.done[key] = store.read(cell.kind.name, key)
            except DamagedCell as error:
                progress.say(f"Damaged cell: {error}.")  # the worker removes it, under its lock
    missing = {key: cell for key, cell in plan.cells.items() if key not in found.done}
    for line in forecast(plan, missing, durations, jobs):
        progress.say(line)
    if missing:
        store.root.mkdir(parents=True, exist_ok=True)
        with progress.stage(f"Computing {plan.study.name}", total=len(missing)) as stage:
            run = _Run(missing, store, durations, found, jobs, progress)
            for count, (cell, report) in enumerate(run, start=1):
                label = f"{' '.join(cell.like)}: {report.why or f'{report.seconds:.0f} s'}"
                if report.ended == "failed":
                    progress.say(f"Failed: {label}.")
                left = _left(run.pending, durations, jobs)
                stage.advance(note=f"{cell.like[0]} {report.ended}, {left}")
                if 10 * count // len(missing) > 10 * (count - 1) // len(missing) and count < len(missing):
                    progress.say(f"{count} of {len(missing)} cells ended, {left}.")  # for those who watch no bar
    return found


def forecast(plan: Plan, missing: Mapping[str, Cell], durations: Durations, jobs: int) -> list[str]:
    """What is to be done and how long such cells took: one line per kind, and the sum."""
    lines = []
    for kind in dict.fromkeys(cell.kind.name for cell in plan.cells.values()):
        todo = [cell for cell in missing.values() if cell.kind.name == kind]
        total = sum(cell.kind.name == kind for cell in plan.cells.values())
        times = [seconds for cell in todo if (seconds := durations.of(cell.like)) is not None]
        each = f" x {statistics.mean(times):.0f} s measured" if times else " (none measured yet)" if todo else ""
        lines.append(f"{kind}: {total} cells, {total - len(todo)} there, {len(todo)} to compute{each}.")
    if missing:
        lines.append(f"Together on {jobs} processes: {_left(missing.values(), durations, jobs)}.")
    return lines


def _left(cells: Iterable[Cell], durations: Durations, jobs: int) -> str:
    times = [durations.of(cell.like) for cell in cells]
    known = [seconds for seconds in times if seconds is not None]
    if not times:
        return "none left"
    if not known:
        return f"{len(times)} cells left, time not known yet"
    minutes = math.ceil(statistics.mean(known) * len(times) / jobs / 60)
    return f"about {minutes} min left" + ("" if len(known) == len(times) else " (some kinds not measured yet)")


@final
class _Run:
    """Hands out cells to workers as those they need are done; iterating gives each cell as it ends."""

    def __init__(
        self,
        missing: Mapping[str, Cell],
        store: CellStore,
        durations: Durations,
        found: Computed,
        jobs: int,
        progress: Progress,
    ) -> None:
        self._missing = dict(missing)
        self._store, self._durations, self._found, self._jobs = store, durations, found, jobs
        self._progress = progress
        self._running: dict[Worker, Cell] = {}
        self._ask_at: dict[str, float] = {}

    @property
    def pending(self) -> list[Cell]:
        """Cells not ended yet, running ones too."""
        return [*self._missing.values(), *self._running.values()]

    def __iter__(self) -> Iterator[tuple[Cell, Report]]:
        workers = [Worker(self._store.root) for _ in range(min(self._jobs, len(self._missing)))]
        try:
            while self._missing or self._running:
                for cell in self._doomed():
                    yield cell, Report("failed", why=self._found.failed[cell.key])
                for worker in workers:
                    if worker not in self._running and (ready := self._next()) is not None:
                        self._running[worker] = self._missing.pop(ready.key)
                        worker.give(Job(ready.kind, ready.key, ready.settings, ready.needed))
                pipes = {worker.pipe: worker for worker in self._running}
                for pipe in wait(list(pipes), timeout=LOOK_AGAIN_S) if pipes else ():
                    worker = pipes[pipe]  # type: ignore[index]
                    cell = self._running.pop(worker)
                    if (report := self._ended(cell, worker.report())) is not None:
                        yield cell, report
                if not pipes and self._missing:
                    time.sleep(LOOK_AGAIN_S)
        finally:
            for worker in workers:
                worker.stop()

    def _next(self) -> Cell | None:
        """A cell whose needs are met; one that must be alone only when nothing runs, and then nothing beside it."""
        if any(cell.kind.alone for cell in self._running.values()):
            return None
        for cell in self._missing.values():
            ready = all(key in self._found.done for key in cell.needed.values())
            if ready and time.monotonic() >= self._ask_at.get(cell.key, 0) and not (cell.kind.alone and self._running):
                return cell
        return None

    def _doomed(self) -> list[Cell]:
        """Take out the cells that need a failed one."""
        out = []
        for cell in list(self._missing.values()):
            if lacking := [kind for kind, key in cell.needed.items() if key in self._found.failed]:
                self._found.failed[cell.key] = f"its {lacking[0]} cell failed"
                out.append(self._missing.pop(cell.key))
        return out

    def _ended(self, cell: Cell, report: Report) -> Report | None:
        """Keep a result; a busy cell goes back to be asked about later."""
        if report.ended == "busy":
            if cell.key not in self._ask_at:
                self._progress.say(f"Waiting: {report.why}.")
            self._missing[cell.key] = cell
            self._ask_at[cell.key] = time.monotonic() + LOOK_AGAIN_S
            return None
        if report.ended == "failed":
            self._found.failed[cell.key] = report.why
            return report
        self._found.done[cell.key] = self._store.read(cell.kind.name, cell.key)
        self._found.fresh.add(cell.key)
        self._durations.add(cell.like, report.seconds)
        return report
