"""A minute of the fuzz harness in `benchmarks/`: a changed payload is refused in one line, or is a finite adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fuzz_payload as harness
from airtune.benches.decoder import CODERS, lanes_by
from airtune.errors import PayloadError

PAYLOADS = {"constriction": 40_000, "numpy": 20_000}


def test_no_changed_payload_crashes_hangs_or_passes_for_another():
    for coder in CODERS:
        with lanes_by(coder):
            run = harness.fuzz(PAYLOADS[coder], seed=11)
        assert run.wrong == []
        assert run.counts.total() == PAYLOADS[coder]
        outcomes = {(kind, change, outcome) for kind, change, outcome in run.counts}
        assert {outcome for *_, outcome in outcomes} == {"refused", "decoded"}
        never = {"bytes, hashes not recomputed", "static part's stream"}
        for kind, refuses in (("format 1", never), ("format 2", never), ("changes", {*never, "static part's text"})):
            for change in harness.CHANGES:
                assert (kind, change, "refused") in outcomes
            for change in set(harness.CHANGES) - refuses:
                assert (kind, change, "decoded") in outcomes, (kind, change)
            places = {place for where, place in run.places if where == kind}
            assert len(places) >= 12  # past the hashes, at every check


def test_the_harness_notices_what_it_must(monkeypatch, tmp_path: Path):
    """An error of another kind, an adapter that is not the one sent."""
    data = harness.seeds()[0].build()
    assert harness.outcome(data, folder=tmp_path) == ("decoded", "")
    assert harness.outcome(data[:-1])[0] == "refused"
    sent, other = (harness.decode(seed.build(), None) for seed in harness.seeds()[:2])
    assert harness.outcome(data, sent) == ("decoded", "")
    assert harness.outcome(data, other)[0] == "another adapter"
    assert harness.outcome("not bytes")[0] == "TypeError"
    monkeypatch.setattr(harness, "inspect", lambda *_, **__: raised(PayloadError("no")))
    assert harness.outcome(data)[0] == "inspect: refused"


@pytest.mark.parametrize("which", ["decode", "inspect", "unpack"])
def test_the_harness_notices_two_lines_and_what_takes_too_long(monkeypatch, tmp_path: Path, which: str):
    data, clock = harness.seeds()[0].build(), Clock()
    where = "" if which == "decode" else f"{which}: "
    call = getattr(harness, which)
    monkeypatch.setattr(harness, "time", clock)
    assert harness.outcome(data, folder=tmp_path)[0] == "decoded"

    def slow(*given, **by_name):
        clock.now += 1.1 * harness.SLOW
        return call(*given, **by_name)

    monkeypatch.setattr(harness, which, slow)
    assert harness.outcome(data, folder=tmp_path)[0] == f"{where}decoded, slow"
    monkeypatch.setattr(harness, which, lambda *_, **__: raised(PayloadError("one\ntwo")))
    assert harness.outcome(data, folder=tmp_path)[0] == f"{where}more than a line"


@pytest.mark.parametrize("place", ["p", "dense"])
def test_the_harness_notices_numbers_that_are_not_finite(monkeypatch, place: str):
    data, decode = harness.seeds()[0].build(), harness.decode

    def spoilt(*given, **by_name):
        found = decode(*given, **by_name)
        numbers = found.dense if place == "dense" else {name: site.p for name, site in found.factors.items()}
        next(iter(numbers.values())).flat[-1] = np.inf
        return found

    monkeypatch.setattr(harness, "decode", spoilt)
    assert harness.outcome(data)[0] == "not finite"


def test_the_harness_compares_ranks(monkeypatch):
    data = harness.seeds()[0].build()
    info = harness.inspect(data)
    info = replace(info, sites=(*info.sites[1:], replace(info.sites[0], rank=info.sites[0].rank - 1)))
    monkeypatch.setattr(harness, "inspect", lambda *_, **__: info)
    assert harness.outcome(data)[0] == "inspect: other ranks"


class Clock:
    """Time that goes on when told to."""

    now = 0.0

    def process_time(self) -> float:
        return self.now


def raised(error: Exception):
    raise error
