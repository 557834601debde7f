"""`airtune run` as a user starts it: a process, its edge in a process of its own, all that comes out checked."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import airtune as api
from airtune.methods.airllm.building import fit_plan, new_trainee, parts_of, rank_sampler
from airtune.models import Items, score
from airtune.records import Measurements, RunFolder
from airtune.workloads.opening import open_reader
from services.tiny_runs import (
    ALLOCATORS,
    GRADIENTS_BESIDE,
    airtune,
    classify_settings,
    config_of,
    options,
    run_here,
    text_settings,
)

CONTRACT = {
    "allocator",
    "snr_db",
    "bandwidth_hz",
    "deadline_s",
    "total_rank",
    "parameters",
    "bits_before_projection",
    "payload_bits",
    "air_bits",
    "airtime_s",
    "deadline_met",
    "loss",
    "metric",
    "score_trained",
    "score_cloud",
    "score_edge",
    "payload_sha256",
    "max_abs_logit_diff",
    "ranks",
    "loss_calibration",
    "reward",
}


@dataclass(frozen=True)
class Whole:
    """A finished command: its settings, its process, its folder and summary."""

    settings: Mapping[str, str]
    process: CompletedProcess[str]
    folder: Path
    summary: Mapping[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.summary["rows"]


@pytest.fixture(scope="module", params=["classify", "text"])
def whole(request, tmp_path_factory) -> Whole:
    at = tmp_path_factory.mktemp(request.param)
    settings = (classify_settings if request.param == "classify" else text_settings)(at / "in")
    named = {"model": settings["model.name"], "task": settings["task.name"], "data": settings["task.data"]}
    rest = {key: value for key, value in settings.items() if key == "model.window"}
    given = [part for key, value in named.items() for part in (f"--{key}", value)]
    process = airtune("run", "airllm", "--preset", "tiny", *given, *options(rest), "--out", at / "run")
    assert process.returncode == 0, process.stderr
    return Whole(settings, process, at / "run", json.loads((at / "run" / "summary.json").read_bytes()))


def peft_logits(whole: Whole, adapter: Path) -> tuple[np.ndarray, Items]:
    """What a plain PEFT user computes on the test items: class logits, or those behind each window."""
    reader = open_reader(config_of(whole.settings))
    kind = AutoModelForSequenceClassification if reader.base.head else AutoModelForCausalLM
    model = PeftModel.from_pretrained(kind.from_pretrained(whole.settings["model.name"]), adapter).eval()
    test = reader.spread("test", 64)
    with torch.inference_mode():
        found = [model(input_ids=torch.from_numpy(ids)[None]).logits.squeeze(0) for ids in test.ids]
    return np.stack([(logits if reader.base.head else logits[-1]).numpy() for logits in found]), test


def test_the_command_says_what_it_does_and_nothing_on_stderr(whole):
    assert whole.process.stderr == ""
    for words in ("Fine-tuning", "Bandwidth", "Sending adapters", "uniform", "airllm", "report.html"):
        assert words in whole.process.stdout


def test_the_summary_keeps_the_contract(whole):
    assert {"method", "mode", "seed", "model", "task", "wall_s", "versions", "rows"} <= set(whole.summary)
    assert (whole.summary["method"], whole.summary["mode"], whole.summary["seed"]) == ("airllm", "nested", 0)
    assert whole.summary["model"] == whole.settings["model.name"]
    for row in whole.rows:
        assert set(row) >= CONTRACT
    assert [(row["snr_db"], row["allocator"]) for row in whole.rows] == [
        (snr_db, allocator) for snr_db in (-5.0, 15.0) for allocator in ALLOCATORS
    ]
    assert {row["metric"] for row in whole.rows} == {
        {"classify": "accuracy", "text": "perplexity"}[whole.settings["task.name"]]
    }


def test_airtime_is_bits_over_shannons_rate_and_every_row_is_in_time(whole):
    for row in whole.rows:
        rate = row["bandwidth_hz"] * math.log2(1 + 10 ** (row["snr_db"] / 10))
        assert row["airtime_s"] == pytest.approx(row["air_bits"] / rate, rel=1e-12)
        assert row["deadline_met"] is True
        assert row["airtime_s"] <= row["deadline_s"] == 1.0
        assert row["bits_before_projection"] >= row["air_bits"]


def test_the_link_leaves_something_to_decide(whole):
    """At the worst SNR the full adapter does not fit, at the best it does: the bandwidth was chosen for that."""
    uniform = [row for row in whole.rows if row["allocator"] == "uniform"]
    assert [row["bits_before_projection"] > row["air_bits"] for row in uniform] == [True, False]
    assert uniform[1]["ranks"] == [site["cap"] for site in whole.summary["sites"]]


def as_sent(data: bytes) -> bytes:
    """A payload of format 2 that is kept, as docs/payload.md has it on the air: the static part's name in its place."""
    chunks, static = struct.unpack_from("<HI", data, 6)
    words = json.loads(zlib.decompress(data[12 : 12 + static])) | {"meta": {}}
    name = sha256(json.dumps(words, sort_keys=True, separators=(",", ":")).encode()).digest()[:16]
    rows, bodies = 12 + static, 12 + static + 20 * chunks + 16
    header = data[:8] + bytes(4) + name + data[rows : bodies - 16]
    return header + sha256(header).digest()[:16] + data[bodies:]


