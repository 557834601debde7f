"""Traces: from small files written here, and from a measured 5G trace where it is at hand."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from airtune.errors import LinkError
from airtune.links import Link, Trace, linear_to_db, make_fading

_TEXT = """session,SNR,RSRP
1,0.0,-90
1,10.0,-80
1,,-85
2,-,-100
2,NaN,-70
2,20.0,
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.csv"
    path.write_text(_TEXT)
    return path


def test_gains_are_relative_to_the_mean_linear_power(small: Path):
    trace = Trace.from_csv(small)
    np.testing.assert_array_equal(trace.values_db, [0.0, 10.0, 20.0])
    np.testing.assert_allclose(trace.powers, [1 / 37, 10 / 37, 100 / 37], rtol=1e-14)  # mean of 1, 10, 100 is 37
    assert trace.mean_snr_db == pytest.approx(linear_to_db(37.0), rel=1e-14)
    assert trace.powers.mean() == pytest.approx(1.0, rel=1e-15)


def test_a_link_at_the_traces_own_mean_repeats_the_measurement(small: Path):
    trace = Trace.from_csv(small)
    states = Link(1e6, trace.mean_snr_db, trace).observe(np.random.default_rng(0), 3)
    assert sorted(state.snr_db for state in states) == pytest.approx([0.0, 10.0, 20.0], abs=1e-12)


def test_replay_goes_on_from_a_drawn_start_and_wraps():
    trace = Trace(np.arange(5.0))
    order = np.sqrt(trace.powers)
    starts = set()
    for seed in range(40):
        gains = trace.gains(np.random.default_rng(seed), 12)
        start = int(np.flatnonzero(order == gains[0].real)[0])
        np.testing.assert_array_equal(gains, order[(start + np.arange(12)) % 5])
        starts.add(start)
    assert starts == set(range(5))


def test_the_law_is_the_empirical_one(small: Path):
    trace = Trace.from_csv(small)
    assert trace.power_cdf(0.999 / 37) == 0.0
    assert trace.power_cdf(float(trace.powers[0])) == pytest.approx(1 / 3)
    assert trace.power_cdf(11 / 37) == pytest.approx(2 / 3)
    assert trace.power_quantile(0.34) == pytest.approx(10 / 37)
    expected = (math.log2(2) + math.log2(11) + math.log2(101)) / 3
    assert trace.mean_efficiency(37.0) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("options", "values_db"),
    [
        ({"session": 1}, [0.0, 10.0]),
        ({"session": "2"}, [20.0]),
        ({"column": "RSRP"}, [-90.0, -80.0, -85.0, -100.0, -70.0]),
        ({"column": "SNR", "session": -80, "session_column": "RSRP"}, [10.0]),
    ],
)
def test_columns_and_sessions_are_chosen(small: Path, options: dict[str, object], values_db: list[float]):
    trace = make_fading("trace", path=small, **options)
    assert isinstance(trace, Trace)
    assert trace.values_db.tolist() == values_db


def test_gzip_a_byte_order_mark_and_foreign_line_ends_are_read(tmp_path: Path):
    path = tmp_path / "small.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8-sig", newline="") as file:
        file.write("SNR,session\r\n 1.5 ,1\r\n\r\n-2,1\r\n")
    assert Trace.from_csv(str(path)).values_db.tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "has no column 'SNR'; choose one of its columns: no header line at all"),
        ("time,RSRP\n0,-80\n", {}, "has no column 'SNR'; choose one of its columns: time, RSRP"),
        (_TEXT, {"session": 3}, "has no session '3'; choose one of 1, 2$"),
        (_TEXT, {"session": 1, "session_column": "run"}, "has no column 'run'"),
        ("session,SNR\n", {"session": 3}, "choose one of no rows at all"),
        ("SNR\n\n-\n", {}, "has no value in column 'SNR'; choose another column or file"),
        ("SNR,x\n1,2\nfast,3\n", {}, "line 3 has SNR 'fast'; give decibels from -200 to 200"),
        ("SNR,x\n1,2\n9999,3\n", {}, "line 3 has SNR '9999'"),
        ("SNR,x\n1,2\ninf,3\n", {}, "line 3 has SNR 'inf'"),
        ("SNR,x\n1,2\n3\n", {}, "line 3 has 1 fields, the header 2; mend the file"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path: Path, text: str, options: dict[str, object], message: str):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(LinkError, match=message) as refused:
        Trace.from_csv(path, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("not.csv.gz", b"SNR\n1\n"),
        ("cut.csv.gz", gzip.compress(b"SNR\n" + b"1.0\n" * 1000)[:-12]),
        ("flipped.csv.gz", gzip.compress(b"SNR\n1.0\n")[:12] + b"\xff\xff\xff\xff\xff\xff"),
        ("latin.csv", "SNR,Größe\n1,2\n".encode("latin-1")),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str, data: bytes):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(LinkError, match=r"cannot be read \(.+\); give a CSV file, plain or gzipped as \.gz"):
        Trace.from_csv(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(LinkError, match=r"none\.csv cannot be read \(No such file or directory\); give a CSV file"):
        Trace.from_csv(tmp_path / "none.csv")
    with pytest.raises(LinkError, match=r"cannot be read \(Is a directory\)"):
        Trace.from_csv(tmp_path)


@pytest.mark.parametrize("values_db", [[], [[1.0]], [math.nan], [1.0, math.inf], [201.0]])
def test_values_that_are_no_trace_are_refused(values_db: list):
    with pytest.raises(LinkError, match=r"a trace has .*; give"):
        Trace(np.array(values_db))


def test_a_trace_keeps_its_own_values():
    values_db = np.array([1.0, 2.0])
    trace = Trace(values_db)
    values_db[0] = 50.0
    assert trace.values_db.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        trace.powers[0] = 0.0


def test_a_measured_5g_trace(shared: Path):
    path = shared / "data" / "traces_5g_ucc" / "ucc5g.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["SNR"]]
    everything, one = Trace.from_csv(path), Trace.from_csv(path, session=76)
    expected = [float(row["SNR"]) for row in rows]
    assert everything.values_db.tolist() == expected
    assert one.values_db.tolist() == [float(row["SNR"]) for row in rows if row["session"] == "76"]
    assert everything.mean_snr_db == pytest.approx(10 * math.log10(np.mean(10 ** (np.array(expected) / 10))), rel=1e-12)

    link = Link(20e6, one.mean_snr_db, one)
    states = link.observe(np.random.default_rng(0), len(one.powers))
    assert np.mean([link.rate_bps(state) for state in states]) == pytest.approx(link.ergodic_rate_bps(), rel=1e-9)
    assert link.outage_rate_bps(0.01) < link.outage_rate_bps(0.1) < link.ergodic_rate_bps()
    assert link.ergodic_rate_bps() < link.rate_bps(link.mean_state)
