"""What networks and servers do: two processes, kills, refusals, silence, nonsense, size."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from airtune.errors import TransportError
from airtune.transport import REQUEST_HEAD_BYTES, Http, HttpServer, Limits, Message
from airtune.transport.http import MAX_URL_BYTES

_MESSAGE = Message("echo", "1", {"n": 1}, b"body")
_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("slow_server.py")
    environment = os.environ | {"PYTHONPATH": str(_ROOT / "src")}
    started = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    with started:
        yield started
        started.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_processes_talk_and_a_repetition_is_handled_once(process: subprocess.Popen[str]):
    with Http(line_of(process), 20.0) as client:
        assert client.healthy()
        body = bytes(range(256)) * 4096  # 1 MiB
        message = Message("echo", "big", {"n": 1}, body)
        assert client.request(message) == client.request(message) == Message("done", "big", {"n": 1}, body)
        client.request(_MESSAGE)
    process.send_signal(signal.SIGINT)
    assert [line_of(process) for _ in range(3)] == ["handling big", "handling 1", "stopped"]
    assert process.wait() == 0


def test_a_server_killed_while_it_handles_is_a_clear_error(process: subprocess.Popen[str]):
    url, caught = line_of(process), []

    def ask() -> None:
        with Http(url, 60.0) as client:
            try:
                client.request(Message("sleep", "1", {}))
            except TransportError as error:
                caught.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    assert line_of(process) == "handling 1"
    process.kill()
    asking.join()
    assert len(caught) == 1
    assert caught[0].startswith(f"the connection to {url} broke")
    assert caught[0].endswith("ask again once the role is back")


def test_nobody_listening_is_tried_as_often_as_asked_then_named():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    pauses: list[float] = []
    with Http(url, attempts=3, sleep=pauses.append) as client:
        with pytest.raises(TransportError, match=f"no connection to {url} after 3 attempts .*start the role there"):
            client.request(_MESSAGE)
        assert len(pauses) == 2
        assert not client.healthy()


def test_a_role_that_starts_between_two_attempts_is_reached(role):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started: list[HttpServer] = []

    def start_instead_of_waiting(_: float) -> None:
        started.append(HttpServer(role, port=port).__enter__())

    try:
        with Http(f"http://127.0.0.1:{port}", 20.0, sleep=start_instead_of_waiting) as client:
            assert client.request(_MESSAGE).body == b"body"
    finally:
        for server in started:
            server.__exit__(None, None, None)


def test_silence_ends_after_the_timeout(canned):
    server = canned(None)
    with Http(server.url, timeout_s=0.2) as client, pytest.raises(TransportError, match="silent for too long"):
        client.request(_MESSAGE)


def reply(status: str, body: bytes, length: int | None = None) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("response", "line"),
    [
        (
            reply("200 OK", b"<html>a router's login page, as long as a frame would be at least</html>"),
            "not answer with a frame",
        ),
        (reply("200 OK", b""), "not answer with a frame"),
        (reply("500 Internal Server Error", b"oh\nno"), r"status 500, 200 expected \(oh no\); see its log"),
        (reply("307 Temporary Redirect", b""), "status 307, 200 expected; see"),
        (reply("413 Content Too Large", b""), r"refused \d+ bytes as too large \(413\); send less"),
        (reply("200 OK", _MESSAGE.frame()[:60], len(_MESSAGE.frame())), "connection to .* broke"),
        (reply("200 OK", _MESSAGE.frame()[:-1] + b"\0"), "damaged on the way"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "connection to .* broke"),
        (b"", "connection to .* broke"),
    ],
)
def test_whatever_else_answers_is_one_clear_line_with_the_url(canned, response: bytes, line: str):
    server = canned(response)
    with Http(server.url, 20.0) as client, pytest.raises(TransportError, match=line) as caught:
        client.request(_MESSAGE)
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_answer_larger_than_the_limits_is_not_kept(canned):
    server = canned(reply("200 OK", b"x" * 10_000))
    limits = Limits(header_bytes=200, body_bytes=100)
    with Http(server.url, 20.0, limits=limits) as client, pytest.raises(TransportError, match="more than 350 bytes"):
        client.request(_MESSAGE)


def raw(url: str, *pieces: bytes) -> bytes:
    """Send bytes as they are and read all that comes back."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20.0) as connection:
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        with suppress(ConnectionResetError):  # a server that hangs up on unread bytes resets after its answer
            while chunk := connection.recv(65536):
                received += chunk
    return received


_LIMITS = Limits(header_bytes=100, body_bytes=50)  # frames of at most 200 bytes


def test_an_announced_size_beyond_the_bound_is_refused_before_the_body(role):
    with HttpServer(role, limits=_LIMITS) as server:
        for length in ("201", "9" * 30):
            answer = raw(server.url, f"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
            assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))
            assert b"at most 200 bytes" in answer or length != "201"
    assert role.handled == []


