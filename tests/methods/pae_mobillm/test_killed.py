"""Device and server as two processes, killed where it hurts: what the server holds and learned is as if nothing was.

A middleman passes every message on and kills one of the two at a message that a test names, so that no test guesses
by the clock how far a process has come.
"""

from __future__ import annotations

import http.client
import json
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest

from airtune.methods.pae_mobillm.building import server_role
from airtune.methods.pae_mobillm.config import load_config
from airtune.methods.pae_mobillm.method import run
from airtune.methods.pae_mobillm.server.binding import Binding
from airtune.methods.pae_mobillm.server.cache import ActivationCache
from airtune.methods.pae_mobillm.server.checkpoint import load_checkpoint
from airtune.records import RunFolder, Silent
from airtune.transport import Loopback, Message
from services.tiny_runs import ENVIRONMENT, classify_settings, options

SAMPLES, BATCH, SAMPLE_BYTES = 96, 8, 8 + 2 * 16 * 2 + 2 * 4
"""Of the preset `tiny` on a BERT of 2 layers of 16 numbers: an id, hidden states at 16 bits, differences."""
EPOCHS = 8
STEPS = {"device.batch_size": str(BATCH), "side.batch_size": "1", "side.epochs": str(EPOCHS)}
"""Twelve messages, and epochs of 96 steps."""
TOLD = {"report.probe": "true", "report.attacks": "true"}
"""All that a run in one process tells; a device of its own would leave it out."""
WITHIN_S = 240.0
"""Nothing here takes as long; a test that waits for what never happens fails after it."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return classify_settings(tmp_path_factory.mktemp("killed") / "classify") | STEPS | TOLD


@pytest.fixture(scope="module")
def undisturbed(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both sides in this process; its store is in its folder."""
    out, config = tmp_path_factory.mktemp("undisturbed") / "run", load_config("tiny", settings)
    with RunFolder.create(out, config.as_dict()) as folder, server_role(config, out) as server:
        run(config, folder, Loopback(server), Silent())
    return out


@dataclass
class Blow:
    """Kill at the n-th message of a kind, from now on: in the middle of it, before its answer, or at work on it."""

    victim: subprocess.Popen[str]
    kind: str
    left: int
    when: Literal["half of it came", "before the answer", "at work"]


class Middleman(ThreadingHTTPServer):
    """Where devices of a test find their server."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.port_behind = 0
        self.serving = threading.Event()
        self.blow: Blow | None = None
        self.passed: list[Message] = []
        """What reached the server whole."""

    def handle_error(self, *_: object) -> None:
        """A device that was killed has hung up; a test says whether that was asked for."""


class Passing(BaseHTTPRequestHandler):
    server: Middleman

    def do_POST(self) -> None:
        frame = self.rfile.read(int(self.headers["content-length"]))
        message, blow = Message.parse(frame), self.server.blow
        if blow is not None and message.kind == blow.kind:
            blow.left -= 1
            if blow.left <= 0:
                answer = self._strike(blow, message, frame)
                if answer is None:
                    return self._hang_up()
                return self._answer(answer)
        return self._pass_on(message, frame)

    def _pass_on(self, message: Message, frame: bytes) -> None:
        assert self.server.serving.wait(WITHIN_S)
        self.server.passed.append(message)
        self._answer(self._reply(self._asked(frame)))

    def _strike(self, blow: Blow, message: Message, frame: bytes) -> bytes | None:
        """Kill, and have no answer; or one where the server was done before it could be killed."""
        if blow.when == "half of it came":
            with socket.create_connection(("127.0.0.1", self.server.port_behind)) as to_server:
                head = f"POST /message HTTP/1.1\r\nhost: here\r\ncontent-length: {len(frame)}\r\n\r\n"
                to_server.sendall(head.encode() + frame[: len(frame) // 2])
        else:
            self.server.passed.append(message)
            connection = self._asked(frame)
            if blow.when == "before the answer":
                self._reply(connection)
            elif not self._at_work(connection):
                return self._reply(connection)
            else:
                self.server.serving.clear()
        self.server.blow = None
        blow.victim.kill()
        blow.victim.wait()
        return None

    def _asked(self, frame: bytes) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port_behind, timeout=WITHIN_S)
        connection.request("POST", "/message", frame)
        return connection

    def _at_work(self, connection: http.client.HTTPConnection) -> bool:
        """Whether the server, which answers a second question meanwhile, has no answer yet to the first."""
        second = http.client.HTTPConnection("127.0.0.1", self.server.port_behind, timeout=WITHIN_S)
        second.request("GET", "/health")
        assert second.getresponse().status == 200
        return not select.select([connection.sock], [], [], 0)[0]

    def _reply(self, connection: http.client.HTTPConnection) -> bytes:
        response = connection.getresponse()
        assert response.status == 200
        return response.read()

    def _answer(self, reply: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def _hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Not heard."""


@pytest.fixture
def middleman() -> Iterator[Middleman]:
    with Middleman() as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@contextmanager
