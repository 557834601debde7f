"""One process that computes cells, one after another, and never outlives the one that started it.

Knows kinds and the store; not why a cell is wanted. It imports nothing heavy itself: kinds do.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

from airtune.errors import AirtuneError, BusyError
from airtune.records import write_text
from airtune.records.cells import CellStore, DamagedCell, Kind, kind_of
from airtune.records.lock import Lock

ENDS_WITHIN_S = 5.0
"""How long a process that has nothing to do may take to end by itself; libraries tidy up as it ends."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Job:
    """A cell to compute: its kind, key and settings, and the keys of the cells it needs, by name."""

    kind: Kind
    key: str
    settings: Mapping[str, Any]
    needed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Report:
    """How a job ended: `done`, `busy` (another process computes it) or `failed`, and why."""

    ended: str
    seconds: float = 0.0
    why: str = ""


def compute(store: CellStore, job: Job) -> Report:
    """Compute a cell under its lock, unless somebody else does or did."""
    folder = store.folder(job.kind.name, job.key)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(folder / "cell.lock")
    except BusyError as error:
        return Report("busy", why=" ".join(str(error).split()))
    try:
        if store.holds(job.kind.name, job.key):
            try:
                return Report("done", store.read(job.kind.name, job.key).seconds)
            except DamagedCell:
                store.discard(job.kind.name, job.key)
        needs = {name: store.read(kind_of(name), key) for name, key in job.needed.items()}
        begun = time.perf_counter()
        outcome = job.kind.compute(job.settings, folder / "work", needs)
        seconds = time.perf_counter() - begun
        store.write(job.kind, job.key, job.settings, outcome, seconds)
        (folder / "failure.txt").unlink(missing_ok=True)
        return Report("done", seconds)
    except AirtuneError as error:
        return Report("failed", why=" ".join(str(error).split()))
    except Exception as error:  # a defect or a full machine: said and kept, the other cells go on
        write_text(folder / "failure.txt", traceback.format_exc())
        return Report("failed", why=f"{type(error).__name__}: {error}; see {folder / 'failure.txt'}")
    finally:
        lock.release()


@final
class Worker:
    """A process of its own (spawned, one thread for arithmetic) that takes one job at a time.

    Args:
        root: Folder of the cell store.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._start()

    def _start(self) -> None:
        self._busy = False
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, str(self._root)), daemon=True)
        with _one_thread():
            self._process.start()
        theirs.close()

    def give(self, job: Job) -> None:
        self._busy = True
        self.pipe.send(job)

    def report(self) -> Report:
        """How the job ended; waits for it. A process that died is replaced, and its job counts as failed."""
        try:
            found: Report = self.pipe.recv()
            self._busy = False
            return found
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._start()
            return Report("failed", why=f"its process ended with {code}; memory may have run out: use fewer --jobs")

    def stop(self) -> None:
        """End the process: by itself where it waits for a job, by force from the midst of one."""
        self.pipe.close()
        if not self._busy:
            self._process.join(ENDS_WITHIN_S)
        self._process.terminate()
        self._process.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    """What starts meanwhile computes on one thread: NumPy and torch read this as they load, before `_serve` runs."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, root: str) -> None:
    if not sys.warnoptions:  # libraries' notes to their developers, as the command itself drops them
        warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    store = CellStore(Path(root))
    try:
        while True:
            pipe.send(compute(store, pipe.recv()))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
