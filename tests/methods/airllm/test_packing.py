"""Weights before encoding against the bytes and the books of the real thing; bandwidths that just fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.adapters import Adapter, RankVector
from airtune.errors import PayloadError
from airtune.ledger import Ledger
from airtune.links import Fading, Link, Nakagami, Rayleigh, Rician
from airtune.methods.airllm.packing import Packer, block_packer, fitting_bandwidth
from airtune.methods.airllm.roles import adapter_message
from airtune.models import load_base
from airtune.transport import Message, OverTheAir
from tiny_models import save_tiny_model


@pytest.fixture(scope="module", params=["classify", "text"])
def trained(request, tmp_path_factory):
    """A tiny model with factors that are not zero: with a head to send, and without one."""
    folder = save_tiny_model(tmp_path_factory.mktemp(request.param), "bert", kind=request.param)
    base = load_base(str(folder), request.param, labels=3)
    draw = torch.Generator().manual_seed(0)
    adapter = Adapter(base, 6, generator=draw)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return adapter


def packer_of(adapter: Adapter, bits: int) -> Packer:
    return block_packer(adapter.base, adapter.factors(), adapter.dense(), bits)


def many_ranks(caps: RankVector) -> list[RankVector]:
    rng = np.random.default_rng(0)
    drawn = [RankVector.of(rng.integers(0, caps.ranks, endpoint=True)) for _ in range(25)]
    one = [RankVector(tuple(int(site == chosen) for site in range(len(caps)))) for chosen in range(len(caps))]
    return [RankVector((0,) * len(caps)), caps, *one, *drawn]


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_payload_bits_are_those_of_the_bytes_that_are_sent(trained, bits):
    packer = packer_of(trained, bits)
    for ranks in many_ranks(trained.caps):
        assert packer.payload_bits(ranks) == 8 * len(packer.encode(ranks).data)


def test_air_bits_are_those_that_the_air_books(trained):
    packer = packer_of(trained, 4)
    link, ledger = Link(1e6, 3.0), Ledger()

    class Sink:
        def request(self, message: Message) -> Message:
            return message.reply("taken", {})

    air = OverTheAir(Sink(), link, ledger, "cloud", lambda: link.mean_state)
    asked = many_ranks(trained.caps)
    for number, ranks in enumerate(asked):
        _, sent = air.send(adapter_message(packer.encode(ranks), 1000 * number), round=number)
        assert packer.air_bits(ranks) == sent.air_bits
    assert ledger.total("bits") == sum(packer.air_bits(ranks) for ranks in asked)


def test_what_is_packed_unpacks_for_this_base_model_and_no_other(trained, tmp_path):
    packer = packer_of(trained, 32)
    ranks = many_ranks(trained.caps)[-1]
    payload = packer.encode(ranks)
    found = packer.decode(payload)
    for (path, sent), rank in zip(trained.factors().items(), ranks.ranks, strict=True):
        whole = (sent.p * sent.lam) @ sent.q
        cut = (sent.p[:, :rank] * sent.lam[:rank]) @ sent.q[:rank]
        received = found.factors[path]
        assert (received.p * received.lam) @ received.q == pytest.approx(cut, abs=1e-5)
        assert rank == len(sent.lam) or not np.allclose(cut, whole)
    kind = trained.base.kind
    other = load_base(str(save_tiny_model(tmp_path, "bert", kind=kind, seed=1)), kind, labels=3)
    with pytest.raises(PayloadError):
        block_packer(other, trained.factors(), trained.dense(), 32).decode(payload)


def test_a_direction_costs_its_bits_and_at_most_a_chunk_header_more(trained):
    packer = packer_of(trained, 8)
    for site, cost in enumerate(packer.direction_bits):
        some = [2] * len(trained.caps)
        before = packer.payload_bits(RankVector(tuple(some)))
        some[site] += 1
        assert cost <= packer.payload_bits(RankVector(tuple(some))) - before <= cost + 8 * 64


decibels = st.floats(-20, 40).map(lambda value: round(value, 2))


@settings(max_examples=150, deadline=None)
@given(st.integers(1000, 10**8), st.integers(1, 999), decibels, decibels, st.floats(0.01, 100))
def test_at_the_bandwidth_found_one_thing_just_fits_and_the_reason_says_which(full, permille, low, high, deadline_s):
    least = full * permille // 1000
    slow_db, fast_db = min(low, high), max(low, high)
    bandwidth_hz, reason = fitting_bandwidth(full, least, Link(1e6, slow_db), Link(1e6, fast_db), deadline_s)
    slow, fast = Link(bandwidth_hz, slow_db), Link(bandwidth_hz, fast_db)
    full_s, least_s = fast.airtime_s(full, fast.mean_state), slow.airtime_s(2 * least, slow.mean_state)
    assert full_s <= deadline_s  # exactly, as the deadline is tested in the end
    assert least_s <= deadline_s
    assert fast.budget_bits(deadline_s, fast.mean_state) >= full
    just = full_s if reason.startswith("the full adapter") else least_s
    assert just > 0.99 * deadline_s  # rounded up to three digits
    assert just == pytest.approx(max(full_s, least_s), rel=1e-9)
    assert float(f"{bandwidth_hz:.3g}") == pytest.approx(bandwidth_hz, rel=1e-12)
    if reason.startswith("the full adapter"):
        assert f"just fits in {deadline_s:g} s at {fast_db:g} dB; " in reason
        assert reason.endswith(f"at {slow_db:g} dB it takes {slow.airtime_s(full, slow.mean_state):.3g} s")
    else:
        assert reason.startswith("twice the head and container (")
        assert f"just fit in {deadline_s:g} s at {slow_db:g} dB; " in reason


def test_a_bandwidth_by_hand():
    """0 dB carries 1 bit/s/Hz, 10 log10(3) dB carries 2: 123,456 bits in half a second are 123,456 Hz at the latter."""
    slow, fast = Link(5e3, 0.0), Link(7e3, 10 * np.log10(3))
    assert fitting_bandwidth(123_456, 1_000, slow, fast, 0.5)[0] == 124_000
    assert fitting_bandwidth(123_456, 100_000, slow, fast, 0.5)[0] == 400_000
    reason = fitting_bandwidth(123_456, 1_000, slow, fast, 0.5)[1]
    assert reason == (
        "the full adapter (123.5 kbit on the air) just fits in 0.5 s at 4.77121 dB; at 0 dB it takes 0.996 s"
    )


@pytest.mark.parametrize("fading", [Rayleigh(), Rician(4.0), Nakagami(2.0)], ids=lambda fading: fading.name)
@pytest.mark.parametrize("late_share", [0.0, 0.05])
@pytest.mark.parametrize("least", [2_000, 300_000])
def test_under_fading_it_just_fits_in_the_blocks_that_decisions_count_on(fading: Fading, late_share, least):
    full = 1_000_000

    def rate_bps(link: Link) -> float:
        return link.outage_rate_bps(late_share) if late_share else link.ergodic_rate_bps()

    slow, fast = Link(1.0, -5.0, fading), Link(1.0, 15.0, fading)
    bandwidth_hz, reason = fitting_bandwidth(full, least, slow, fast, 2.0, late_share)
    full_s = full / rate_bps(Link(bandwidth_hz, 15.0, fading))
    least_s = 2 * least / rate_bps(Link(bandwidth_hz, -5.0, fading))
    assert 0.99 * 2.0 < max(full_s, least_s) <= 2.0 * (1 + 1e-12)
    assert reason.startswith("the full adapter" if full_s > least_s else "twice the head")
    assert reason.endswith("(in all but 5 % of blocks)" if late_share else "(at the mean rate of the blocks)")


def test_decisions_under_rayleigh_fading_hold_the_head_at_the_worst_snr():
    """What a run with `link.bandwidth_hz = 0` meets: planned at the mean rate, the worst SNR would carry nothing."""
    links = [Link(1e6, snr_db, Rayleigh()) for snr_db in (-5.0, 15.0)]
    bandwidth_hz, _ = fitting_bandwidth(1_500_000, 64_000, *links, 1.0, 0.05)
    slow = Link(bandwidth_hz, -5.0, Rayleigh())
    assert slow.outage_rate_bps(0.05) * 1.0 >= 2 * 64_000