def process(log: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    with open(log, "a") as heard:
        started = subprocess.Popen(
            [sys.executable, "-m", "airtune", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=heard,
            text=True,
            env=ENVIRONMENT,
        )
    with started:
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def cloud(middleman: Middleman, store: Path, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A server that is ready; the middleman knows it."""
    arguments = "cloud", "pae_mobillm", "--preset", "tiny", "--store", store, "--port", port, "--until-eof"
    with process(store.with_suffix(".log"), *arguments) as started:
        assert started.stdout is not None
        ready = re.fullmatch(r"cloud ready at http://127\.0\.0\.1:(\d+)\n", started.stdout.readline())
        assert ready is not None, store.with_suffix(".log").read_text()
        middleman.port_behind = int(ready[1])
        yield started


@contextmanager
def device(middleman: Middleman, out: Path, settings: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A new run, or one that goes on where its folder is there."""
    begun = "--resume" if (out / "config.toml").exists() else "--preset=tiny"
    given = [] if begun == "--resume" else ["--cloud", middleman.url, *options(settings)]
    with process(out.with_suffix(".log"), "edge", "pae_mobillm", begun, "--out", out, *given) as started:
        yield started


def ended(started: subprocess.Popen[str]) -> int:
    return started.wait(WITHIN_S)


def closed(server: subprocess.Popen[str]) -> None:
    """End a server that still runs, as the end of its standard input does."""
    assert server.poll() is None
    assert server.stdin is not None
    server.stdin.close()
    server.wait(WITHIN_S)


def cached(store: Path) -> dict[int, tuple[bytes, bytes]]:
    """Every sample of a store that no server uses: hidden states and differences."""
    binding = Binding.load(store)
    assert binding is not None
    with ActivationCache(store / "cache.db", binding.identity) as cache:
        found = cache.rows(cache.ids())
    return {one: (found.activations[at].tobytes(), found.differences[at].tobytes()) for one, at in found.rows_of()}


def trained(store: Path) -> tuple[dict[str, bytes], tuple[Any, ...]]:
    """Weights and moments of a store, bit by bit, and the history of its epochs."""
    checkpoint = load_checkpoint(store)
    assert checkpoint is not None
    tensors, history = checkpoint
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, history


def told(out: Path) -> dict[str, Any]:
    """What a run found, without its clock and without what an interruption adds to."""
    summary = json.loads((out / "summary.json").read_text())
    return {key: summary[key] for key in ("identity", "losses", "scores", "leaks", "costs")}


def assert_same(out: Path, store: Path, undisturbed: Path) -> None:
    assert cached(store) == cached(undisturbed / "server")
    assert trained(store) == trained(undisturbed / "server")
    assert (out / "side.safetensors").read_bytes() == (undisturbed / "side.safetensors").read_bytes()
    assert told(out) == told(undisturbed)


def test_a_device_killed_in_mid_upload_goes_on_where_it_was(settings, undisturbed, middleman, tmp_path):
    """In its fourth message, half of which came; then in its sixth, which came and was never answered."""
    out, store = tmp_path / "run", tmp_path / "store"
    with cloud(middleman, store) as server:
        middleman.serving.set()
        for left, when in ((4, "half of it came"), (3, "before the answer")):
            with device(middleman, out, settings) as killed:
                middleman.blow = Blow(killed, "samples", left, when)
                assert ended(killed) == -signal.SIGKILL
            assert not (out / "summary.json").exists()
        with device(middleman, out, settings) as last:
            assert ended(last) == 0, out.with_suffix(".log").read_text()
        closed(server)
    assert_same(out, store / "server", undisturbed)

    bodies = [message.body for message in middleman.passed if message.kind == "samples"]
    assert len(bodies) == SAMPLES // BATCH  # three, then three, then six: what came whole was not sent again
    assert sum(map(len, bodies)) == SAMPLES * SAMPLE_BYTES
    sent = json.loads((out / "summary.json").read_text())["sent"]
    assert (sent["held"], sent["samples"], sent["repeats"]) == (6 * BATCH, 6 * BATCH, 0)
    booked = [row for row in RunFolder.open(out).read_ledger().rows() if row["what"] == "samples"]
    assert sum(row["amount"] for row in booked if row["quantity"] == "messages") == SAMPLES // BATCH + 1


def test_a_server_killed_in_mid_epoch_resumes_to_the_same_bits(settings, undisturbed, middleman, tmp_path):
    """The device waits until it is back, is killed itself two epochs later, and goes on too."""
    out, store = tmp_path / "run", tmp_path / "store"
    with cloud(middleman, store) as server, device(middleman, out, settings) as waiting:
        middleman.blow = Blow(server, "train", 2, "at work")
        middleman.serving.set()
        assert ended(server) == -signal.SIGKILL
        assert waiting.poll() is None
        assert cached(store / "server") == cached(undisturbed / "server")
        before = trained(store / "server")[1]
        assert 1 <= len(before) < EPOCHS

        with cloud(middleman, store, middleman.port_behind) as again:
            middleman.blow = Blow(waiting, "train", 3, "before the answer")
            middleman.serving.set()
            assert ended(waiting) == -signal.SIGKILL
            assert not (out / "summary.json").exists()
            middleman.passed.clear()
            with device(middleman, out, settings) as last:
                assert ended(last) == 0, out.with_suffix(".log").read_text()
            closed(again)
    assert {message.kind for message in middleman.passed} == {"open", "have", "train", "side"}
    assert trained(store / "server")[1][: len(before)] == before
    assert_same(out, store / "server", undisturbed)
