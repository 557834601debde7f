"""A minute of the fuzz harness in `benchmarks/`: a changed payload is refused in one line, or is a finite adapter."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from airtune.benches.decoder import CODERS, lanes_by

HARNESS = Path(__file__).parents[2] / "benchmarks" / "fuzz_payload.py"
PAYLOADS = {"constriction": 120_000, "numpy": 80_000}


def harness() -> ModuleType:
    spec = spec_from_file_location("fuzz_payload", HARNESS)
    module = sys.modules["fuzz_payload"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_changed_payload_crashes_hangs_or_passes_for_another():
    found = harness()
    for coder in CODERS:
        with lanes_by(coder):
            run = found.fuzz(PAYLOADS[coder], seed=11)
        assert run.wrong == []
        assert run.counts.total() == PAYLOADS[coder]
        outcomes = {(kind, change, outcome) for kind, change, outcome in run.counts}
        assert {outcome for *_, outcome in outcomes} == {"refused", "decoded"}
        never = {"bytes, hashes not recomputed", "static part's stream"}
        for kind, refuses in (("format 1", never), ("format 2", never), ("changes", {*never, "static part's text"})):
            for change in found.CHANGES:
                assert (kind, change, "refused") in outcomes
            for change in set(found.CHANGES) - refuses:
                assert (kind, change, "decoded") in outcomes, (kind, change)
            places = {place for where, place in run.places if where == kind}
            assert len(places) >= 12  # past the hashes, at every check


def test_the_harness_notices_what_it_must():
    """An error of another kind, an adapter that is not the one sent, numbers that are not finite."""
    found = harness()
    parts = found.seeds()[0]
    data = parts.build()
    assert found.outcome(data) == ("decoded", "")
    assert found.outcome(data[:-1])[0] == "refused"
    sent, other = (found.decode(seed.build(), None) for seed in found.seeds()[:2])
    assert found.outcome(data, sent) == ("decoded", "")
    assert found.outcome(data, other)[0] == "another adapter"
    assert found.outcome("not bytes")[0] == "TypeError"
