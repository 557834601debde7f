"""What `airtune forget` does: the texts named leave the server's store, under whatever label; all else stays."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

import airtune
from airtune.cli.app import app
from airtune.errors import ConfigError, DataError
from airtune.methods.pae_mobillm.building import server_role
from airtune.methods.pae_mobillm.config import load_config
from airtune.methods.pae_mobillm.forgetting import forget
from airtune.methods.pae_mobillm.method import run
from airtune.records import RunFolder, Silent
from airtune.transport import Loopback
from airtune.workloads.opening import open_reader
from services.tiny_runs import classify_settings, text_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return classify_settings(tmp_path_factory.mktemp("forget") / "classify")


@pytest.fixture
def sent(settings, tmp_path) -> Path:
    """A finished run, server's store and all."""
    config = load_config("tiny", settings)
    with RunFolder.create(tmp_path / "run", config.as_dict()) as folder, server_role(config, folder.path) as server:
        run(config, folder, Loopback(server), Silent())
    return tmp_path / "run"


def held(out: Path) -> int:
    """Samples in the store, by SQLite alone."""
    with sqlite3.connect(out / "server" / "cache.db") as base:
        return base.execute("select count(*) from samples").fetchone()[0]


def trained_on(settings: dict[str, str]) -> list[str]:
    """Texts that the run drew, in order."""
    config = load_config("tiny", settings)
    reader = open_reader(config)
    drawn = {tuple(ids.tolist()) for ids in reader.drawn("train", config.device.train_items, config.seed).ids}
    every = reader.items("train")
    return [one.text for one, ids in zip(reader.task.train, every.ids, strict=True) if tuple(ids.tolist()) in drawn]


def test_named_texts_go_and_all_others_stay(settings, sent, tmp_path):
    texts = trained_on(settings)
    assert held(sent) == len(texts) == 96
    some, rows = texts[:3], tmp_path / "gone.csv"
    with open(rows, "w", newline="") as file:
        csv.writer(file).writerows([["id", "sentence"], *enumerate(some)])
    done = CliRunner().invoke(app, ["forget", str(sent), str(rows)])
    assert done.exit_code == 0, done.output
    assert "held 3 such samples" in done.output
    assert held(sent) == 93
    assert airtune.forget(sent, some) == 0  # they are gone
    assert airtune.forget(sent, [texts[5], "a text that nobody sent"]) == 1
    assert RunFolder.open(sent).read_metrics("forgotten") == [
        {"texts": 3, "held": 3},
        {"texts": 3, "held": 0},
        {"texts": 2, "held": 1},
    ]


def test_lines_of_a_plain_file_are_texts(settings, sent, tmp_path):
    lines = tmp_path / "gone.txt"
    lines.write_text("\n\n".join(trained_on(settings)[:2]) + "\n")
    assert airtune.forget(sent, lines) == 2
    assert held(sent) == 94


def test_all_of_a_run_goes(sent):
    before = RunFolder.open(sent).read_ledger().total("bits", role="device")
    assert airtune.forget(sent, None) == 96
    assert held(sent) == 0
    assert RunFolder.open(sent).read_ledger().total("bits", role="device") > before  # asking is booked, too


def test_running_text_goes_as_a_whole_alone(tmp_path):
    config = load_config("tiny", text_settings(tmp_path / "text"))
    with RunFolder.create(tmp_path / "run", config.as_dict()) as folder, server_role(config, folder.path) as server:
        run(config, folder, Loopback(server), Silent())
        with pytest.raises(ConfigError, match="--all"):
            forget(config, folder, Loopback(server), ["the cat"], Silent())
        assert forget(config, folder, Loopback(server), None, Silent()) == folder.read_summary()["sent"]["samples"]


def test_what_cannot_be_asked_is_refused(sent, tmp_path):
    both = CliRunner().invoke(app, ["forget", str(sent), "gone.txt", "--all"])
    assert isinstance(both.exception, ConfigError)
    assert "both a file and --all" in str(both.exception)
    assert isinstance(CliRunner().invoke(app, ["forget", str(sent)]).exception, ConfigError)
    with pytest.raises(DataError, match=r"no file .*nowhere\.txt"):
        airtune.forget(sent, tmp_path / "nowhere.txt")
    with pytest.raises(ConfigError, match="airllm leaves no samples"):
        airtune.forget(sent, None, method="airllm")