def test_an_unannounced_body_is_bounded_while_it_arrives(role):
    head = b"POST /message HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"96\r\n" + b"x" * 150 + b"\r\n"
    with HttpServer(role, limits=_LIMITS) as server:
        answer = raw(server.url, head, piece, piece)  # 300 of 200 bytes, and no end in sight
    assert answer.startswith(b"HTTP/1.1 413")
    assert role.handled == []


def test_a_size_at_the_bound_is_read_and_judged(role):
    with HttpServer(role, limits=_LIMITS) as server:
        head = b"POST /message HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 200\r\n\r\n"
        answer = raw(server.url, head, b"x" * 200)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"these bytes are not a message" in answer


def test_a_client_with_wider_limits_is_told_that_it_sends_too_much(role):
    with HttpServer(role, limits=_LIMITS) as server, Http(server.url, 20.0) as client:
        with pytest.raises(TransportError, match=r"413|broke"):
            client.request(Message("echo", "1", {}, b"x" * 1000))
        assert client.request(_MESSAGE).body == b"body"


def test_requests_that_never_end_fill_a_bounded_share_of_memory(role):
    """Two of 190 bytes leave 20 of the 2 x 200: no room for another until one of them hangs up."""
    head = b"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n" + b"x" * 190
    with HttpServer(role, limits=_LIMITS) as server, Http(server.url, 20.0) as client:
        address = "127.0.0.1", int(server.url.rpartition(":")[2])
        with socket.create_connection(address) as one, socket.create_connection(address) as other:
            for held in (one, other):
                held.sendall(head)
            refusal = ""
            while not refusal:  # until both have arrived
                try:
                    client.request(_MESSAGE)
                except TransportError as error:
                    refusal = str(error)
            assert "answered status 503, 200 expected (other requests fill the memory" in refusal
        answer = None
        while answer is None:  # until it is seen that they hung up
            with suppress(TransportError):
                answer = client.request(_MESSAGE)
        assert answer.body == b"body"


def test_a_request_given_up_half_way_does_not_harm_the_server(role):
    with HttpServer(role) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        with Http(server.url, 20.0) as client:
            assert client.request(_MESSAGE).body == b"body"
    assert role.handled == ["1"]


def test_a_role_is_never_entered_twice_at_once():
    inside, most, guard = [0], [0], threading.Lock()

    class Counting:
        def handle(self, message: Message) -> Message:
            with guard:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            threading.Event().wait(0.01)
            with guard:
                inside[0] -= 1
            return message.reply("done", {})

    with HttpServer(Counting()) as server, Http(server.url, 20.0) as client:
        ask = [threading.Thread(target=client.request, args=(Message("echo", str(n), {}),)) for n in range(8)]
        for thread in ask:
            thread.start()
        for thread in ask:
            thread.join()
    assert most == [1]


def test_a_taken_port_is_named(role):
    with HttpServer(role) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(TransportError, match=f"cannot listen on 127.0.0.1 port {port}"):
            HttpServer(role, port=port)


def test_the_head_of_a_request_is_within_the_fixed_charge(canned):
    server = canned(reply("200 OK", _MESSAGE.frame()))
    longest = server.url + "/" + "p" * (MAX_URL_BYTES - len(server.url) - 1)
    with Http(longest, 20.0) as client:
        client.request(_MESSAGE)
    assert b"Content-Length: 95\r\n" in server.head
    assert 150 < len(server.head) - 2 + len(str(2**63)) <= REQUEST_HEAD_BYTES  # with the longest length there can be
    assert len(server.received) == len(server.head) + len(_MESSAGE.frame())


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:80",
        "ftp://host",
        "http://",
        "http://user:secret@host",
        "http://host?x=1",
        "http://" + "h" * 100,
        "http://[::",
    ],
)
def test_an_unusable_url_is_refused_at_once(url: str):
    with pytest.raises(TransportError, match="url"):
        Http(url)


@pytest.mark.parametrize("wrong", [{"timeout_s": 0.0}, {"connect_timeout_s": -1.0}, {"attempts": 0}])
def test_unusable_settings_are_refused(wrong: dict):
    with pytest.raises(TransportError, match="choose timeouts above 0"):
        Http("http://127.0.0.1:1", **wrong)


def test_a_url_counts_as_it_is_sent():
    Http("http://h/" + "p" * 91).close()
    with pytest.raises(TransportError, match="url has 101 bytes"):
        Http("http://h/" + "p" * 92)
    with pytest.raises(TransportError, match="url has 102 bytes"):
        Http("http://h/" + "p" * 87 + "ä")  # sent as %C3%A4


def test_a_proxy_in_the_environment_is_not_used_for_this_machine(role, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with HttpServer(role) as server, Http(server.url, 20.0) as client:
        assert client.request(_MESSAGE).kind == "done"
