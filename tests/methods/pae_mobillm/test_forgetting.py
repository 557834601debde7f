"""What `airtune forget` does: the texts named leave the server's store, under whatever label; all else stays."""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import airtune
from airtune.cli.app import app
from airtune.errors import AirtuneError, ConfigError, DataError, RunError
from airtune.methods.pae_mobillm.building import device_name, server_role
from airtune.methods.pae_mobillm.config import load_config
from airtune.methods.pae_mobillm.device.upload import sample_ids
from airtune.methods.pae_mobillm.forgetting import Forgotten, forget
from airtune.methods.pae_mobillm.method import run
from airtune.records import RunFolder, Silent
from airtune.transport import Loopback, Message
from airtune.workloads.opening import open_reader
from services.tiny_runs import classify_settings, text_settings

SECRET = {"device.secret": "a word", "privacy.rotate_to": "5", "privacy.epsilon": "8"}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return classify_settings(tmp_path / "in")


class Tapped:
    """A transport that keeps what crosses, and ends the process, as it were, before a message of some kind."""

    def __init__(self, inner: Loopback, ends_at: str = "") -> None:
        self._inner, self._ends_at = inner, ends_at
        self.crossed: list[Message] = []

    def request(self, message: Message) -> Message:
        if message.kind == self._ends_at:
            raise KeyboardInterrupt
        self.crossed.append(message)
        return self._inner.request(message)


def started(settings: dict[str, str], out: Path, *, ends_at: str = "", resume: bool = False) -> dict[str, object]:
    """Run, or go on, with both sides in this process; the summary where it came to one."""
    config = load_config("tiny", settings)
    start = RunFolder.resume if resume else RunFolder.create
    with start(out, config.as_dict()) as folder, server_role(config, out) as server:
        try:
            run(config, folder, Tapped(Loopback(server), ends_at), Silent())
        except KeyboardInterrupt:
            return {}
        return folder.read_summary()


@pytest.fixture
def sent(settings, tmp_path) -> Path:
    """A finished run, server's store and all."""
    assert started(settings, tmp_path / "run")
    return tmp_path / "run"


def held(out: Path) -> int:
    """Samples in the store, by SQLite alone."""
    with closing(sqlite3.connect(out / "server" / "cache.db")) as base:
        return base.execute("select count(*) from samples").fetchone()[0]


def forgotten(settings: dict[str, str], out: Path, texts: list[str] | Path | None) -> Forgotten:
    """Ask with both sides in this process."""
    config = load_config("tiny", settings)
    with RunFolder.resume(out, config.as_dict()) as folder, server_role(config, out) as server:
        return forget(config, folder, Loopback(server), texts, Silent())


def trained_on(settings: dict[str, str]) -> list[tuple[str, int]]:
    """Texts that the run drew, with their labels, in order."""
    config = load_config("tiny", settings)
    reader = open_reader(config)
    drawn = {tuple(ids.tolist()) for ids in reader.drawn("train", config.device.train_items, config.seed).ids}
    every = reader.items("train")
    both = zip(reader.task.train, every.ids, strict=True)
    return [(one.text, one.label) for one, ids in both if tuple(ids.tolist()) in drawn]


def texts_of(settings: dict[str, str]) -> list[str]:
    return [text for text, _ in trained_on(settings)]


def test_named_texts_go_and_all_others_stay(settings, sent, tmp_path):
    texts = texts_of(settings)
    assert held(sent) == len(texts) == 96
    some, rows = texts[:3], tmp_path / "gone.csv"
    with open(rows, "w", newline="") as file:
        csv.writer(file).writerows([["id", "sentence"], *enumerate(some)])
    done = CliRunner().invoke(app, ["forget", str(sent), str(rows)])
    assert done.exit_code == 0, done.output
    assert "held 3 samples of these texts" in done.output
    assert held(sent) == 93
    mixed = forgotten(settings, sent, [texts[5], "a text that nobody sent", texts[5]])
    assert (mixed.held, mixed.absent) == (1, ("a text that nobody sent",))
    again = CliRunner().invoke(app, ["forget", str(sent), str(rows)])  # they are gone
    assert again.exit_code == 1
    assert again.output.count("Not there: ") == 3
    assert RunFolder.open(sent).read_metrics("forgotten") == [
        {"held": 3, "absent": 0},
        {"held": 1, "absent": 1},
        {"held": 0, "absent": 3},
    ]


