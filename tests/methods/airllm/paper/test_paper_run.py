"""Whole runs of `paper` mode in this process: every variant and rival, a kill at any episode, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import airtune
from airtune.codec import decode, inspect
from airtune.errors import ConfigError, ModelError, RunError
from airtune.ledger import Ledger
from airtune.methods.airllm.config import load_config
from airtune.methods.airllm.fine_tuning import fine_tune
from airtune.methods.airllm.paper import training
from airtune.methods.airllm.session import Session
from airtune.records import RunFolder, Silent
from airtune.reports import write_report
from services.tiny_runs import airtune as command
from services.tiny_runs import classify_settings, config_of, options, outcome, run_here, text_settings

PAPER = {
    "mode": "paper",
    "adapter.steps": "24",
    "policy.updates": "2",
    "policy.train_steps": "20",
    "policy.sample_steps": "3",
}
"""Six episodes of four steps, evaluated after each."""
VARIANTS = [
    ("airllm", {}),
    ("airllm", {"policy.objective": "critic", "paper.rounding": "round", "paper.min_rank": "0"}),
    ("airllm-discrete", {"policy.prior": "discrete"}),
    ("airllm-ddpm", {"policy.refiner": "ddpm"}),
    ("airllm-unet", {"policy.backbone": "unet"}),
    ("ddim", {"policy.prior": "none"}),
    ("ppo", {"policy.refiner": "none"}),
    ("random", {"paper.method": "random"}),
    ("uniform", {"paper.method": "uniform"}),
    ("adalora", {"paper.method": "adalora"}),
]


class Killed(BaseException):
    """Stands for the end of the process."""


class KillsAfter:
    """A progress that ends the process after so many training steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def say(self, line: str) -> None:
        """Not heard."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[KillsAfter]:
        self._counting = name == "Training adapter and policy"
        yield self

    def advance(self, by: int = 1, note: str = "") -> None:
        self._left -= by * self._counting
        if self._counting and self._left <= 0:
            raise Killed


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, str]:
    return classify_settings(tmp_path_factory.mktemp("in") / "classify") | PAPER


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_variant_and_rival_runs_and_resumes_to_the_same_rows(settings, tmp_path, monkeypatch, name, variant):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 8)
    chosen = settings | variant
    whole = run_here(chosen, tmp_path / "whole")
    with pytest.raises(Killed):
        run_here(chosen, tmp_path / "broken", progress=KillsAfter(16))  # after 16 steps, before their checkpoint
    torch.manual_seed(7)  # another process stands elsewhere in the global stream
    assert outcome(run_here(chosen, tmp_path / "broken", resume=True)) == outcome(whole)
    steps = [line["env_steps"] for line in RunFolder.open(tmp_path / "broken").read_metrics("episode")]
    assert steps == [4, 8, 12, 16, 12, 16, 20, 24]
    assert [row["allocator"] for row in whole["rows"]] == [name, name]
    assert whole["paper"]["method"] == name
    assert [found["step"] for found in whole["paper"]["evaluations"]] == [4, 8, 12, 16, 20, 24]


def test_another_seed_chooses_other_ranks(settings, tmp_path):
    found = [run_here(settings | {"seed": seed}, tmp_path / seed)["rows"] for seed in ("0", "1")]
    assert [row["ranks"] for row in found[0]] != [row["ranks"] for row in found[1]]


@pytest.fixture(scope="module")
def text_run(tmp_path_factory) -> Path:
    at = tmp_path_factory.mktemp("text")
    run_here(text_settings(at / "in") | PAPER | {"link.snrs_db": "-5,0,15", "note": "Said on purpose."}, at / "run")
    write_report(at / "run")
    return at / "run"


def test_payloads_are_32_bit_prefixes_of_the_one_adapter_late_or_not(text_run):
    summary = RunFolder.open(text_run).read_summary()
    held = decode((text_run / "payload.atn").read_bytes(), None)
    for row in summary["rows"]:
        data = RunFolder.open(text_run).payload_at("airllm", row["snr_db"]).read_bytes()
        sent = decode(data, None)
        assert {site.bits for site in inspect(data).sites} == {32}
        assert sent.ranks == tuple(row["ranks"])
        assert min(row["ranks"]) >= 1
        for path, site in sent.factors.items():  # the same directions, first to last
            common = min(site.rank, held.factors[path].rank)
            assert (site.p[:, :common] == held.factors[path].p[:, :common]).all()
        assert row["bits_before_projection"] == row["air_bits"]  # nothing was cut
        assert row["deadline_met"] == (row["airtime_s"] <= row["deadline_s"])
        assert row["score_trained"] == pytest.approx(row["score_edge"], rel=1e-5)  # 32 bits lose nothing
    assert summary["rows"][0]["deadline_met"] is False


def test_page_and_notes_say_what_it_was(text_run):
    summary = RunFolder.open(text_run).read_summary()
    assert summary["mode"] == "paper"
    assert summary["paper"]["steps"] == summary["paper"]["steps_asked"] == 24
    assert summary["notes"][0] == "Said on purpose."
    page = (text_run / "report.html").read_text(encoding="utf-8")
    for words in (
        "illustration of Algorithm 1: 24 of the paper&#x27;s 15,000 steps",
        "trained all 24 steps",
        "training steps",
        "The deadline is soft",
        "LATE",
    ):
        assert words.replace("&#x27;", "'") in page.replace("&#x27;", "'").replace("&#39;", "'"), words
    assert "true by construction" not in page
    assert {"episode_reward.png", "dev_loss.png"} <= {path.name for path in (text_run / "figures").iterdir()}


def test_an_early_stop_is_told(settings, tmp_path):
    """lambda 8: any reward above -8 is enough, and eta is made next to nothing by the bandwidth."""
    stops = {"paper.patience": "1", "policy.cost_weight": "8", "link.bandwidth_hz": "1e9", "paper.method": "uniform"}
    quick = settings | stops | {"adapter.steps": "400", "adapter.learning_rate": "1e-9"}
    summary = run_here(quick, tmp_path / "run")
    assert summary["paper"]["steps"] == 8  # the second evaluation brought nothing
    assert "uniform stopped early, at step 8 of 400." in summary["notes"]


# What is refused


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"policy.objective": "improved"},
            "policy.objective is 'improved'; mode is 'paper', where trying ranks trains",
        ),
        ({"policy.trained": "runs/a"}, "policy.trained is 'runs/a'; mode is 'paper': it trains its policy"),
        ({"paper.min_rank": "5"}, "paper.min_rank is 5; choose at most 4 (adapter.max_rank)"),
        ({"adapter.steps": "25"}, "adapter.steps is 25; choose a multiple of 4 (paper.horizon)"),
        ({"paper.horizon": "1"}, "paper.horizon is 1; choose 2 to 1e+06"),
        ({"policy.sample_steps": "21"}, "policy.sample_steps is 21; choose 1 to 20 (policy.train_steps)"),
    ],
)
def test_settings_that_contradict_the_mode_are_one_line(changed, line):
    with pytest.raises(ConfigError) as caught:
        load_config("tiny", PAPER | changed)
    assert str(caught.value).startswith(line)


def test_nested_training_is_not_asked_for_by_accident(settings, tmp_path):
    config = config_of(settings)
    with RunFolder.create(tmp_path / "run", config.as_dict()) as folder:
        session = Session(config, folder, Silent(), Ledger())
        with pytest.raises(ConfigError, match=r"^mode is 'paper'; this trains a nested adapter, as every study does"):
            fine_tune(session, None, None)


def test_the_papers_reading_fills_in_what_is_not_given():
    config = load_config("tiny", PAPER)
    assert (config.codec.bits, config.policy.objective) == (32, "advantage")
    given = load_config("tiny", PAPER | {"codec.bits": "8", "policy.objective": "critic"})
    assert (given.codec.bits, given.policy.objective) == (8, "critic")
    assert load_config("tiny", {}).codec.name == "coded"
    assert load_config("default", {"mode": "paper"}).adapter.steps == 15_000
    assert load_config("default", {}).adapter.steps == 800


def test_a_network_that_diverges_is_one_line_and_the_run_is_resumable(settings, tmp_path):
    with pytest.raises(
        (ModelError, ConfigError), match=r"^episode 0 \(steps 0 to \d\): .*no checkpoint was written yet$"
    ):
        run_here(settings | {"adapter.learning_rate": "1e30"}, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_spoilt_checkpoint_is_one_clear_line(settings, tmp_path):
    with pytest.raises(Killed):
        run_here(settings, tmp_path / "run", progress=KillsAfter(24))
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"\x00" * 200)
    with pytest.raises(RunError, match=r"checkpoint\.safetensors cannot be read .*; remove it"):
        run_here(settings, tmp_path / "run", resume=True)


# As a user starts it


def test_the_command_line_runs_it_with_an_edge_in_its_own_process(settings, tmp_path):
    done = command("run", "airllm", "--preset", "tiny", *options(settings), "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for words in ("Training adapter and policy", "illustration of Algorithm 1", "airllm", "NO, LATE", "report.html"):
        assert words in done.stdout
    assert done.stdout.index("illustration of") < done.stdout.index("Training adapter")  # before hours go by
    assert run_here(settings, tmp_path / "here")["rows"] == RunFolder.open(tmp_path / "run").read_summary()["rows"]
    planned = airtune.plan(preset="tiny", overrides=settings, known=[tmp_path / "run"])
    caps = RunFolder.open(tmp_path / "run").read_summary()["sites"]
    assert planned.full_rank == sum(site["cap"] for site in caps)
