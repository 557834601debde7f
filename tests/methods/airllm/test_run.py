"""The method from start to end in one process: seeds, interruptions, fading, and what is refused before training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.stats import binom

from airtune.errors import AirtuneError, ConfigError, DeadlineError, LinkError, ModelError, RunError
from airtune.ledger import Ledger
from airtune.links import Link, Rayleigh
from airtune.methods.airllm import trainee
from airtune.methods.airllm.building import edge_role
from airtune.records import RunFolder
from airtune.transport import Loopback
from services.tiny_runs import (
    ALLOCATORS,
    GRADIENTS_BESIDE,
    classify_settings,
    config_of,
    outcome,
    run_here,
    text_settings,
    write_prose,
)
from tiny_models import save_tiny_model


class Killed(BaseException):
    """Stands for the end of the process: nothing in airtune catches it."""


class KillsAt:
    """A progress that ends the process after so many units of one stage."""

    def __init__(self, stage: str, after: int) -> None:
        self._name, self._left = stage, after

    def say(self, line: str) -> None:
        """Not heard."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[KillsAt]:
        self._counting = name == self._name
        yield self

    def advance(self, by: int = 1, note: str = "") -> None:
        if self._counting:
            self._left -= by
            if self._left <= 0:
                raise Killed


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, str]:
    return classify_settings(tmp_path_factory.mktemp("in") / "classify")