def test_lines_of_a_plain_file_are_texts(settings, sent, tmp_path):
    lines = tmp_path / "gone.txt"
    lines.write_text("\n\n".join(texts_of(settings)[:2]) + "\n")
    assert forgotten(settings, sent, lines).held == 2
    assert held(sent) == 94


def test_all_goes_and_neither_needs_the_data(settings, sent):
    """Deleted data are the usual reason to ask; texts and all alike."""
    texts = texts_of(settings)
    Path(settings["task.data"]).unlink()
    before = RunFolder.open(sent).read_ledger().total("bits", role="device")
    assert forgotten(settings, sent, texts[:4]).held == 4
    assert airtune.forget(sent, everything=True).held == 92
    assert held(sent) == 0
    assert forgotten(settings, sent, None).held == 0
    assert RunFolder.open(sent).read_ledger().total("bits", role="device") > before  # asking is booked, too


def test_what_crosses_tells_no_label(settings, tmp_path):
    """Of ids asked about together, the place of the one that is held must not say under which label it was."""
    settings |= SECRET
    assert started(settings, tmp_path / "run")
    config, chosen = load_config("tiny", settings), trained_on(settings)[:40]
    with RunFolder.resume(tmp_path / "run", config.as_dict()) as folder, server_role(config, folder.path) as server:
        here = set(server._bound.cache.ids().tolist())
        tapped = Tapped(Loopback(server))
        assert forget(config, folder, tapped, [text for text, _ in chosen], Silent()).held == 40
    assert {one.kind for one in tapped.crossed} == {"have", "forget"}
    asked = [np.frombuffer(one.body, "<u8") for one in tapped.crossed]
    assert max(map(len, asked)) == 2 * 8 * 40
    for ids in asked:
        np.testing.assert_array_equal(ids, np.sort(ids))
    guessed = [place // 8 % 2 for place, one in enumerate(asked[1].tolist()) if one in here]
    assert len(guessed) == 40
    true = sum(guess == label for guess, (_, label) in zip(guessed, chosen, strict=True))
    assert 10 <= true <= 30  # by chance 20, five standard deviations are 16


def test_an_upload_asks_in_an_order_that_says_nothing(settings, tmp_path):
    config = load_config("tiny", settings)
    with RunFolder.create(tmp_path / "run", config.as_dict()) as folder, server_role(config, folder.path) as server:
        tapped = Tapped(Loopback(server))
        run(config, folder, tapped, Silent())
    (asked,) = [np.frombuffer(one.body, "<u8") for one in tapped.crossed if one.kind == "have"]
    np.testing.assert_array_equal(asked, np.sort(asked))
    reader = open_reader(config)
    train = reader.drawn("train", config.device.train_items, config.seed)
    assert set(asked.tolist()) == set(sample_ids(device_name(config), train).tolist())


@pytest.mark.parametrize("again", ["false", "true"])
def test_a_resumed_run_does_not_bring_back_what_was_forgotten_meanwhile(settings, tmp_path, again):
    settings |= {"server.again": again}
    out = tmp_path / "run"
    assert not started(settings, out, ends_at="side")
    assert forgotten(settings, out, texts_of(settings)[:20]).held == 20
    summary = started(settings, out, resume=True)
    assert held(out) == 76
    assert {name: summary["sent"][name] for name in ("samples", "held", "forgotten")} == {
        "samples": 0,
        "held": 76,
        "forgotten": 20,
    }
    assert "20 samples were left out, for the server was asked to forget them" in " ".join(summary["notes"])


def test_what_was_forgotten_before_a_run_is_sent_again_on_purpose_even_if_it_is_interrupted(settings, tmp_path):
    first, store = tmp_path / "first", {"server.store": str(tmp_path / "store")}
    assert started(settings | store, first)
    assert forgotten(settings | store, first, texts_of(settings)[:20]).held == 20
    second = tmp_path / "second"
    assert not started(settings | store | {"server.again": "true"}, second, ends_at="samples")
    summary = started(settings | store | {"server.again": "true"}, second, resume=True)
    assert (summary["sent"]["samples"], summary["sent"]["held"]) == (20, 76)


def test_a_run_whose_samples_were_all_forgotten_ends(settings, tmp_path):
    """After training with a report that says so; before it with what to do."""
    trained, untrained = tmp_path / "trained", tmp_path / "untrained"
    assert not started(settings, trained, ends_at="side")
    assert forgotten(settings, trained, None).held == 96
    summary = started(settings, trained, resume=True)
    assert summary["headline"].startswith("0 samples were sent once in ")
    assert "96 samples were left out" in " ".join(summary["notes"])
    assert summary["costs"][0]["up"] == 0
    assert not started(settings, untrained, ends_at="train")
    assert forgotten(settings, untrained, None).held == 96
    with pytest.raises(DataError, match=r"all were forgotten or have expired.*server\.again"):
        started(settings, untrained, resume=True)


def test_running_text_goes_as_a_whole_alone(tmp_path):
    config = load_config("tiny", text_settings(tmp_path / "text"))
    with RunFolder.create(tmp_path / "run", config.as_dict()) as folder, server_role(config, folder.path) as server:
        run(config, folder, Loopback(server), Silent())
        with pytest.raises(ConfigError, match="--all"):
            forget(config, folder, Loopback(server), ["the cat"], Silent())
        assert forget(config, folder, Loopback(server), None, Silent()).held == folder.read_summary()["sent"]["samples"]


def test_what_cannot_be_asked_is_refused(settings, sent, tmp_path):
    both = CliRunner().invoke(app, ["forget", str(sent), "gone.txt", "--all"])
    assert isinstance(both.exception, ConfigError)
    assert "a file and all to forget was given" in str(both.exception)
    assert isinstance(CliRunner().invoke(app, ["forget", str(sent)]).exception, ConfigError)
    (tmp_path / "texts.json").write_text("[]")
    for asked, kind, line in (
        ({"file": tmp_path / "nowhere.txt"}, DataError, r"no file .*nowhere\.txt"),
        ({"file": tmp_path / "texts.json"}, DataError, r"ends in \.json; give one of"),
        ({"texts": "gone.txt"}, ConfigError, "one string; give a list"),
        ({"texts": []}, ConfigError, "no texts were given"),
        ({"everything": True, "method": "airllm"}, ConfigError, "airllm leaves no samples"),
    ):
        with pytest.raises(kind, match=line):
            airtune.forget(sent, **asked)
    assert held(sent) == 96


def test_a_server_that_holds_nothing_of_the_run_is_not_taken_for_one_that_forgot(settings, sent, tmp_path):
    """A new store, another run's store, and a run that never reached its server."""
    config = load_config("tiny", settings)
    other = load_config("tiny", settings | {"device.layers": "1"})
    with server_role(other, tmp_path / "other") as server, RunFolder.resume(sent, config.as_dict()) as folder:
        with pytest.raises(AirtuneError, match="its store is new"):
            forget(config, folder, Loopback(server), None, Silent())
        assert server._bound is None  # nor is it taken by being asked
        with RunFolder.create(tmp_path / "third", other.as_dict()) as third:
            run(other, third, Loopback(server), Silent())
        with pytest.raises(AirtuneError, match=r"is for identity [0-9a-f]{12}, the server holds [0-9a-f]{12}"):
            forget(config, folder, Loopback(server), None, Silent())
    with (
        RunFolder.create(tmp_path / "fourth", config.as_dict()) as fourth,
        pytest.raises(RunError, match="nothing was sent"),
    ):
        forget(config, fourth, Loopback(server), None, Silent())
    (sent / "sent.json").write_text('{"identity": {}, "labels": -1, "requests": 0}')
    with pytest.raises(RunError, match=r"sent\.json is not what a run writes"):
        airtune.forget(sent, everything=True)
