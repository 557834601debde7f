"""A run on disk: made once, read as written, resumed only under the same settings, written by one process."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from airtune.errors import RunError
from airtune.ledger import Ledger
from airtune.records import RunFolder, versions_in_force
from airtune.records.lock import Lock


class Mode(Enum):
    NESTED = "nested"


@dataclass(frozen=True)
class Refiner:
    sample_steps: int = 50


_CONFIG = {
    "seed": 0,
    "mode": Mode.NESTED,
    "model": Path("models/minilm"),
    "snrs_db": (-5.0, np.float32(0.5)),
    "limit": None,
    "no_deadline": math.inf,
    "refiner": Refiner(),
    "task": {"name": "sst2", "size": None, "head": {"lr": 1e-3, "frozen": False}},
}
_RECORDED = {
    "seed": 0,
    "mode": "nested",
    "model": "models/minilm",
    "snrs_db": [-5.0, 0.5],
    "no_deadline": math.inf,
    "refiner": {"sample_steps": 50},
    "task": {"name": "sst2", "head": {"lr": 1e-3, "frozen": False}},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "first"


def test_the_config_is_recorded_with_the_versions(path: Path):
    with RunFolder.create(path, _CONFIG):
        pass
    assert tomllib.loads((path / "config.toml").read_text()) == {**_RECORDED, "versions": versions_in_force()}
    run = RunFolder.open(path)
    assert run.config == _RECORDED
    assert run.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert run.versions["numpy"] == np.__version__


def test_a_folder_with_something_in_it_is_refused_untouched(path: Path):
    path.mkdir(parents=True)
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"holds 1 entries \(thesis.tex ...\).*choose another --out, or --resume"):
        RunFolder.create(path, {})
    assert [entry.name for entry in path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_taken(path: Path):
    path.mkdir(parents=True)
    with RunFolder.create(path, {}):
        assert (path / "config.toml").is_file()


def test_a_file_in_the_way_is_named(path: Path):
    path.parent.mkdir()
    path.write_text("")
    with pytest.raises(RunError, match="cannot make the run folder"):
        RunFolder.create(path, {})


@pytest.mark.parametrize("config", [{"f": print}, {"x": [1, None]}, {"x": {1: 2}}, {"versions": {}}])
def test_a_setting_that_cannot_be_recorded_is_refused_before_anything_is_made(path: Path, config: dict):
    with pytest.raises(RunError):
        RunFolder.create(path, config)
    assert not path.exists()


def test_a_folder_without_config_is_no_run(path: Path):
    with pytest.raises(RunError, match="no run folder"):
        RunFolder.open(path)
    path.mkdir(parents=True)
    with pytest.raises(RunError, match="no run folder"):
        RunFolder.resume(path, {})
    (path / "config.toml").write_text("= broken")
    with pytest.raises(RunError, match="cannot be read as TOML"):
        RunFolder.open(path)


def test_metrics_are_kept_by_name_and_never_hold_nan(path: Path):
    with RunFolder.create(path, {}) as run:
        run.metric("loss", step=1, value=np.float32(0.5), ranks=np.array([1, 2]))
        run.metric("reward", step=1, value=math.nan, parts={"eta": [-math.inf, 1.0]})
        run.metric("loss", step=2, value=math.inf, name="other")
        assert run.read_metrics("loss") == [
            {"step": 1, "value": 0.5, "ranks": [1, 2]},
            {"step": 2, "value": None, "name": "other"},
        ]
        assert run.read_metrics("reward") == [{"step": 1, "value": None, "parts": {"eta": [None, 1.0]}}]
        assert run.read_metrics("absent") == []
        with pytest.raises(RunError, match="called metric"):
            run.metric("loss", metric=1)
    assert "NaN" not in (path / "metrics.jsonl").read_text()


def test_a_torn_last_metric_is_skipped_and_a_damaged_one_is_named(path: Path):
    with RunFolder.create(path, {}) as run:
        run.metric("loss", value=1)
        with open(path / "metrics.jsonl", "a") as file:
            file.write('{"metric": "loss", "val')
        assert run.read_metrics("loss") == [{"value": 1}]
        run.metric("loss", value=2)
        assert run.read_metrics("loss") == [{"value": 1}, {"value": 2}]
        for damaged in ("[]", "{"):
            (path / "metrics.jsonl").write_text(f'{{"metric": "loss"}}\n{damaged}\n')
            with pytest.raises(RunError, match=r"metrics.jsonl line 2 .*delete that line"):
                run.read_metrics("loss")


def test_the_ledger_comes_back(path: Path):
    ledger = Ledger()
    ledger.book("bits", 800, role="cloud", round=2, what="adapter")
    ledger.book("seconds", 0.1, role="cloud", what="adapter")
    with RunFolder.create(path, {}) as run:
        assert len(run.read_ledger()) == 0
        run.write_ledger(ledger)
        run.write_ledger(ledger)
    assert list(RunFolder.open(path).read_ledger().rows()) == list(ledger.rows())
    (path / "ledger.jsonl").write_text('{"bits": 3}\n')
    with pytest.raises(RunError, match="no cost"):
        RunFolder.open(path).read_ledger()


def test_the_summary_says_that_the_run_has_finished(path: Path):
    with RunFolder.create(path, {}) as run:
        assert not run.finished
        with pytest.raises(RunError, match=r"has not finished; go on with it by --resume"):
            run.read_summary()
        run.write_summary({"seed": 0, "rows": ({"loss": math.nan, "text": "ä"},)})
        assert run.finished
    assert RunFolder.open(path).read_summary() == {"seed": 0, "rows": [{"loss": None, "text": "ä"}]}
    for damaged in ("{", "[]"):
        (path / "summary.json").write_text(damaged)
        with pytest.raises(RunError, match="repeat the run"):
            RunFolder.open(path).read_summary()


def test_paths_are_the_contract_s(path: Path):
    run = RunFolder(path, None)
    assert run.figures == path / "figures"
    assert run.adapter == path / "adapter"
    assert run.payload == path / "payload.atn"
    assert run.report == path / "report.html"
    assert run.payload_at("uniform", -5.0) == path / "payloads" / "uniform_-5.atn"
    assert run.payload_at("airllm", 2.5) == path / "payloads" / "airllm_2.5.atn"


def test_an_opened_or_closed_run_is_not_written(path: Path):
    with RunFolder.create(path, {}) as run:
        pass
    for reader in (run, RunFolder.open(path)):
        with pytest.raises(RunError, match=r"metrics.jsonl is not written; use RunFolder.resume"):
            reader.metric("loss", value=1)
        with pytest.raises(RunError, match=r"summary.json is not written"):
            reader.write_summary({})


def test_resume_goes_on_where_the_run_stopped(path: Path):
    with RunFolder.create(path, _CONFIG) as run:
        run.metric("loss", value=1)
    (path / ".summary.json.123-4.partial").write_text("half")
    with RunFolder.resume(path, _CONFIG) as run:
        run.metric("loss", value=2)
        assert run.read_metrics("loss") == [{"value": 1}, {"value": 2}]
        assert run.read_metrics("versions") == []
    assert sorted(entry.name for entry in path.iterdir()) == ["config.toml", "metrics.jsonl"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": 1}, "other settings: seed was 0, is 1;"),
        ({"limit": 5}, "limit was not set, is 5;"),
        ({"no_deadline": None}, "no_deadline was inf, is not set;"),
        ({"task": {"name": "sst2", "head": {"lr": 1e-3, "frozen": 0}}}, "task.head.frozen was False, is 0;"),
        ({"snrs_db": (0.5, -5.0)}, r"snrs_db was \[-5.0, 0.5\], is \[0.5, -5.0\];"),
        (
            {"a": 1, "b": 1, "c": 1, "seed": 3, "mode": "paper"},
            "a was not set, is 1, b .* c was not set, is 1 and 2 more;",
        ),
    ],
)
def test_resume_under_other_settings_is_refused_and_names_them(path: Path, change: dict, line: str):
    with RunFolder.create(path, _CONFIG):
        pass
    with pytest.raises(RunError, match=line):
        RunFolder.resume(path, {**_CONFIG, **change})


def test_the_same_settings_in_another_spelling_are_the_same(path: Path):
    with RunFolder.create(path, {"deadline_s": 1.0, "x": math.nan, "y": (1, 2)}):
        pass
    with RunFolder.resume(path, {"y": [1, 2.0], "x": math.nan, "deadline_s": 1, "z": None}) as run:
        assert run.config["deadline_s"] == 1.0


def test_software_that_changed_is_recorded_on_resume(path: Path, monkeypatch: pytest.MonkeyPatch):
    with RunFolder.create(path, {}):
        pass
    monkeypatch.setattr("airtune.records.run_folder.versions_in_force", lambda: {"python": "4.0"})
    with RunFolder.resume(path, {}) as run:
        assert run.read_metrics("versions") == [{"python": "4.0"}]


def test_two_writers_at_once_are_refused(path: Path, elsewhere):
    source = """
