"""Frames: what goes in comes out, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.errors import TransportError
from airtune.transport import Limits, Message, message_id

_scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
)
_messages = st.builds(
    Message,
    kind=st.from_regex(r"[a-z][a-z0-9_.-]{0,63}", fullmatch=True),
    id=st.from_regex(r"[0-9A-Za-z][0-9A-Za-z._:-]{0,127}", fullmatch=True),
    header=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), _values, max_size=4),
    body=st.binary(max_size=200),
)
_SMALL = Message("adapter", "a1", {"round": 3, "snr_db": -5.0, "ranks": [1, 2]}, b"\x00\xffbody")


def framed(envelope: bytes, body: bytes = b"", magic: bytes = b"ATMS", version: int = 1) -> bytes:
    """A frame written by hand from the layout in the documentation, with a right digest."""
    content = magic + struct.pack(">HIQ", version, len(envelope), len(body)) + envelope + body
    return content + hashlib.sha256(content).digest()


@given(_messages)
@settings(deadline=None)
def test_a_frame_parses_to_the_message_it_was_made_of(message: Message):
    frame = message.frame()
    assert Message.parse(frame) == message
    assert Message.parse(frame).frame() == frame
    assert message.frame_length() == len(frame)


def test_the_layout_is_the_documented_one():
    envelope = b'{"header":{"ranks":[1,2],"round":3,"snr_db":-5.0},"id":"a1","kind":"adapter"}'
    assert _SMALL.frame() == framed(envelope, b"\x00\xffbody")


def test_every_truncation_is_refused():
    frame = _SMALL.frame()
    for length in range(len(frame)):
        with pytest.raises(TransportError):
            Message.parse(frame[:length])


def test_every_bit_flip_is_refused():
    frame = _SMALL.frame()
    for bit in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TransportError):
            Message.parse(bytes(damaged))


def test_bytes_after_the_frame_are_refused():
    with pytest.raises(TransportError, match="its lengths say"):
        Message.parse(_SMALL.frame() + b"\0")


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_arbitrary_bytes_with_right_digest_and_lengths_raise_nothing_but_transport_errors(envelope: bytes):
    with pytest.raises(TransportError):
        Message.parse(framed(envelope))


@pytest.mark.parametrize(
    "envelope",
    [
        b'{"kind":"a","id":"1","header":{"x":1,"x":2}}',  # a key twice
        b'{"kind":"a","kind":"b","id":"1","header":{}}',
        b'{"kind":"a","id":"1","header":{"x":NaN}}',
        b'{"kind":"a","id":"1","header":{"x":-Infinity}}',
        b'{"kind":"a","id":"1","header":{"x":1e999}}',  # infinite once read
        b'{"kind":"a","id":"1","header":{"x":9223372036854775808}}',  # 2^63
        b'{"kind":"a","id":"1","header":{"x":' + b"9" * 5000 + b"}}",
        b'{"kind":"a","id":"1","header":{"x":"\\ud800"}}',  # half a surrogate pair
        b'{"kind":"a","id":"1","header":{"x":"\xff"}}',  # not UTF-8
        b'{"kind":"a","id":"1","header":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"kind":"a","id":"1","header":{"x":' + b"[" * 40 + b"]" * 40 + b"}}",
        b'{"kind":"a","id":"1","header":[]}',
        b'{"kind":"a","id":"1"}',
        b'{"kind":"a","id":"1","header":{},"more":0}',
        b'{"kind":"a","id":7,"header":{}}',
        b'{"kind":"A B","id":"1","header":{}}',
        b'["a","1",{}]',
        b"",
    ],
)
def test_an_envelope_that_is_not_exactly_a_message_is_refused_in_one_line(envelope: bytes):
    with pytest.raises(TransportError) as caught:
        Message.parse(framed(envelope))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "line"), [({"magic": b"ATNX"}, "not a message"), ({"version": 2}, "version 2, 1 exp")]
)
def test_another_format_or_version_is_named(change: dict, line: str):
    with pytest.raises(TransportError, match=line):
        Message.parse(framed(b'{"kind":"a","id":"1","header":{}}', **change))


def test_a_length_beyond_the_limits_is_refused_before_anything_is_read():
    prefix = b"ATMS" + struct.pack(">HIQ", 1, 10, 2**62)
    with pytest.raises(TransportError, match="body has 4611686018427387904 bytes, at most 1073741824"):
        Message.parse(prefix + b"\0" * 32)


def test_limits_hold_at_their_edge_on_both_sides():
    message = Message("a", "1", {}, b"12345678")
    envelope = len(json.dumps({"header": {}, "id": "1", "kind": "a"}, separators=(",", ":")))
    exact = Limits(header_bytes=envelope, body_bytes=8)
    assert Message.parse(message.frame(exact), exact) == message
    assert exact.frame_bytes == len(message.frame())
    for tight in (Limits(envelope - 1, 8), Limits(envelope, 7)):
        with pytest.raises(TransportError, match="at most"):
            message.frame(tight)
        with pytest.raises(TransportError, match="at most"):
            Message.parse(message.frame(), tight)


@pytest.mark.parametrize(
    "header",
    [
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": {1, 2}},
        {1: "x"},
        {"x": {"y": b"z"}},
        {"x": 2**63},
        {"\ud800": 1},
    ],
)
def test_what_json_cannot_hold_is_refused_when_the_message_is_made(header: dict):
    with pytest.raises(TransportError, match="message"):
        Message("a", "1", header)


@pytest.mark.parametrize(
    ("kind", "id"), [("", "1"), ("A", "1"), ("a" * 65, "1"), ("a", ""), ("a", "x" * 129), ("a", "1\n")]
)
def test_kinds_and_ids_are_short_plain_words(kind: str, id: str):
    with pytest.raises(TransportError):
        Message(kind, id, {})


def test_a_message_does_not_change_with_the_mapping_it_was_made_of():
    header = {"ranks": [1, 2]}
    message = Message("a", "1", header, bytearray(b"abc"))  # type: ignore[arg-type]
    header["ranks"].append(3)
    assert message.header == {"ranks": [1, 2]}
    assert message.body == b"abc"
    with pytest.raises(TypeError):
        message.header["more"] = 1  # type: ignore[index]


def test_a_reply_keeps_the_id():
    assert _SMALL.reply("done", {"ok": True}, b"x") == Message("done", "a1", {"ok": True}, b"x")


def test_ids_follow_the_content_and_nothing_else():
    one = message_id("adapter", {"a": 1, "b": 2}, b"body", "seed", 0)
    assert one == message_id("adapter", {"b": 2, "a": 1}, b"body", "seed", 0)
    assert len(one) == 32
    others = {
        message_id("report", {"a": 1, "b": 2}, b"body", "seed", 0),
        message_id("adapter", {"a": 1}, b"body", "seed", 0),
        message_id("adapter", {"a": 1, "b": 2}, b"bodY", "seed", 0),
        message_id("adapter", {"a": 1, "b": 2}, b"body", "seed", 1),
        message_id("adapter", {"a": 1, "b": 2}, b"body"),
    }
    assert len(others | {one}) == 6


def test_an_id_is_the_documented_hash():
    assert message_id("a", {"x": 1}, b"body", 7) == hashlib.sha256(b'["a",{"x":1},[7]]\0body').hexdigest()[:32]
