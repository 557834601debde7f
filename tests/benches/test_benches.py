"""Ratios, rivals in turn, and the commands around them. No test here judges a time."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest
from typer.testing import CliRunner

from airtune.benches import BENCHES, Measured, Ratio, run_bench
from airtune.benches.catalog import Bench
from airtune.benches.timing import interleaved
from airtune.cli.app import app
from airtune.errors import ConfigError
from airtune.records import Silent


@pytest.mark.parametrize(
    ("measured", "asked", "at_least", "holds"),
    [
        (2.0, 2.0, True, True),
        (1.99, 2.0, True, False),
        (0.1, 0.1, False, True),
        (0.11, 0.1, False, False),
        (float("nan"), 0.1, False, False),
        (float("nan"), 2.0, True, False),
    ],
)
def test_a_ratio_holds_only_where_it_reaches_what_was_asked(measured, asked, at_least, holds):
    assert Ratio("r", measured, asked, at_least).holds is holds


def test_rivals_take_turns_and_the_warm_up_is_not_counted():
    ticks, order = count(), []
    rivals = {"a": lambda: order.append("a"), "b": lambda: (order.append("b"), next(ticks))}
    found = interleaved(rivals, 3, clock=lambda: float(next(ticks)))
    assert order == ["a", "b"] * 4
    assert found == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_an_unknown_bench_and_no_repeat_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="choose one of codec, decision, env"):
        run_bench("nosuch", out=tmp_path, repeats=1, progress=Silent())
    with pytest.raises(ConfigError, match="at least 1"):
        run_bench("decision", out=tmp_path, repeats=0, progress=Silent())


def test_a_file_in_place_of_the_folder_is_refused_before_anything_is_measured(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Bench, "measure", lambda self, repeats, progress: pytest.fail("it was measured"))
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"--out is .*, no folder can be there"):
            run_bench("decision", out=out, repeats=1, progress=Silent())


@pytest.mark.parametrize(("measured", "code"), [(3.0, 0), (1.5, 1)])
def test_the_command_prints_asked_beside_measured_and_ends_by_them(tmp_path: Path, monkeypatch, measured, code):
    found = Measured([{"rival": "ours", "ms": 12.5}], [Ratio("ours against theirs", measured, 2.0)])
    monkeypatch.setattr(Bench, "measure", lambda self, repeats, progress: found)
    result = CliRunner().invoke(app, ["bench", "decision", "--out", str(tmp_path)])
    assert result.exit_code == code
    assert "12.5" in result.output
    assert "at least 2" in result.output
    written = json.loads((tmp_path / "decision.json").read_text())
    assert written["ratios"] == [
        {"name": "ours against theirs", "measured": measured, "asked": "at least 2", "holds": code == 0}
    ]
    assert written["repeats"] == BENCHES["decision"].repeats
    assert "torch_threads" in written["machine"]
