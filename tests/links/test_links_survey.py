"""The table of what links carry, and what the room may load."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

import airtune.links
from airtune.errors import LinkError
from airtune.links import Link, Nakagami, Rayleigh, describe


def test_the_papers_links():
    rows = describe()
    assert [row.snr_db for row in rows] == [-5.0, 0.0, 5.0, 10.0, 15.0]
    assert [row.still_bps / 1e6 for row in rows] == pytest.approx([39.6, 100.0, 205.7, 345.9, 502.8], abs=0.05)
    for row in rows:
        assert row.bandwidth_hz == 100e6
        assert row.still_bps == row.ergodic_bps == row.outage_1_bps == row.outage_10_bps
        assert row.deadline_bits == math.floor(row.still_bps)  # 1 s


def test_a_fading_link_by_closed_forms():
    link = Link(1e6, 10.0, Rayleigh())
    (row,) = describe(link, 0.5)
    assert row.still_bps == pytest.approx(1e6 * math.log2(11), rel=1e-14)
    assert row.ergodic_bps == pytest.approx(2.9065e6, abs=50)
    assert row.outage_1_bps == pytest.approx(1e6 * math.log2(1 - 10 * math.log(0.99)), rel=1e-9)
    assert row.outage_10_bps == pytest.approx(1e6 * math.log2(1 - 10 * math.log(0.9)), rel=1e-9)
    assert row.deadline_bits == math.floor(0.5e6 * math.log2(1 - 10 * math.log(0.9)))
    # so many bits are late in a tenth of the blocks
    assert link.outage_probability(row.deadline_bits / 0.5) == pytest.approx(0.1, rel=1e-5)


def test_rows_keep_the_order_of_any_iterable_of_links():
    rows = describe((Link(1e6, snr_db, Nakagami(2.0), 3.0) for snr_db in (10.0, -5.0, 0.0)), deadline_s=2.0)
    assert [row.snr_db for row in rows] == [10.0, -5.0, 0.0]
    for row in rows:
        assert row.outage_1_bps < row.outage_10_bps < row.ergodic_bps < row.still_bps


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, math.nan])
def test_a_deadline_that_is_none_is_refused(deadline_s: float):
    with pytest.raises(LinkError, match="deadline_s is"):
        describe(deadline_s=deadline_s)


def test_nothing_to_describe_is_refused():
    with pytest.raises(LinkError, match="0 links to describe; give at least one"):
        describe([])


def test_importing_the_room_loads_neither_torch_nor_scipy():
    code = "import sys, airtune.links; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"airtune", "numpy"} <= loaded
    assert not loaded & {"torch", "transformers", "peft", "scipy", "matplotlib", "pandas"}


def test_every_public_name_exists_and_callables_are_documented():
    for name in airtune.links.__all__:
        found = getattr(airtune.links, name)
        assert found.__doc__ or not callable(found), name
