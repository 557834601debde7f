"""Costs by hand: sums over quantity, role and round."""

from __future__ import annotations

import json
import math

import pytest

from airtune.errors import ConfigError
from airtune.ledger import Ledger


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.book("bits", 800, role="cloud", what="adapter")
    ledger.book("bits", 200, role="cloud", round=1, what="adapter")
    ledger.book("bits", 50, role="edge", round=1, what="report")
    ledger.book("seconds", 0.25, role="cloud", round=1, what="adapter")
    return ledger


@pytest.mark.parametrize(
    ("selection", "total"),
    [
        ({}, 1050.0),
        ({"role": "cloud"}, 1000.0),
        ({"round": 1}, 250.0),
        ({"role": "cloud", "round": 1}, 200.0),
        ({"what": ("report", "nothing")}, 50.0),
        ({"what": ("report", "adapter"), "round": 1}, 250.0),
        ({"what": ()}, 0.0),
    ],
)
def test_totals(ledger: Ledger, selection: dict, total: float):
    assert ledger.total("bits", **selection) == total


def test_round_zero_is_a_round_of_its_own(ledger: Ledger):
    assert ledger.total("bits", round=0) == 800.0


def test_a_quantity_never_booked_totals_zero(ledger: Ledger):
    assert ledger.total("joules") == 0.0


def test_many_small_amounts_lose_nothing():
    ledger = Ledger()
    for _ in range(10):
        ledger.book("seconds", 0.1, role="edge", what="decode")
    assert ledger.total("seconds") == 1.0  # a running sum gives 0.9999999999999999


def test_rows_are_json_in_booking_order(ledger: Ledger):
    rows = json.loads(json.dumps(list(ledger.rows())))
    assert len(rows) == len(ledger) == 4
    assert rows[2] == {"quantity": "bits", "amount": 50.0, "role": "edge", "round": 1, "what": "report"}


@pytest.mark.parametrize("amount", [-1.0, math.nan, math.inf])
def test_an_impossible_amount_is_refused(amount: float):
    with pytest.raises(ConfigError, match="finite amount of at least 0"):
        Ledger().book("bits", amount, role="cloud", what="adapter")


def test_an_unknown_quantity_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'bytes'; choose one of bits"):
        Ledger().book("bytes", 1, role="cloud", what="adapter")  # type: ignore[arg-type]
