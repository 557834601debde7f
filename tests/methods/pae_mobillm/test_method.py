"""The method from start to end: bytes by hand, interruptions, another backbone, a report; two processes, sockets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import airtune
from airtune.cli.app import app
from airtune.errors import ConfigError, DeadlineError, ModelError, TransportError
from airtune.ledger import Ledger
from airtune.methods.pae_mobillm.building import new_device, open_uplink, samples_of, server_role
from airtune.methods.pae_mobillm.config import load_config
from airtune.methods.pae_mobillm.costs import costs
from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.pivots import read_pivots
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.method import run
from airtune.methods.pae_mobillm.privacy.gaussian import SENSITIVITY, gaussian_sigma
from airtune.records import RunFolder, Silent
from airtune.reports import result_tables, write_report
from airtune.services import PeerProcess
from airtune.transport import Loopback, Message
from airtune.workloads.opening import open_reader
from services.tiny_runs import ENVIRONMENT, classify_settings, options, text_settings
from tiny_models import save_tiny_model

TIME = ("wall_s", "stage_s")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return classify_settings(tmp_path_factory.mktemp("pae") / "classify")


class BreaksAt:
    """A transport that ends the process, as it were, before the n-th message of a kind."""

    def __init__(self, inner: Loopback, kind: str, after: int) -> None:
        self._inner, self._kind, self._left = inner, kind, after

    def request(self, message: Message) -> Message:
        if message.kind == self._kind:
            if not self._left:
                raise KeyboardInterrupt
            self._left -= 1
        return self._inner.request(message)


def run_here(settings: Mapping[str, object], out: Path, *, breaks: tuple[str, int] | None = None, resume: bool = False):
    """Both sides in this process; the server's store is in the run folder."""
    config = load_config("tiny", settings)
    start = RunFolder.resume if resume else RunFolder.create
    with start(out, config.as_dict()) as folder, server_role(config, out) as server:
        air = Loopback(server)
        run(config, folder, air if breaks is None else BreaksAt(air, *breaks), Silent())
        return folder.read_summary()


