"""What a link has room for before training: against the run that follows, and the deadline worked out by hand."""

from __future__ import annotations

from math import floor, log2
from pathlib import Path

import pytest

from airtune.errors import ConfigError
from airtune.methods.airllm.plan import Plan, plan
from airtune.records import RunFolder
from services.tiny_runs import classify_settings, config_of, run_here, text_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, str]:
    asked = {"link.snrs_db": "-5,-3,15", "link.bandwidth_hz": "60000", "link.deadline_s": "0.5"}
    return classify_settings(tmp_path_factory.mktemp("in") / "classify") | asked


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    run_here(settings, out)
    return out


@pytest.fixture(scope="module")
def planned(settings) -> Plan:
    return plan(config_of(settings))


def test_a_plan_says_what_the_run_then_sends(settings, tmp_path):
    """Blockwise numbers take what their shapes say, so to the bit."""
    exact = settings | {"codec.name": "blockwise", "codec.bits": "4"}
    sent = [row for row in run_here(exact, tmp_path / "run")["rows"] if row["allocator"] == "uniform"]
    planned = plan(config_of(exact))
    assert [(row.snr_db, row.total_rank, row.air_bits) for row in planned.rows] == [
        (row["snr_db"], row["total_rank"], row["air_bits"]) for row in sent
    ]
    assert [row.airtime_s for row in planned.rows] == pytest.approx([row["airtime_s"] for row in sent])


def test_a_plan_of_coded_numbers_is_about_right(planned, finished):
    sent = [row for row in RunFolder.open(finished).read_summary()["rows"] if row["allocator"] == "uniform"]
    assert planned.full_bits == pytest.approx(sent[-1]["air_bits"], rel=0.05)
    assert [row.air_bits for row in planned.rows] == pytest.approx([row["air_bits"] for row in sent], rel=0.05)
    assert [row.total_rank for row in planned.rows] == pytest.approx([row["total_rank"] for row in sent], rel=0.1)


def test_budgets_are_shannons(planned):
    expected = [floor(0.5 * 60_000 * log2(1 + 10 ** (snr_db / 10))) for snr_db in (-5, -3, 15)]
    assert [row.budget_bits for row in planned.rows] == expected


def test_one_rank_more_everywhere_would_not_fit(planned):
    full_bits, sites, cap = planned.full_bits, planned.sites, planned.full_rank // planned.sites
    assert {row.uniform_rank for row in planned.rows} != {0}
    for row in planned.rows:
        assert 0 <= row.uniform_rank * sites <= row.total_rank <= cap * sites
        if row.uniform_rank < cap:
            assert row.total_rank < (row.uniform_rank + 1) * sites
        else:
            assert row.air_bits == full_bits <= row.budget_bits


def test_a_link_that_cannot_carry_the_head_is_shown_not_refused(settings):
    found = plan(config_of(settings | {"link.bandwidth_hz": "10", "link.snrs_db": "0"}))
    assert found.rows[0].air_bits is None
    assert found.rows[0].least_airtime_s == pytest.approx(found.least_bits / 10)  # 10 bit/s


def test_earlier_losses_stand_beside_where_they_fit(settings, finished):
    summary = RunFolder.open(finished).read_summary()
    found = plan(config_of(settings), [summary])
    for row in found.rows:
        fitting = [sent["loss"] for sent in summary["rows"] if sent["air_bits"] <= row.budget_bits]
        assert row.loss == min(fitting)
    with pytest.raises(ConfigError, match="give a run of the same model and task"):
        plan(config_of(settings), [summary | {"sites": summary["sites"][:-1]}])


def test_a_text_plan_needs_no_data(tmp_path):
    settings = text_settings(tmp_path / "text")
    with_data = plan(config_of(settings))
    assert plan(config_of(settings | {"task.data": ""})) == with_data