import sys
from pathlib import Path
from airtune.records import RunFolder
RunFolder.resume(Path(sys.argv[1]), {})
"""
    with RunFolder.create(path, {}):
        with pytest.raises(RunError, match=f"is being written by process {os.getpid()} on"):
            RunFolder.resume(path, {})
        assert f"BusyError: {path} is being written by process {os.getpid()}" in elsewhere(source, path).stderr
        RunFolder.open(path)
    assert elsewhere(source, path).returncode == 0


def test_the_lock_of_a_killed_process_is_taken_over(path: Path):
    source = """
import sys
from pathlib import Path
from airtune.records import RunFolder
run = RunFolder.create(Path(sys.argv[1]), {})
run.metric("loss", value=1)
print("ready", flush=True)
sys.stdin.read()
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    command = [sys.executable, "-c", source, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        with pytest.raises(RunError, match=f"written by process {writer.pid} "):
            RunFolder.resume(path, {})
        writer.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet reaped: a zombie writes nothing
        with RunFolder.resume(path, {}) as run:
            assert run.read_metrics("loss") == [{"value": 1}]
            assert json.loads((path / "run.lock").read_text())["pid"] == os.getpid()


def test_a_lock_whose_process_number_is_in_use_again_is_taken_over(tmp_path: Path):
    path = tmp_path / "run.lock"
    first = Lock(path)
    owner = json.loads(path.read_text())
    path.write_text(json.dumps({**owner, "started": "1"}))
    second = Lock(path)
    assert json.loads(path.read_text()) == owner
    second.release()
    first.release()
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": -1}'])
def test_a_lock_that_was_never_finished_is_taken_over(tmp_path: Path, content: str):
    (tmp_path / "run.lock").write_text(content)
    Lock(tmp_path / "run.lock").release()
    assert not (tmp_path / "run.lock").exists()


def test_a_lock_of_another_machine_is_respected(tmp_path: Path):
    path = tmp_path / "run.lock"
    path.write_text(json.dumps({"host": "another-machine", "pid": 2**22 + 1, "started": None}))
    with pytest.raises(RunError, match=r"on another-machine; .*delete run.lock"):
        Lock(path)
    assert path.exists()


def test_of_many_processes_that_find_a_stale_lock_one_gets_it(tmp_path: Path):
    path = tmp_path / "run.lock"
    path.write_text("")
    source = """
import sys
from pathlib import Path
from airtune.errors import RunError
from airtune.records.lock import Lock
sys.stdin.readline()
try:
    Lock(Path(sys.argv[1]))
    print("got", flush=True)
except RunError:
    print("refused", flush=True)
sys.stdin.read()
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", source, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(4)
    ]
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    answers = [taker.stdout.readline().strip() for taker in takers if taker.stdout is not None]
    for taker in takers:
        taker.communicate()
    assert sorted(answers) == ["got", "refused", "refused", "refused"]