def outcome(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the clock said, what was sent when, and costs that an interruption adds to."""
    left_out = (*TIME, "sent", "uplink", "headline", "tables")
    return {key: value for key, value in summary.items() if key not in left_out}


@pytest.fixture(scope="module")
def unbroken(settings, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    return out, run_here(settings, out)


def test_bytes_are_those_of_the_formula_and_no_epoch_uploads_any(unbroken):
    """A BERT of 2 layers of 16 numbers: 8 bytes of id, 2 x 16 x 2 of hidden states, 2 x 4 of differences."""
    summary = unbroken[1]
    sent = summary["sent"]
    assert sent["body_bytes"] == 96 * (8 + 2 * 16 * 2 + 2 * 4)
    assert (sent["samples"], sent["held"], sent["messages"], sent["repeats"]) == (96, 0, 3, 0)
    assert summary["costs"][0]["up"] == sent["body_bytes"]
    ledger = RunFolder.open(unbroken[0]).read_ledger()
    kinds = {row["what"] for row in ledger.rows() if row["role"] == "device" and row["quantity"] == "bits"}
    assert kinds == {"open", "have", "samples", "train", "side"}
    uploads = [row for row in ledger.rows() if row["quantity"] == "messages" and row["what"] == "samples"]
    assert len(uploads) == 3  # two epochs follow
    assert summary["uplink"]["air_bits"] == ledger.total("bits", role="device")
    sides = sum(row["amount"] for row in ledger.rows() if row["quantity"] == "bits" and row["role"] == "server")
    assert sides == summary["downlink_bits"] == 8 * summary["costs"][0]["down"]


@pytest.mark.parametrize(("bits", "token"), [(16, 16 * 2), (8, 16 + 4)])
def test_costs_of_the_other_ways_by_hand(bits: int, token: int):
    """10 samples of 7 tokens, 3 epochs, 2 blocks of 16 numbers, 2 classes; a side network of 500 bytes."""
    identity = Identity("a", "b", "c", 16, (1, 2), (16, 16), 2)
    ways = costs(identity, 10, 10, 70, 3, 500, blocks=2, text=False, bits=bits)
    assert [(one.up, one.down) for one in ways] == [
        (10 * (8 + 2 * 16 * 2 + 2 * 4), 500),
        (3 * (70 * 2 * token + 10 * 4), 500),
        (3 * (70 * 16 * 2 + 10 * 4), 3 * 70 * 16 * 2),
        (70 * 4 + 10 * 4, 500),
    ]


@pytest.mark.parametrize(("kind", "after"), [("samples", 2), ("train", 1), ("side", 0)])
def test_an_interrupted_run_sends_the_rest_and_ends_alike(settings, unbroken, tmp_path: Path, kind: str, after: int):
    with pytest.raises(KeyboardInterrupt):
        run_here(settings, tmp_path / "run", breaks=(kind, after))
    found = run_here(settings, tmp_path / "run", resume=True)
    assert outcome(found) == outcome(unbroken[1])
    epochs = RunFolder.open(tmp_path / "run").read_metrics("train")
    assert [one["epoch"] for one in epochs] == [1, 2]
    assert found["headline"].startswith("96 samples were sent once, 80 bytes each, in ")
    assert found["sent"]["held"] == (64 if kind == "samples" else 96)
    assert found["sent"]["samples"] + found["sent"]["held"] == 96


def test_the_same_seed_gives_the_same_and_another_another(settings, unbroken, tmp_path: Path):
    assert outcome(run_here(settings, tmp_path / "again")) == outcome(unbroken[1])
    other = run_here(settings | {"seed": "1"}, tmp_path / "other")
    assert other["losses"] != unbroken[1]["losses"]


def test_a_backbone_of_other_weights_is_refused_with_both_hashes(settings, unbroken, tmp_path: Path):
    model = save_tiny_model(tmp_path / "bert", "bert", kind="classify", seed=7)
    store = {"server.store": str(unbroken[0] / "server")}
    with pytest.raises(ModelError, match=r"device's backbone is [0-9a-f]{12}, the server's [0-9a-f]{12}; .*new store"):
        run_here(settings | store | {"model.name": str(model)}, tmp_path / "run")
    with pytest.raises(ModelError, match=r"device's template is [0-9a-f]{12}, the server's [0-9a-f]{12}"):
        run_here(settings | store | {"model.max_length": "12"}, tmp_path / "shorter")


def test_a_full_cache_is_told_and_training_goes_on_with_what_is_cached(settings, tmp_path: Path):
    summary = run_here(settings | {"server.disk_mb": "0.025"}, tmp_path / "run")
    kept = summary["sent"]["samples"]
    assert 0 < kept < 96
    assert summary["sent"]["refused"] == 96 - kept
    assert summary["last_epoch"]["rows"] == kept
    assert f"{96 - kept} samples were not kept, for the server has no room for more" in " ".join(summary["notes"])
    assert len(summary["losses"]) == 2
    each = 8 + 2 * 16 * 2 + 2 * 4
    assert (summary["costs"][0]["up"], summary["sent"]["body_bytes"]) == (kept * each, kept * each)
    assert f"{kept} samples were sent once, {each} bytes each," in summary["headline"]


def test_a_greedy_choice_that_just_fits_arrives_in_time(settings, tmp_path: Path):
    """The deadline is for opening, asking and samples; the budget leaves room for all three."""
    roomy = run_here(settings | {"device.layers": "greedy"}, tmp_path / "roomy")
    assert roomy["uplink"]["upload_s"] < roomy["uplink"]["airtime_s"]  # training was asked for afterwards
    first = roomy["uplink"]["upload_s"]
    for share in (1.01, 0.9, 0.8):
        tight = settings | {"device.layers": "greedy", "link.deadline_s": str(share * first)}
        try:
            uplink = run_here(tight, tmp_path / f"{share}")["uplink"]
        except DeadlineError:
            assert share < 1  # not even one layer at 8 bits fits
            break
        assert uplink["deadline_met"], (share, uplink)
        assert uplink["upload_s"] <= share * first


WORD = {"device.secret": "a word"}


@pytest.mark.parametrize(
    ("first", "then", "named"),
    [
        (WORD, WORD | {"privacy.epsilon": "1"}, "epsilon"),
        (WORD | {"privacy.epsilon": "1"}, WORD | {"privacy.epsilon": "2"}, "epsilon"),
        (WORD | {"privacy.rotate_to": "5"}, {"privacy.rotate_to": "5", "device.secret": "another"}, "secret"),
        (WORD, WORD | {"device.target_scale": "40"}, "target_scale"),
        (WORD | {"privacy.epsilon": "1"}, WORD | {"privacy.epsilon": "1", "privacy.delta": "1e-3"}, "delta"),
        (
            WORD | {"privacy.epsilon": "1"},
            WORD | {"privacy.epsilon": "1", "privacy.clip_differences": "0.5"},
            "clip_differences",
        ),
    ],
)
def test_samples_shaped_in_another_way_are_refused_by_name(settings, tmp_path: Path, first, then, named):
    """One store, two ways to send: the server would train on both as one, and a report say what half of them are."""
    short = {"device.train_items": "8", "side.epochs": "1", "server.store": str(tmp_path / "store")}

    def opens(changed: dict[str, str]) -> None:
        config = load_config("tiny", settings | short | changed)
        reader = open_reader(config)
        with server_role(config, tmp_path) as server:
            items, link = samples_of(config, reader), open_uplink(config)
            device = new_device(config, reader.base, items, link, Loopback(server), Ledger(), Silent()).device
            device.open(asdict(config.side), config.seed)
            device.upload(items)

    opens(first)
    opens(first)
    with pytest.raises(ModelError, match=f"the device's {named} is [0-9a-f]{{12}}, the server's [0-9a-f]{{12}};"):
        opens(then)
    kept = b"".join(file.read_bytes() for file in (tmp_path / "store").iterdir())
    assert b"a word" not in kept


@pytest.mark.parametrize(
    "changed",
    [
        {"privacy.rotate_to": "5"},
        {"privacy.epsilon": "50", "device.secret": "a word"},
        {"device.layers": "uniform", "device.layer_count": "1", "device.bits": "8"},
        {"device.layers": "1"},
        {"device.layers": "1:8,2"},
        {"device.layers": "greedy"},
        {"device.space": "probability"},
    ],
    ids=["rotation", "noise", "one layer", "the first layer", "bits by layer", "greedy", "probability"],
)
def test_every_way_to_send_runs_to_its_report(settings, tmp_path: Path, changed: dict[str, str]):
    summary = run_here(settings | changed, tmp_path / "run")
    assert len(summary["losses"]) == 2
    if changed.get("device.layers") == "1:8,2":  # id, 16 numbers and a scale, 16 at 16 bits, 2 of the difference
        assert summary["sent"]["body_bytes"] == 96 * (8 + (16 + 4) + 16 * 2 + 2 * 4)
    assert {"backbone alone", "PAE MobiLLM", "a head alone, on the device"} == set(summary["scores"])
    leaks = {one["measure"]: one["value"] for one in summary["leaks"]}
    if "privacy.rotate_to" not in changed and "privacy.epsilon" not in changed:
        assert leaks["label: largest difference"] == 1.0
    page = write_report(tmp_path / "run").read_text()
    assert summary["headline"] in page
    assert "What the server can read off it" in page
    assert [table.row_count for table in result_tables(tmp_path / "run")] == [len(t["rows"]) for t in summary["tables"]]


def test_two_epsilons_under_one_secret_share_no_noise(settings, tmp_path: Path):
    """r1 = v + s1 z and r2 = v + s2 z would tell v = (s2 r1 - s1 r2) / (s2 - s1) exactly."""
    sent = []
    for epsilon in (2.0, 8.0):
        config = load_config("tiny", settings | {"privacy.epsilon": epsilon, "device.secret": "a word"})
        reader = open_reader(config)
        items = samples_of(config, reader)
        air, nobody = open_uplink(config), Loopback(server_role(config, tmp_path))
        device = new_device(config, reader.base, items, air, nobody, Ledger(), Silent()).device
        rows, ids = np.arange(len(items)), np.arange(len(items), dtype=np.uint64)
        sent.append((gaussian_sigma(epsilon, 1e-5, SENSITIVITY), device.samples(items, rows, ids).differences))
    (first, one), (second, other) = sent
    read = read_pivots(reader.base, items, rows, [2])
    plain = prediction_differences(read.logits, read.targets, space="logit", scale=4.0)
    plain *= np.minimum(1, np.median(norms := np.linalg.norm(plain, axis=1)) / norms)[:, None]
    taken_off = (second * one - first * other) / (second - first)
    assert np.abs(taken_off - plain).mean() > np.abs(plain).mean()


def test_a_defence_without_a_secret_says_so(settings, tmp_path: Path):
    named = run_here(settings | {"privacy.rotate_to": "5", "device.secret": "a long word"}, tmp_path / "named")
    blank = run_here(settings | {"privacy.rotate_to": "5"}, tmp_path / "blank")
    assert "which the server is told" in blank["notes"][0]
    assert not any("device.secret" in note for note in named["notes"])
    page = write_report(tmp_path / "named").read_text()
    assert "secret = (not shown)" in page
    assert "a long word" not in page


def test_a_decoder_s_pivot_tokens_are_attacked_where_they_are_not_public(settings, tmp_path: Path):
    """A tokenizer that ends every text with the same token makes that the pivot; Llama's ends with the text."""
    model = save_tiny_model(tmp_path / "llama", "llama", kind="classify")
    measures = []
    for name, ending in (("same", {}), ("own", {"post_processor": None})):
        tokenizer = json.loads((model / "tokenizer.json").read_text())
        (model / "tokenizer.json").write_text(json.dumps(tokenizer | ending))
        summary = run_here(settings | {"model.name": str(model)}, tmp_path / name)
        measures.append([one["layer"] for one in summary["leaks"] if one["measure"] == "token: nearest is the pivot"])
    assert measures == [[], [1, 2]]


def test_samples_that_come_after_the_epochs_are_told(settings, tmp_path: Path):
    store = {"server.store": str(tmp_path / "store")}
    assert not any("last epoch" in note for note in run_here(settings | store, tmp_path / "first")["notes"])
    more = run_here(settings | store | {"device.train_items": "120"}, tmp_path / "more")
    assert "The last epoch had 96 of these 120 pivots" in " ".join(more["notes"])


def test_too_few_samples_to_attack_are_no_failed_run(settings, tmp_path: Path):
    summary = run_here(settings | {"device.train_items": "1"}, tmp_path / "run")
    assert (summary["leaks"], len(summary["losses"])) == ([], 2)
    assert "could not be attacked: 1 samples cannot make" in summary["notes"][0]


def test_running_text_sends_every_position(tmp_path: Path):
    summary = run_here(text_settings(tmp_path / "in") | {"device.train_items": "20"}, tmp_path / "run")
    rows, outputs = 20 * 15, summary["identity"]["outputs"]
    assert summary["sent"]["body_bytes"] == 20 * (8 + 4) + rows * (2 * 16 * 2 + 4 * outputs)
    assert summary["metric"] == "perplexity"
    assert np.isfinite(summary["scores"]["PAE MobiLLM"]["score"])


@pytest.mark.parametrize("rotation", [0, 64])
def test_running_text_is_read_off_its_differences(tmp_path: Path, rotation: int):
    """s onehot - z from the model's own logits: the share of largest entries that are the next token; + z, all are."""
    changed = text_settings(tmp_path / "in") | {"device.train_items": "20", "privacy.rotate_to": rotation}
    leak, *exact = run_here(changed, tmp_path / "run")["leaks"]
    config = load_config("tiny", changed)
    reader = open_reader(config)
    ids = torch.from_numpy(np.stack(samples_of(config, reader).ids))
    with torch.inference_mode():
        logits = reader.base.model(ids).logits[:, :-1].numpy()
    tokens = ids[:, 1:].numpy()
    largest = (4 * np.eye(logits.shape[2])[tokens] - logits).argmax(axis=2)
    assert leak["chance"] == np.bincount(tokens.ravel()).max() / tokens.size
    assert (leak["measure"], leak["count"]) == ("next token: largest difference", tokens.size)
    if rotation:
        assert (leak["value"] < 0.2, exact) == (True, [])
    else:
        assert leak["value"] == (largest == tokens).mean() > 0.5
        assert [(one["measure"], one["value"]) for one in exact] == [("next token: difference + prediction", 1.0)]
    assert "next token: largest difference" in write_report(tmp_path / "run").read_text()


def test_what_cannot_be_run_is_refused_in_one_line(settings, tmp_path: Path):
    for changed, line in (
        ({"link.bandwidth_hz": "0"}, r"link\.bandwidth_hz is 0.*give the uplink's bandwidth"),
        ({"link.snrs_db": "0,5"}, r"link\.snrs_db is \(0\.0, 5\.0\); give the one SNR"),
        ({"device.bits": "4"}, r"device\.bits is 4; choose 8, 16 or 32"),
        ({"device.layers": "0,1"}, r"device\.layers is '0,1'; choose all, uniform, greedy or a list"),
        ({"device.layers": "1:4"}, r"device\.layers is '1:4'; choose all, .* with 8, 16 or 32 bits of their own"),
        ({"privacy.rotate_to": "1"}, r"privacy\.rotate_to is 1"),
        (text_settings(tmp_path / "in") | {"device.space": "probability"}, r"device\.space is probability"),
    ):
        with pytest.raises(ConfigError, match=line):
            run_here(settings | changed, tmp_path / "run")
        assert not (tmp_path / "run" / "summary.json").exists()
        for left in (tmp_path / "run").glob("*"):
            left.unlink() if left.is_file() else None
    said = CliRunner().invoke(app, ["cloud", "airllm"])
    assert "airllm runs in the cloud itself" in str(said.exception)
    said = CliRunner().invoke(app, ["edge", "--method", "pae_mobillm"])
    assert "give --cloud URL" in str(said.exception)
    said = CliRunner().invoke(app, ["edge", "airllm", "--resume"])
    assert "airllm serves on the device and has nothing to go on with" in str(said.exception)
    said = CliRunner().invoke(app, ["edge"])
    assert "the method is not given; name it once" in str(said.exception)


def test_a_run_without_a_server_leaves_its_folder_free(settings, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("airtune.methods.pae_mobillm.device.asking.PAUSE_S", 0.0)
    nobody = {"server.url": "http://127.0.0.1:9"}
    with pytest.raises(TransportError, match=r"no connection to http://127\.0\.0\.1:9 .*; start the role there"):
        airtune.run("pae_mobillm", preset="tiny", overrides=settings | nobody, out=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_two_processes_over_a_socket_say_what_one_process_says(settings, unbroken, tmp_path: Path):
    config = load_config("tiny", settings)
    with (
        RunFolder.create(tmp_path / "run", config.as_dict()) as folder,
        PeerProcess("pae_mobillm", folder.path, tmp_path / "cloud.log") as cloud,
    ):
        summary = run(config, folder, cloud, Silent())
    assert outcome(summary) == outcome(unbroken[1])
    assert (tmp_path / "run" / "server" / "cache.db").exists()


@contextmanager
def cloud_by_hand(store: Path) -> Iterator[str]:
    """The address of an `airtune cloud` in a process of its own."""
    command = [sys.executable, "-m", "airtune", "cloud", "--method", "pae_mobillm", "--preset", "tiny", "--port", "0"]
    with subprocess.Popen(
        [*command, "--store", str(store), "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    ) as cloud:
        yield re.fullmatch(r"cloud ready at (http://\S+)", cloud.stdout.readline().strip())[1]
        cloud.stdin.close()


def test_cloud_and_device_are_started_by_hand(settings, tmp_path: Path):
    with cloud_by_hand(tmp_path / "store") as url:
        device = [sys.executable, "-m", "airtune", "edge", "pae_mobillm", "--preset", "tiny", "--cloud", url]
        done = subprocess.run(
            [*device, "--out", str(tmp_path / "run"), *options(settings)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=True,
        )
    assert "PAE MobiLLM" in done.stdout
    assert (tmp_path / "run" / "report.html").exists()
    assert not (tmp_path / "run" / "server").exists()
    assert (tmp_path / "store" / "server" / "cache.db").exists()


@pytest.mark.parametrize("layers", ["all", "greedy"])
def test_a_device_of_its_own_never_takes_a_gradient(settings, tmp_path: Path, monkeypatch, layers: str):
    """Every way into autograd is shut in the device's process; the head that is trained to compare then fails."""

    def shut(*_: object, **__: object) -> None:
        raise AssertionError("a gradient was taken")

    for name in ("backward", "grad"):
        monkeypatch.setattr(torch.autograd, name, shut)
    monkeypatch.setattr(torch.Tensor, "backward", shut)
    with cloud_by_hand(tmp_path / "store") as url:
        device = [
            "edge",
            "pae_mobillm",
            "--preset",
            "tiny",
            "--cloud",
            url,
            *options(settings | {"device.layers": layers}),
        ]
        done = CliRunner().invoke(app, [*device, "--out", str(tmp_path / "run")])
        assert done.exit_code == 0, done.exception
        asked = CliRunner().invoke(app, [*device, "--out", str(tmp_path / "asked"), "--set", "report.probe=true"])
    assert str(asked.exception) == "a gradient was taken"
    summary = RunFolder.open(tmp_path / "run").read_summary()
    assert set(summary["scores"]) == {"backbone alone", "PAE MobiLLM"}
    assert summary["leaks"] == []
    assert any("report.attacks is off" in note for note in summary["notes"])