@pytest.fixture(scope="module")
def unbroken(settings, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    run_here(settings | LONGER, out)
    return out


LONGER = {"adapter.steps": "60"}


def summary_of(folder: Path) -> dict[str, Any]:
    return RunFolder.open(folder).read_summary()


def evaluations(folder: Path) -> float:
    ledger: Ledger = RunFolder.open(folder).read_ledger()
    return ledger.total("loss_evaluations")


def measured(folder: Path) -> list[str]:
    return [json.loads(line)["key"] for line in (folder / "measurements.jsonl").read_text().splitlines()]


def test_the_same_seed_gives_the_same_summary_and_another_seed_another(settings, unbroken, tmp_path):
    again = run_here(settings | LONGER, tmp_path / "again")
    assert outcome(again) == outcome(summary_of(unbroken))
    other = run_here(settings | LONGER | {"seed": "1"}, tmp_path / "other")
    assert [row["loss"] for row in other["rows"]] != [row["loss"] for row in again["rows"]]
    random = [[row["ranks"] for row in found["rows"] if row["allocator"] == "random"] for found in (again, other)]
    assert random[0] != random[1]


@pytest.mark.parametrize(
    ("stage", "after"),
    [
        ("Fine-tuning the nested adapter", 40),
        ("Scoring the references", 1),
        ("Measuring losses of allocations", 4),
        ("Sending adapters and scoring", 3),
    ],
)
def test_a_resumed_run_ends_as_an_unbroken_one_and_repeats_nothing(
    settings, unbroken, tmp_path, monkeypatch, stage, after
):
    monkeypatch.setattr(trainee, "CHECKPOINT_EVERY", 25)
    with pytest.raises(Killed):
        run_here(settings | LONGER, tmp_path / "run", progress=KillsAt(stage, after))
    assert not (tmp_path / "run" / "summary.json").exists()
    found = run_here(settings | LONGER, tmp_path / "run", resume=True)
    assert outcome(found) == outcome(summary_of(unbroken))
    assert len(set(measured(tmp_path / "run"))) == len(measured(tmp_path / "run"))
    assert set(measured(tmp_path / "run")) == set(measured(unbroken))
    assert evaluations(tmp_path / "run") == evaluations(unbroken) == len(measured(unbroken)) + GRADIENTS_BESIDE


def test_a_resumed_run_takes_no_step_twice(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(trainee, "CHECKPOINT_EVERY", 25)
    with pytest.raises(Killed):
        run_here(settings | LONGER, tmp_path / "run", progress=KillsAt("Fine-tuning the nested adapter", 40))
    taken: list[int] = []

    class Listens(KillsAt):
        def advance(self, by: int = 1, note: str = "") -> None:
            if self._counting:
                taken.append(by)

    listening = Listens("Fine-tuning the nested adapter", 0)
    run_here(settings | LONGER, tmp_path / "run", progress=listening, resume=True)
    assert taken[0] == 25  # at the checkpoint; then the 35 steps that were left
    assert sum(taken) == 60


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00" * 200)


def another_shape(path: Path) -> None:
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith(".q"))
    save_file(tensors | {name: np.zeros((2, 2), np.float32)}, path, {"steps_done": "25"})


def no_count(path: Path) -> None:
    save_file(load_file(path), path)


def a_tensor_less(path: Path) -> None:
    tensors = load_file(path)
    del tensors[next(iter(sorted(tensors)))]
    save_file(tensors, path, {"steps_done": "25"})


def a_moment_less(path: Path) -> None:
    tensors = load_file(path)
    del tensors[next(name for name in tensors if "exp_avg_sq" in name)]
    save_file(tensors, path, {"steps_done": "25"})


@pytest.mark.parametrize("spoil", [cut_off, garbage, another_shape, no_count, a_tensor_less, a_moment_less])
def test_a_spoilt_checkpoint_is_one_clear_line(settings, tmp_path, monkeypatch, spoil):
    monkeypatch.setattr(trainee, "CHECKPOINT_EVERY", 25)
    with pytest.raises(Killed):
        run_here(settings | LONGER, tmp_path / "run", progress=KillsAt("Fine-tuning the nested adapter", 40))
    spoil(tmp_path / "run" / "checkpoint.safetensors")
    with pytest.raises(RunError, match=r"checkpoint\.safetensors cannot be read .*; remove it") as caught:
        run_here(settings | LONGER, tmp_path / "run", resume=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_resume_under_other_settings_is_refused(settings, tmp_path):
    with pytest.raises(Killed):
        run_here(settings, tmp_path / "run", progress=KillsAt("Scoring the references", 1))
    with pytest.raises(RunError, match=r"started with other settings: adapter\.max_rank was 4, is 8"):
        run_here(settings | {"adapter.max_rank": "8"}, tmp_path / "run", resume=True)
    with pytest.raises(RunError, match=r"an empty or new folder expected; choose another --out, or --resume"):
        run_here(settings, tmp_path / "run")


# Fading


FADING = {"link.fading": "rayleigh", "link.snrs_db": "0,10", "link.bandwidth_hz": "60e3"}


def late_counts(rows: list[dict[str, Any]], snr_db: float) -> dict[str, int]:
    at = [row for row in rows if row["snr_db"] == snr_db]
    assert {row["blocks"] for row in at} == {200}
    return {row["allocator"]: row["blocks_late"] for row in at}


def test_under_fading_as_many_blocks_are_late_as_were_allowed(settings, tmp_path):
    rows = run_here(settings | FADING | {"link.late_share": "0.2"}, tmp_path / "run")["rows"]
    most = binom.ppf(1 - 1e-6, 200, 0.2)
    for snr_db in (0.0, 10.0):
        assert max(late_counts(rows, snr_db).values()) <= most
    for row in rows:  # uniform and greedy spend the same bits in every block: their own outage is known exactly
        if row["allocator"] in ("uniform", "greedy"):
            rate = row["air_bits"] / row["deadline_s"]
            outage = 1 - np.exp(-(2 ** (rate / row["bandwidth_hz"]) - 1) / 10 ** (row["snr_db"] / 10))
            least, most = binom.ppf([1e-6, 1 - 1e-6], 200, outage)
            assert least <= row["blocks_late"] <= most
    budget = int(Link(60e3, 0.0, Rayleigh()).outage_rate_bps(0.2))
    assert all(row["air_bits"] <= budget for row in rows if row["snr_db"] == 0.0)


def test_trusting_the_last_block_is_late_far_more_often(settings, tmp_path):
    narrow = {"link.late_share": "0", "link.snrs_db": "0", "link.bandwidth_hz": "12e3"}
    late = late_counts(run_here(settings | FADING | narrow, tmp_path / "run")["rows"], 0.0)
    assert set(late) == set(ALLOCATORS)
    assert min(late.values()) > binom.ppf(1 - 1e-6, 200, 0.15)  # not the few that a share allows


def test_on_a_still_channel_no_blocks_are_counted(unbroken):
    assert all(row["blocks"] is row["blocks_late"] is None for row in summary_of(unbroken)["rows"])


def test_the_chosen_bandwidth_holds_under_fading_too(settings, tmp_path):
    """At the bandwidth chosen for the worst SNR, rank 0 fits in all but the share of blocks that may be late."""
    summary = run_here(settings | {"link.fading": "rayleigh"}, tmp_path / "run")
    assert "all but 5 % of blocks" in summary["link"]["bandwidth_reason"]
    assert all(row["total_rank"] > 0 for row in summary["rows"] if row["allocator"] == "uniform")


# What is refused before anything is trained


def refused(settings: Mapping[str, str], out: Path, expected: type[AirtuneError]) -> str:
    with pytest.raises(expected) as caught:
        run_here(settings, out)
    line = str(caught.value)
    assert "\n" not in line
    assert {entry.name for entry in out.iterdir()} <= {"config.toml"}
    return line


def test_links_that_carry_nothing_in_time_are_refused_before_training(settings, tmp_path):
    line = refused(settings | {"link.bandwidth_hz": "1e5", "link.deadline_s": "1e-6"}, tmp_path / "a", DeadlineError)
    assert "head and container alone need" in line
    line = refused(settings | {"link.deadline_s": "1e-9"}, tmp_path / "b", DeadlineError)
    assert "to arrive in 1e-09 s, which no link has" in line
    fades = {"link.bandwidth_hz": "1e5", "link.fading": "rayleigh", "link.late_share": "1e-6"}
    refused(settings | fades, tmp_path / "c", DeadlineError)
    line = refused(settings | {"link.fading": "trace", "link.trace": "nowhere.csv"}, tmp_path / "d", LinkError)
    assert "nowhere.csv" in line


def test_items_longer_than_the_model_takes_are_refused(settings, tmp_path):
    line = refused(settings | {"model.max_length": "513"}, tmp_path / "a", ConfigError)
    assert "model.max_length is 513" in line
    assert "512" in line
    windows = text_settings(tmp_path / "text") | {"model.window": "4000"}
    windows["task.data"] = str(write_prose(tmp_path / "long.txt", 60_000))
    assert "model.window is 4000" in refused(windows, tmp_path / "b", ConfigError)


@pytest.mark.parametrize("device", ["toaster", "cuda:99"])
def test_a_device_that_is_not_there_is_one_clear_line(settings, tmp_path, device):
    line = refused(settings | {"model.device": device}, tmp_path / "run", ModelError)
    assert line.startswith(f"device '{device}' cannot be used (")


def test_training_that_diverges_is_one_clear_line(settings, tmp_path):
    with pytest.raises(ModelError, match=r"training loss is nan at step 1 .* lower the learning rate"):
        run_here(settings | {"adapter.learning_rate": "1e30"}, tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "checkpoint.safetensors").exists()
    with pytest.raises(ConfigError, match=r"PPO diverged: .* lower policy\.ppo_learning_rate"):
        run_here(settings | {"policy.ppo_learning_rate": "1e30"}, tmp_path / "policy")
    assert not (tmp_path / "policy" / "summary.json").exists()


@pytest.mark.parametrize("changed", [{"task.test_items": "10"}, {"model.max_length": "5"}])
def test_an_edge_with_another_test_set_is_refused_before_training(settings, tmp_path, changed):
    edge = Loopback(edge_role(config_of(settings | changed)))
    with pytest.raises(ModelError, match=r"the edge's test set is .*, the cloud's .*; start both with the same"):
        run_here(settings, tmp_path / "run", edge=edge)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_an_edge_with_another_model_is_refused_before_training(settings, tmp_path):
    other = settings | {"model.name": str(save_tiny_model(tmp_path / "other", "bert", kind="classify", seed=1))}
    with pytest.raises(ModelError, match=r"the edge's base model is .*, the cloud's .*; start both with the same"):
        run_here(settings, tmp_path / "run", edge=Loopback(edge_role(config_of(other))))
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_copy_of_model_and_data_elsewhere_is_the_same_edge(settings, tmp_path):
    copy = classify_settings(tmp_path / "copy") | {"seed": "5"}  # which draws other things, not the test set
    assert copy["task.data"] != settings["task.data"]
    assert run_here(settings, tmp_path / "run", edge=Loopback(edge_role(config_of(copy))))["rows"]
