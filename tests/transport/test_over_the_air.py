"""What a message costs on the air, worked out by hand."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.errors import PayloadError
from airtune.ledger import Ledger
from airtune.transport import Loopback, Message, OverTheAir, Transmission, air_bits, air_overhead_bits, message_id

links = pytest.importorskip("airtune.links")

# frame: 18 + 32 fixed bytes, the envelope {"header":{},"id":"1","kind":"echo"} of 36, a body of 7; 256 for the head
_MESSAGE = Message("echo", "1", {}, b"7 bytes")
_AIR_BITS = 8 * (18 + 32 + 36 + 7 + 256)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_air_bits_by_hand():
    assert struct.calcsize(">4sHIQ") == 18
    assert len('{"header":{},"id":"1","kind":"echo"}') == 36
    assert air_bits(_MESSAGE) == _AIR_BITS == 2792


def test_bits_seconds_and_messages_are_booked(role, ledger: Ledger):
    # W log2(1 + SNR): 1 MHz at 0 dB gives 1 Mbit/s, 0.5 MHz at 10 log10(3) dB the same, 2 MHz at 0 dB 2 Mbit/s
    states = [
        links.ChannelState(0.0, 1e6),
        links.ChannelState(4.771212547196624, 0.5e6),
        links.ChannelState(0.0, 2e6),
    ]
    air = OverTheAir(Loopback(role), links.Link(1e6, 0.0), ledger, "cloud", iter(states).__next__)
    assert air.last is None
    reply, first = air.send(_MESSAGE)
    assert reply == Message("done", "1", {}, b"7 bytes")
    assert first == Transmission(2792, pytest.approx(2792e-6, rel=1e-12), states[0])
    _, second = air.send(_MESSAGE, round=3)
    assert second.airtime_s == pytest.approx(2792e-6, rel=1e-12)
    air.request(_MESSAGE)
    assert air.last == Transmission(2792, pytest.approx(1396e-6, rel=1e-12), states[2])
    assert ledger.total("bits", role="cloud") == 3 * 2792
    assert ledger.total("bits", round=3) == 2792
    assert ledger.total("seconds") == pytest.approx(6980e-6, rel=1e-12)
    assert ledger.total("messages") == 3
    assert {(row["role"], row["what"]) for row in ledger.rows()} == {("cloud", "echo")}


def test_the_air_is_used_even_where_the_message_is_refused(role, ledger: Ledger):
    air = OverTheAir(Loopback(role), links.Link(1e6, 0.0), ledger, "cloud", lambda: links.ChannelState(0.0, 1e6))
    with pytest.raises(PayloadError):
        air.request(Message("refuse", "1", {}))
    assert air.last is not None
    assert ledger.total("bits") == air.last.air_bits > 0


def test_pace_waits_for_the_airtime_before_the_message_arrives(role, ledger: Ledger):
    waits: list[tuple[float, int]] = []
    air = OverTheAir(
        Loopback(role),
        links.Link(1e6, 0.0),
        ledger,
        "cloud",
        lambda: links.ChannelState(0.0, 1e6),
        pace=lambda seconds: waits.append((seconds, len(role.handled))),
    )
    air.request(_MESSAGE)
    assert waits == [(pytest.approx(2792e-6, rel=1e-12), 0)]
    assert role.handled == ["1"]


def test_the_overhead_is_known_before_the_body():
    header = {"sha256": "0" * 64, "round": 12, "snr_db": -5.0}
    overhead = air_overhead_bits("adapter", header)
    for body in (b"", b"x", b"x" * 70_000):
        final = header | {"sha256": f"{len(body):064x}"}
        assert air_bits(Message("adapter", message_id("adapter", final, body), final, body)) == 8 * len(body) + overhead


@given(
    st.from_regex(r"[a-z]{1,20}", fullmatch=True),
    st.from_regex(r"[0-9A-Z]{1,128}", fullmatch=True),
    st.dictionaries(st.text('aä\n"', max_size=4), st.integers(-5, 5) | st.text('aä\n"', max_size=9), max_size=4),
    st.binary(max_size=99),
)
@settings(deadline=None)
def test_air_bits_are_body_and_overhead_for_every_message(kind: str, id: str, header: dict, body: bytes):
    assert air_bits(Message(kind, id, header, body)) == 8 * len(body) + air_overhead_bits(kind, header, len(id))


def test_it_carries_whatever_it_wraps(role, ledger: Ledger):
    block = links.ChannelState(0.0, 1e6)
    cloud = OverTheAir(Loopback(role), links.Link(1e6, 0.0), ledger, "cloud", lambda: block)
    relay = OverTheAir(cloud, links.Link(1e6, 0.0), ledger, "relay", lambda: block)
    assert relay.request(_MESSAGE).kind == "done"
    assert ledger.total("bits", role="relay") == ledger.total("bits", role="cloud") == 2792
