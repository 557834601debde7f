"""One suite over every transport: they carry, refuse and fail alike."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from airtune.errors import PayloadError, TransportError
from airtune.transport import Http, HttpServer, Limits, Loopback, Message, Transport

_LIMITS = Limits(header_bytes=4096, body_bytes=100_000)


@pytest.fixture(params=["loopback", "http"])
def transport(request: pytest.FixtureRequest, role) -> Iterator[Transport]:
    if request.param == "loopback":
        yield Loopback(role, _LIMITS)
    else:
        with HttpServer(role, limits=_LIMITS) as server, Http(server.url, 20.0, limits=_LIMITS) as client:
            yield client


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_content_comes_back_unchanged(transport: Transport, size: int):
    message = Message("echo", "id-1", {"ranks": (1, 2), "text": "ä\n\0", "none": None}, bytes(range(256)) * 391)
    message = Message(message.kind, message.id, message.header, message.body[:size])
    assert transport.request(message) == Message("done", "id-1", message.header, message.body)


def test_a_refusal_keeps_its_class_and_line(transport: Transport):
    with pytest.raises(PayloadError, match=r"^payload is for another base model; send one for this base$"):
        transport.request(Message("refuse", "1", {}))


def test_a_crash_shows_nothing_of_the_inside_but_is_logged(transport: Transport, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR), pytest.raises(TransportError) as caught:
        transport.request(Message("crash", "1", {}))
    assert str(caught.value) == "the other role failed on crash message 1; see its log for the cause"
    assert "secret /path/inside the role" in caplog.text


def test_a_reply_to_another_message_is_refused(transport: Transport):
    with pytest.raises(TransportError, match="id someone-else, 1 expected"):
        transport.request(Message("confuse", "1", {}))


def test_a_message_over_the_limits_is_refused_before_it_is_sent(transport: Transport, role):
    with pytest.raises(TransportError, match="body has 100001 bytes, at most 100000"):
        transport.request(Message("echo", "1", {}, b"x" * 100_001))
    assert role.handled == []


def test_a_role_is_usable_after_it_failed(transport: Transport, role):
    for kind in ("crash", "refuse"):
        with pytest.raises((TransportError, PayloadError)):
            transport.request(Message(kind, "1", {}))
    assert transport.request(Message("echo", "2", {})).kind == "done"
    assert role.handled == ["1", "1", "2"]
