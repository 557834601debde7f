"""Peaks of memory: a fresh process measures a tiny model; elsewhere than on Linux there is no number."""

from __future__ import annotations

import pytest

from airtune.errors import RunError
from airtune.methods.pae_mobillm import peaks
from airtune.methods.pae_mobillm.peaks import Shape, rises
from tiny_models import save_tiny_model

LINUX = pytest.mark.skipif(not peaks.CAN_MEASURE, reason="/proc/self is Linux's")


@LINUX
def test_a_fresh_process_tells_a_rise_and_a_buffer_by_hand(tmp_path):
    """2 blocks of 16 numbers of 4 bytes for each of 512 samples."""
    shape = Shape(str(save_tiny_model(tmp_path, "bert", kind="classify")), 3, 2, 512, 24)
    found = rises(shape, ways=("reading", "split"))
    assert all(peak.rise_kib > 0 and peak.loaded_kib > 10_000 for (peak,) in found.values())
    assert {peak.buffer_bytes for (peak,) in found.values()} == {512 * 2 * 16 * 4}


@LINUX
def test_sending_every_token_needs_room_for_what_is_sent(tmp_path):
    """While the second of 2 blocks runs the first one's wait: 1,024 x 24 tokens of 16 numbers at 2 bytes."""
    folder = save_tiny_model(tmp_path, "bert", kind="classify")
    found = rises(Shape(str(folder), 3, 1, 1024, 24), ways=("reading", "tokens16"))
    rise = {way: peak.rise_kib / 1024 for way, (peak,) in found.items()}
    waiting = 1024 * 24 * 16 / 2**20
    assert rise["tokens16"] - rise["reading"] > 2 * waiting


@LINUX
def test_reading_pivots_takes_a_tenth_more_than_plain_inference_and_a_buffer_at_most(tmp_path):
    """Batches so large that they make the peak, not the interpreter: 2048 x 24 rows of 32 numbers are 6 MB."""
    shape = Shape(str(save_tiny_model(tmp_path, "bert", kind="classify")), 3, 2, 2048, 24)
    ((plain,), (reading,)) = rises(shape, ways=("plain", "reading")).values()
    assert plain.rise_kib > 6_000
    assert reading.rise_kib <= 1.1 * plain.rise_kib + 2048 * 2 * 16 * 4 / 1024


@LINUX
def test_a_model_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RunError, match=r"memory of plain on .*none was not measured \(.*none"):
        rises(Shape(str(tmp_path / "none"), 2, 1, 1, 4), ways=("plain",))


def test_elsewhere_it_is_refused_and_the_cell_is_empty(monkeypatch: pytest.MonkeyPatch):
    from airtune.methods.pae_mobillm.cells import memory

    monkeypatch.setattr(peaks, "CAN_MEASURE", False)
    monkeypatch.setattr(memory, "CAN_MEASURE", False)
    with pytest.raises(RunError, match="use Linux"):
        rises(Shape("minilm", 2, 1, 1, 4))
    assert memory.compute_memory({}, None, {}).values == ()
