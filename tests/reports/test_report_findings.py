"""What the sentences claim, against rows where the right answer is plain."""

from __future__ import annotations

import math

import pytest

from airtune.reports import read_run, units
from airtune.reports.findings import best_rows, headline, remarks, smallest_sufficient, sufficient


def plain(text: str) -> str:
    return text.replace(units.NO_BREAK, " ")


def test_the_headline_names_the_smallest_row_within_one_point(write_run):
    assert plain(headline(read_run(write_run()))) == (
        "312.0 kbit on air are enough: airllm at 10 dB scores 87.1 % at the edge, within 1.0 point of the "
        "unconstrained adapter's 88.0 %, in 500 ms of the 1 s deadline."
    )


def test_a_late_row_proves_nothing(write_run, rows):
    rows[3]["score_edge"] = 0.9  # smaller and better than the row above, but late
    run = read_run(write_run(rows=rows))
    assert smallest_sufficient(run)["random"] is None
    assert plain(headline(run)).startswith("312.0 kbit")
    assert "1 of 4 rows is LATE" in remarks(run)


def test_the_headline_says_so_if_no_row_is_good_enough(write_run, references):
    run = read_run(write_run(reference=references | {"unconstrained": {"score": 0.95}}))
    assert plain(headline(run)).startswith(
        "No row that arrived in time is within 1.0 point of the unconstrained adapter (95.0 %). "
        "The closest: airllm at 10 dB"
    )


def test_the_headline_makes_no_claim_without_a_reference(write_run):
    run = read_run(write_run(reference={}))
    assert "no unconstrained adapter to compare with" in headline(run)
    assert "airllm at 10" in headline(run)


def test_the_headline_makes_no_claim_if_all_rows_are_late(write_run, rows):
    run = read_run(write_run(rows=[row | {"deadline_met": False} for row in rows]))
    assert headline(run).startswith("No row has both a score and an adapter that arrived in time")


def test_a_head_as_good_as_the_adapter_is_told(write_run, references):
    run = read_run(write_run(reference=references | {"head_only": {"score": 0.875, "loss": 0.4}}))
    assert "cannot rank allocators" in plain(headline(run))
    assert not any(name in headline(run) for name in run.allocators)
    assert "cannot rank" not in headline(read_run(write_run("other")))


@pytest.mark.parametrize(
    ("score", "reference", "metric", "expected"),
    [
        (0.87, 0.88, "accuracy", True),  # exactly one point
        (0.8699, 0.88, "accuracy", False),
        (0.9, 0.88, "accuracy", True),
        (20 * math.exp(0.0099), 20.0, "perplexity", True),
        (20 * math.exp(0.0101), 20.0, "perplexity", False),
        (18.0, 20.0, "perplexity", True),
        (math.nan, 0.88, "accuracy", False),
        (None, 0.88, "accuracy", False),
    ],
)
def test_margins(score, reference, metric, expected):
    assert sufficient(score, reference, metric) is expected


def test_the_best_row_has_the_lowest_loss_of_those_in_time(write_run):
    run = read_run(write_run())  # at 0 dB random's loss is lower, but it is late
    assert {(row.snr_db, row.allocator) for row in best_rows(run)} == {(0.0, "airllm"), (10.0, "airllm")}


@pytest.mark.parametrize(
    ("values", "name", "first"),
    [([312_040.0, 2e6], "kbit", "312.0"), ([1_243_000.0, 2e6], "Mbit", "1.24"), ([812.0, 9.0], "bit", "812")],
)
def test_a_column_of_bits_has_one_unit(values, name, first):
    unit = units.bit_unit(values)
    assert (unit.name, unit.number(values[0])) == (name, first)


def test_times_are_told_in_a_fitting_unit():
    assert [plain(text) for text in (units.seconds(1.03), units.seconds(0.6552), units.seconds(2e-5))] == [
        "1.03 s", "655.2 ms", "20 µs",
    ]  # fmt: skip
    assert [plain(units.duration(value)) for value in (3.0, 3599.6, 3725.0)] == ["3.0 s", "1 h 00 min", "1 h 02 min"]
    assert units.SECOND.number(None) == "–"
    assert units.SECOND.number(math.nan) == "nan"
