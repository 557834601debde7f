"""From a folder to values: what is read, and what is refused in one line."""

from __future__ import annotations

import math

import pytest

from airtune.errors import RunError
from airtune.reports import read_run


def test_rows_are_ordered_by_snr_then_as_listed(write_run):
    run = read_run(write_run())
    assert [(row.snr_db, row.allocator) for row in run.rows] == [
        (0, "airllm"), (0, "random"), (10, "airllm"), (10, "random"),
    ]  # fmt: skip
    assert (run.allocators, run.snrs_db) == (("airllm", "random"), (0.0, 10.0))
    assert run.rows[1].late
    assert run.rows[0].ranks == (0, 1, 2, 4)
    assert run.references["head_only"].loss == 0.55


def test_missing_and_diverged_values_stay_apart(write_run, rows):
    del rows[0]["loss"]
    rows[1]["loss"] = math.nan
    run = read_run(write_run(rows=rows))
    assert run.rows[2].loss is None
    assert math.isnan(run.rows[3].loss)


def test_only_the_summary_must_be_there(write_run):
    folder = write_run()
    for name in ("config.toml", "metrics.jsonl", "ledger.jsonl"):
        (folder / name).unlink()
    run = read_run(folder)
    assert (run.config, run.metrics, run.ledger) == ("", (), ())


def test_model_and_fading_may_be_tables(write_run):
    run = read_run(write_run(model={"name": "opt", "layers": 24}, link={"fading": {"name": "rician", "k_factor": 4.0}}))
    assert (run.model, run.fading, run.still) == ("opt, layers 24", "rician, k_factor 4.0", False)


def test_a_folder_without_summary_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"holds no summary\.json"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("summary.json", '{"rows": [', r"summary\.json is not valid JSON"),
        ("summary.json", "[]", "holds a list; expected an object"),
        ("summary.json", '{"rows": []}', "holds no rows"),
        ("summary.json", '{"rows": {}, "sites": 3}', "sites is a int; expected a list"),
        ("summary.json", '{"rows": [{"allocator": "a"}]}', r"rows\[0\] names no allocator or snr_db"),
        (
            "summary.json",
            '{"rows": [{"allocator": "a", "snr_db": "x"}]}',
            r"rows\[0\]\.snr_db is 'x'; expected a number",
        ),
        ("summary.json", '{"rows": [{"allocator": "a", "snr_db": 1, "metric": "bleu"}]}', "metric bleu; expected all"),
        ("summary.json", "[" * 200_000, "not valid JSON"),
        ("metrics.jsonl", '{"name": "train"}\n{"name"', r"metrics\.jsonl line 2 is not valid JSON"),
        ("ledger.jsonl", "7\n", r"ledger\.jsonl line 1 holds a int"),
    ],
)
def test_malformed_files_are_refused_in_one_line(write_run, file, text, message):
    folder = write_run()
    (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=message) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(write_run):
    folder = write_run()
    (folder / "summary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="expected UTF-8"):
        read_run(folder)


def test_ranks_must_match_the_sites(write_run, rows):
    rows[2]["ranks"] = [1, 2]
    with pytest.raises(RunError, match=r"rows\[2\]\.ranks holds 2 ranks; expected 4"):
        read_run(write_run(rows=rows))
