"""A minute of the fuzz harness in `benchmarks/`: a changed payload is refused in one line, or is a finite adapter."""

from __future__ import annotations

import fuzz_payload as harness
from airtune.benches.decoder import CODERS, lanes_by

PAYLOADS = {"constriction": 120_000, "numpy": 80_000}


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


def test_the_harness_notices_what_it_must():
    """An error of another kind, an adapter that is not the one sent, numbers that are not finite."""
    parts = harness.seeds()[0]
    data = parts.build()
    assert harness.outcome(data) == ("decoded", "")
    assert harness.outcome(data[:-1])[0] == "refused"
    sent, other = (harness.decode(seed.build(), None) for seed in harness.seeds()[:2])
    assert harness.outcome(data, sent) == ("decoded", "")
    assert harness.outcome(data, other)[0] == "another adapter"
    assert harness.outcome("not bytes")[0] == "TypeError"
