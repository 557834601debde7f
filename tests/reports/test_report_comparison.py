"""Several seeds on one page: means, ranges and warnings by hand."""

from __future__ import annotations

import pytest

from airtune.errors import RunError
from airtune.reports import compare
from airtune.reports.comparison import spread


def test_mean_and_range_over_seeds(write_run, rows, tmp_path):
    second = [row | {"loss": row["loss"] + 0.1, "air_bits": row["air_bits"] + 20_000} for row in rows]
    out = compare([write_run("a", seed=0), write_run("b", seed=1, rows=second)], tmp_path / "page.html")
    text = out.read_text(encoding="utf-8").replace("\xa0", " ")
    assert out == tmp_path / "page.html"
    assert "seeds 0, 1. Mean over seeds" in text
    assert "Fewer than 5 seeds" in text
    for cell in ("0.5623 (0.5123 to 0.6123)", "190.0 (180.0 to 200.0)", "2/2 LATE", "84.2"):
        assert f">{cell}</td>" in text


def test_other_tasks_are_not_averaged(write_run, tmp_path):
    out = compare([write_run("a", seed=0), write_run("b", seed=1, task="<RTE>")], tmp_path / "pages")
    text = out.read_text(encoding="utf-8")
    assert out == tmp_path / "pages" / "compare.html"
    assert text.count("<table>") == 2
    assert "airllm on &lt;RTE&gt;" in text


def test_other_links_are_not_averaged(write_run, rows, tmp_path):
    wider = [row | {"bandwidth_hz": 1.4e6} for row in rows]
    text = compare([write_run("a", seed=0), write_run("b", seed=1, rows=wider)], tmp_path).read_text(encoding="utf-8")
    assert text.count("<table>") == 2
    assert "1.4\xa0MHz, still channel" in text


def test_a_seed_that_comes_twice_is_told(write_run, tmp_path):
    text = compare([write_run("a"), write_run("b")], tmp_path).read_text(encoding="utf-8")
    assert "Seed 3 stands for more than one run" in text


def test_five_seeds_carry_no_warning(write_run, tmp_path):
    text = compare([write_run(str(seed), seed=seed) for seed in range(5)], tmp_path).read_text(encoding="utf-8")
    assert "Fewer than" not in text


def test_spread_counts_what_is_missing():
    def text(value: float) -> str:
        return f"{value:.1f}"

    assert spread([1.0, 3.0], text) == "2.0 (1.0 to 3.0)"
    assert spread([2.0, 2.0], text) == "2.0"
    assert spread([1.0, None, 3.0], text) == "2.0 (1.0 to 3.0, 1 missing)"
    assert spread([None], text) == "–"


def test_nothing_to_compare_is_refused(tmp_path):
    with pytest.raises(RunError, match="give at least one"):
        compare([], tmp_path)
