"""Roles that answer in known ways, and servers that misbehave in known ways."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from airtune.errors import PayloadError
from airtune.transport import Message


@dataclass
class Scripted:
    """Answers ``echo`` with the same content, refuses ``refuse``, fails on ``crash``, is confused on ``confuse``."""

    handled: list[str] = field(default_factory=list)

    def handle(self, message: Message) -> Message:
        self.handled.append(message.id)
        match message.kind:
            case "refuse":
                raise PayloadError("payload is for another base model; send one for this base")
            case "crash":
                raise ValueError("secret /path/inside the role")
            case "confuse":
                return Message("done", "someone-else", {})
        return message.reply("done", message.header, message.body)


@pytest.fixture
def role() -> Scripted:
    return Scripted()


class Canned:
    """A server that reads one request, keeps its bytes, sends fixed bytes and hangs up (or stays silent)."""

    def __init__(self, response: bytes | None) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.received = b""
        self._done = threading.Event()
        self._response = response
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            connection, _ = self._listening.accept()
            with connection:
                while b"\r\n\r\n" not in self.received:
                    self.received += connection.recv(65536)
                head = self.received.partition(b"\r\n\r\n")[0].lower()
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                while len(self.received) < len(self.head) + length:
                    self.received += connection.recv(65536)
                if self._response is None:
                    self._done.wait()
                else:
                    connection.sendall(self._response)

    @property
    def head(self) -> bytes:
        """The request's head with the empty line that ends it."""
        return self.received.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def stop(self) -> None:
        self._done.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def canned() -> Iterator[Callable[[bytes | None], Canned]]:
    servers: list[Canned] = []

    def start(response: bytes | None) -> Canned:
        servers.append(Canned(response))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
