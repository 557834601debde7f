"""Asking twice, and errors that cross from one role to the other."""

from __future__ import annotations

import threading

import pytest

from airtune.errors import PayloadError, TransportError
from airtune.transport import Idempotent, Limits, Loopback, Message
from airtune.transport.role import accepted, answer_frame


def test_a_repeated_message_is_handled_once(role):
    idempotent = Idempotent(role)
    message = Message("echo", "1", {}, b"body")
    assert idempotent.handle(message) == idempotent.handle(Message("echo", "1", {}, b"body"))
    assert role.handled == ["1"]


@pytest.mark.parametrize(
    "other",
    [Message("echo", "1", {}, b"other"), Message("echo", "1", {"x": 1}, b"body"), Message("ask", "1", {}, b"body")],
)
def test_the_same_id_with_other_content_is_refused(role, other: Message):
    idempotent = Idempotent(role)
    idempotent.handle(Message("echo", "1", {}, b"body"))
    with pytest.raises(TransportError, match="id 1 was used before with other content"):
        idempotent.handle(other)
    assert role.handled == ["1"]


def test_only_the_latest_replies_are_remembered(role):
    idempotent = Idempotent(role, remember=2)
    for id in ("1", "2", "3", "2", "1"):
        idempotent.handle(Message("echo", id, {}))
    assert role.handled == ["1", "2", "3", "1"]


def test_a_refused_message_may_be_tried_again_under_its_id(role):
    idempotent = Idempotent(role)
    for _ in range(2):
        with pytest.raises(PayloadError):
            idempotent.handle(Message("refuse", "1", {}))
    assert role.handled == ["1", "1"]


def test_a_repetition_while_the_first_is_handled_waits_for_its_reply():
    entered, go_on, calls = threading.Event(), threading.Event(), []

    class Slow:
        def handle(self, message: Message) -> Message:
            calls.append(message.id)
            entered.set()
            go_on.wait()
            return message.reply("done", {"call": len(calls)})

    idempotent, replies = Idempotent(Slow()), []
    threads = [
        threading.Thread(target=lambda: replies.append(idempotent.handle(Message("echo", "1", {})))) for _ in range(2)
    ]
    threads[0].start()
    entered.wait()
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert replies == [Message("done", "1", {"call": 1})] * 2


def test_remembering_nothing_is_refused(role):
    with pytest.raises(TransportError, match="at least 1"):
        Idempotent(role, remember=0)


def test_an_error_class_unknown_to_the_asker_arrives_as_a_transport_error():
    request = Message("ask", "1", {})
    with pytest.raises(TransportError, match=r"^found this$"):
        accepted(request, request.reply("error", {"error": "KeyboardInterrupt", "line": "found\nthis"}))


def test_an_error_without_class_or_line_still_says_something():
    request = Message("ask", "1", {})
    with pytest.raises(TransportError, match="without saying why"):
        accepted(request, request.reply("error", {}))


def test_a_special_case_of_an_error_crosses_as_the_nearest_class_of_the_tree():
    class WrongBaseError(PayloadError):
        pass

    class Role:
        def handle(self, message: Message) -> Message:
            raise WrongBaseError("first line\nsecond \ud800 line " + "x" * 5000)

    with pytest.raises(PayloadError) as caught:
        Loopback(Role()).request(Message("ask", "1", {}))
    assert type(caught.value) is PayloadError
    assert str(caught.value).startswith("first line second ? line x")
    assert len(str(caught.value)) == 2000


def test_a_reply_too_large_for_the_limits_comes_back_as_a_refusal():
    class Talker:
        def handle(self, message: Message) -> Message:
            return message.reply("done", {}, b"x" * 100)

    with pytest.raises(TransportError, match="body has 100 bytes, at most 99 allowed"):
        Loopback(Talker(), Limits(body_bytes=99)).request(Message("ask", "1", {}))


def test_bytes_that_are_no_frame_have_no_answer(role):
    with pytest.raises(TransportError):
        answer_frame(role, b"x" * 100)
    assert role.handled == []