def test_payload_files_are_what_the_rows_say(whole):
    folder = RunFolder.open(whole.folder)
    for row in whole.rows:
        data = folder.payload_at(row["allocator"], row["snr_db"]).read_bytes()
        sent = as_sent(data)
        assert 8 * len(sent) == row["payload_bits"] < row["air_bits"]
        assert sha256(sent).hexdigest() == row["payload_sha256"]
        info = api.inspect(folder.payload_at(row["allocator"], row["snr_db"]))
        assert [site.rank for site in info.sites] == row["ranks"]
        assert sum(row["ranks"]) == row["total_rank"]
        sizes = [site["in"] + site["out"] + 1 for site in whole.summary["sites"]]
        assert row["parameters"] == sum(rank * size for rank, size in zip(row["ranks"], sizes, strict=True))
    assert folder.payload.read_bytes() == folder.payload_at("airllm", 15).read_bytes()


def test_the_edge_scores_what_the_cloud_scores(whole):
    for row in whole.rows:
        if row["metric"] == "accuracy":
            assert row["score_edge"] == row["score_cloud"]
        assert row["score_edge"] == pytest.approx(row["score_cloud"], rel=1e-3)
        assert row["max_abs_logit_diff"] < 1e-4
        if row["metric"] == "perplexity":
            assert row["score_cloud"] == pytest.approx(math.exp(row["loss"]), rel=1e-9)


def test_the_reward_is_minus_loss_minus_weighted_airtime(whole):
    weight = config_of({}).policy.cost_weight
    for row in whole.rows:
        eta = row["airtime_s"] / row["deadline_s"]
        assert row["reward"] == pytest.approx(-row["loss_calibration"] - weight * eta, rel=1e-12)


def test_the_ledger_books_what_crossed_the_air(whole):
    ledger = RunFolder.open(whole.folder).read_ledger()
    sent = [entry for entry in ledger.rows() if entry["what"] == "adapter"]
    assert [entry["amount"] for entry in sent if entry["quantity"] == "bits"] == [r["air_bits"] for r in whole.rows]
    assert [entry["amount"] for entry in sent if entry["quantity"] == "seconds"] == [r["airtime_s"] for r in whole.rows]
    assert ledger.total("messages") == len(whole.rows)
    lines = (whole.folder / "measurements.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines})
    assert ledger.total("loss_evaluations") == len(lines) + GRADIENTS_BESIDE


def test_the_adapter_folder_is_the_trained_model_in_plain_peft(whole, tmp_path):
    found, test = peft_logits(whole, whole.folder / "adapter")
    config = config_of(whole.settings)
    reader = open_reader(config)
    trainee = new_trainee(config, reader, parts_of(config, reader), Measurements(tmp_path / "none"))
    plan = fit_plan(config, reader.base.hidden_size)
    checkpoint = whole.folder / "checkpoint.safetensors"  # of the last step: nothing is left to train
    trainee.train(plan, rank_sampler(config), orthogonality=0.0, checkpoint=checkpoint)
    trained = trainee.score(trainee.adapter.caps, test)
    assert np.abs(found - trained.logits).max() < 1e-4
    assert np.abs(found - score(new_base(whole), test).logits).max() > 1e-2  # and training changed something
    assert whole.summary["reference"]["unconstrained"]["score"] == pytest.approx(trained.metric, rel=1e-5)


def new_base(whole: Whole) -> torch.nn.Module:
    return open_reader(config_of(whole.settings)).base.model


def test_an_unpacked_payload_is_what_the_edge_scored(whole, tmp_path):
    row = whole.rows[2]
    logits, test = peft_logits(whole, api.unpack(whole.folder / "payloads" / "greedy_-5.atn", tmp_path / "adapter"))
    if test.classes is not None:
        assert float((logits.argmax(1) == test.classes).mean()) == row["score_edge"]
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(test)), test.classes]
        assert float(losses.mean()) == pytest.approx(row["loss"], abs=1e-4)
    else:
        reader = open_reader(config_of(whole.settings))
        model = PeftModel.from_pretrained(reader.base.model, tmp_path / "adapter").eval()
        losses = [float(model(input_ids=ids[None], labels=ids[None]).loss) for ids in map(torch.from_numpy, test.ids)]
        assert float(np.mean(losses)) == pytest.approx(row["loss"], abs=1e-4)


def test_the_folder_is_whole_and_nothing_is_left_over(whole):
    names = {entry.name for entry in whole.folder.iterdir()}
    assert {"config.toml", "metrics.jsonl", "ledger.jsonl", "summary.json", "report.html", "adapter"} <= names
    assert "run.lock" not in names
    assert not [path for path in whole.folder.rglob("*") if path.name.startswith(".") or path.suffix == ".partial"]
    page = (whole.folder / "report.html").read_text(encoding="utf-8")
    assert all(allocator in page for allocator in ALLOCATORS)


def test_an_edge_in_this_process_leads_to_the_same_rows(whole, tmp_path):
    assert run_here(whole.settings, tmp_path / "run")["rows"] == whole.rows
