"""Cells: shared, computed once, resumed, redone where damaged, contained where they fail, one writer each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from sums import DECLARED

import airtune
from airtune.records import cells, versions_in_force
from airtune.records.cells import DamagedCell
from airtune.records.lock import Lock

TESTS = Path(__file__).parent


def test_equal_cells_are_one_and_each_is_computed_once(runs):
    plan = runs.plan(seeds=2)
    assert sorted(cell.kind.name for cell in plan.cells.values()) == ["base"] * 2 + ["sum"] * 6
    first = runs.compute(plan)
    assert len(first.fresh) == 8
    assert runs.journal == sorted(
        [f"base seed {s}" for s in (0, 1)] + [f"sum {n} seed {s}" for n in (0, 1, 2) for s in (0, 1)]
    )
    again = runs.compute(plan)
    assert not again.fresh
    assert set(again.done) == set(plan.cells)
    assert len(runs.journal) == 8


def test_a_cell_of_other_software_is_not_trusted(runs, monkeypatch: pytest.MonkeyPatch):
    plan = runs.plan(seeds=1)
    runs.compute(plan)
    key, cell = next(iter(plan.cells.items()))
    assert runs.store.read(cell.kind.name, key).values
    monkeypatch.setattr(cells, "_versions", lambda: {**versions_in_force(), "transformers": "0.0"})
    with pytest.raises(DamagedCell, match=r"was computed with transformers .* \(now 0.0\); it is to be redone"):
        runs.store.read(cell.kind.name, key)


def test_values_are_those_of_the_arithmetic(runs):
    done = runs.compute(runs.plan(seeds=2)).done
    sums = {v.value for d in done.values() for v in d.values if v.measure == "sum" and v.x == 10}
    assert sums == {110, 111, 112, 113}  # 100 + seed + plus + 10, over seeds 0, 1 and plus 0, 1, 2


def test_a_worker_computes_on_one_thread_and_its_parent_keeps_its_own(runs, monkeypatch: pytest.MonkeyPatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    (done,) = runs.compute(runs.plan(seeds=1, declared=DECLARED | {"cell": "threads"})).done.values()
    assert [value.value for value in done.values] == [2]
    assert os.environ["OPENBLAS_NUM_THREADS"] == "4"
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_worker_that_has_nothing_to_do_ends_by_itself(runs):
    runs.compute(runs.plan(seeds=1, declared=DECLARED | {"cell": "tidied"}))
    assert (runs.folder / "tidied").exists()


def test_a_cell_may_read_others_under_settings_of_their_own_and_shares_them(runs):
    variants = [{"name": f"to {n}", "set": {"base": n}} for n in (2, 3)]
    declared = DECLARED | {"cell": "total", "baseline": "to 2", "variants": variants, "claims": []}
    plan = runs.plan(seeds=2, declared=declared)
    assert sorted(cell.kind.name for cell in plan.cells.values()) == ["base"] * 3 + ["total"] * 4
    assert all(len(point.cells) == 1 + point.variant.set["base"] for point in plan.points)
    done = runs.compute(plan).done
    totals = [{v.of: v.value for v in found.values} for found in done.values() if found.folder.parent.name == "total"]
    assert sorted(map(len, totals)) == [2, 2, 3, 3]
    assert {"base 1": 100, "base 2": 200, "base 3": 300} in totals  # 100 x base + seed 0
    assert runs.journal == ["base seed 0"] * 3


def test_what_reads_a_failed_cell_under_other_settings_fails_and_the_reason_is_told(runs):
    (runs.folder / "journal.txt").mkdir()  # so that nothing can be noted
    variants = [{"name": "to 2", "set": {"base": 2}}]
    declared = DECLARED | {"cell": "total", "baseline": "to 2", "variants": variants, "claims": []}
    failures = runs.gathered(seeds=1, declared=declared).failures()
    assert [line.split(":")[0].split(" ")[0] for line in failures] == ["base", "base", "total"]
    assert failures[2].endswith("its base 1 cell failed")


def test_more_seeds_keep_the_cells_of_fewer(runs):
    runs.compute(runs.plan(seeds=1))
    later = runs.compute(runs.plan(seeds=2))
    assert len(later.fresh) == 4


def test_only_files_that_others_need_are_kept(runs):
    plan = runs.plan(seeds=1)
    runs.compute(plan)
    key = next(key for key, cell in plan.cells.items() if cell.kind.name == "base")
    assert [path.name for path in (runs.store.folder("base", key) / "work").iterdir()] == ["number.txt"]


def test_a_kill_before_the_result_is_kept_removes_nothing_to_go_on_from(runs, monkeypatch: pytest.MonkeyPatch):
    plan = runs.plan(seeds=1)
    key, cell = next((key, cell) for key, cell in plan.cells.items() if cell.kind.name == "base")
    work = runs.store.folder("base", key) / "work"
    outcome = cell.kind.compute(cell.settings, work, {})

    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cells, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            runs.store.write(cell.kind, key, cell.settings, outcome, 1.0)
    assert sorted(path.name for path in work.iterdir()) == ["number.txt", "scratch.txt"]


def test_a_kill_while_the_rest_is_removed_leaves_a_whole_cell(runs, monkeypatch: pytest.MonkeyPatch):
    plan = runs.plan(seeds=1)
    key, cell = next((key, cell) for key, cell in plan.cells.items() if cell.kind.name == "base")
    outcome = cell.kind.compute(cell.settings, runs.store.folder("base", key) / "work", {})

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            runs.store.write(cell.kind, key, cell.settings, outcome, 1.0)
    assert runs.store.read("base", key).values == outcome.values


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "file", "missing file", "items"])
def test_a_damaged_cell_is_said_and_redone(runs, damage):
    plan = runs.plan(seeds=1, items=True)
    before = runs.compute(plan).done
    kind = "base" if "file" in damage else "sum"
    key = next(key for key, cell in plan.cells.items() if cell.kind.name == kind)
    folder = runs.store.folder(kind, key)
    result = folder / "cell.json"
    if damage == "flip":
        result.write_text(result.read_text().replace('"value": 1', '"value": 9', 1))
    elif damage == "cut":
        result.write_bytes(result.read_bytes()[:-40])
    elif damage == "empty":
        result.write_bytes(b"")
    elif damage == "file":
        (folder / "work" / "number.txt").write_text("100000")
    elif damage == "missing file":
        (folder / "work" / "number.txt").unlink()
    else:
        (folder / "items.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DamagedCell):
        runs.store.read(kind, key)
    after = runs.compute(plan)
    assert after.fresh == {key}
    assert any(line.startswith("Damaged cell") and str(folder) in line for line in runs.listener.said)
    assert {k: d.values for k, d in after.done.items()} == {k: d.values for k, d in before.items()}


def test_a_failed_cell_is_reported_and_the_others_go_on(runs):
    gathered = runs.gathered(seeds=2, fails_at=1)
    failures = gathered.failures()
    assert len(failures) == 2
    assert "sum of plus 1 on numbers, seed 0 (plus=1): the loss is nan; use another number" in failures
    assert len(gathered.csv().splitlines()) == 1 + 2 * (3 + 1 + 3)  # of plus 1 only its base's value


def test_a_value_that_is_no_number_fails_its_cell(runs):
    assert [line.split(": ")[1] for line in runs.gathered(seeds=1, nan_at=2).failures()] == [
        "sum 0.0 is nan, a finite number expected; see the settings of this cell"
    ]


def test_a_process_that_dies_fails_its_cell_alone(runs):
    plan = runs.plan(seeds=1, dies_at=0)
    found = runs.compute(plan)
    assert len(found.done) == 3
    (why,) = found.failed.values()
    assert why.startswith("its process ended with 9")


def test_what_needs_a_failed_cell_fails_with_it(runs):
    (runs.folder / "journal.txt").mkdir()  # so that nothing can be noted
    plan = runs.plan(seeds=1)
    found = runs.compute(plan)
    assert len(found.failed) == 4
    assert sorted(set(found.failed.values()))[-1] == "its base cell failed"


def test_a_cell_that_another_process_computes_is_waited_for(runs):
    plan = runs.plan(seeds=1)
    key = next(key for key, cell in plan.cells.items() if cell.kind.name == "base")
    folder = runs.store.folder("base", key)
    folder.mkdir(parents=True)
    held = Lock(folder / "cell.lock")
    threading.Timer(6.0, held.release).start()
    begun = time.monotonic()
    found = runs.compute(plan)
    assert set(found.done) == set(plan.cells)
    assert time.monotonic() - begun > 5  # not before the other let go
    (waiting,) = [line for line in runs.listener.said if line.startswith("Waiting")]
    assert f"process {os.getpid()}" in waiting
    assert "delete cell.lock" in waiting


def test_killed_midway_and_gone_on(runs, tmp_path: Path):
    """A study killed with SIGKILL leaves no worker behind, and what was finished is not computed again."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]
            from pathlib import Path
            if __name__ == "__main__":
                import sums
                runs = sums.Runs(Path({str(tmp_path)!r}))
                runs.compute(runs.plan(seeds=4, seconds=0.7), jobs=2)
            """
        )
    )
    path = os.pathsep.join([str(Path(airtune.__file__).parents[1]), str(TESTS)])
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": path})
    results = tmp_path / "cells" / "sum"
    while len(list(results.glob("*/cell.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    children = [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(tmp_path.glob("cells/*/*/cell.json")))
    for _ in range(100):
        if not any(Path(f"/proc/{child}").exists() for child in children):
            break
        time.sleep(0.1)
    else:
        pytest.fail("a worker outlived its study")
    computed = len(runs.journal)
    plan = runs.plan(seeds=4, seconds=0.7)
    found = runs.compute(plan, jobs=2)
    assert set(found.done) == set(plan.cells)
    assert len(found.fresh) == len(plan.cells) - finished
    assert len(runs.journal) == computed + len(found.fresh)


def test_what_is_to_be_done_is_told_with_measured_seconds(runs):
    runs.compute(runs.plan(seeds=1))
    lines = [json.loads(line) for line in (runs.store.root / "seconds.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    (runs.store.root / "seconds.jsonl").write_text('{"like": ["sum", "numbers", "plus 1"], "seconds": 90.0}\n')
    runs.listener.said.clear()
    runs.compute(runs.plan(seeds=2))
    assert runs.listener.said[:3] == [
        "base: 2 cells, 1 there, 1 to compute (none measured yet).",
        "sum: 6 cells, 3 there, 3 to compute x 90 s measured.",
        "Together on 1 processes: about 6 min left (some kinds not measured yet).",
    ]
