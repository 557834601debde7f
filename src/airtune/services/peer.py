"""A run's other role as a service of its own, and as a child process of the run on this machine.

The other role of a method that runs in the cloud is its edge; of one that runs on a device, its cloud.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, final

from airtune.errors import TransportError
from airtune.services.catalog import method_entry
from airtune.transport import Http, Message, serve

READY: Final = " ready at "
"""What a serving role prints between its name and its address."""
START_TIMEOUT_S: Final = 300.0
REQUEST_TIMEOUT_S: Final = 600.0
"""Longest wait for an answer: an edge may be scoring on a slow device, a cloud training an epoch."""


def serve_peer(
    method: str,
    config: Any,
    folder: Path,
    *,
    host: str,
    port: int,
    say: Callable[[str], None],
    until_eof: bool = False,
) -> None:
    """Load what the role needs, then answer messages until interrupted.

    Args:
        folder: Where a role keeps what has to survive it, if it does.
        until_eof: Also stop when standard input closes, so that no role outlives the process that started it.
    """
    if until_eof:
        threading.Thread(target=_stop_at_eof, daemon=True).start()
    entry = method_entry(method)
    role = entry.peer_role(config, folder)
    serve(role, host, port, on_ready=lambda url: say(entry.peer + READY + url))


def _stop_at_eof() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@final
class PeerProcess:
    """A transport to a run's other role in its own process here, there for as long as the `with` block lasts.

    It loads while the caller goes on; the first request waits until it is ready. It ends with the process that started
    it, however that one ends.

    Args:
        run_folder: The run's folder; the role reads model, task and data from its recorded settings.
        log: Where the role's own messages go.
    """

    def __init__(self, method: str, run_folder: Path, log: Path) -> None:
        options = ["--like", str(run_folder), "--port", "0", "--until-eof"]
        self._peer = method_entry(method).peer
        self._command = [sys.executable, "-m", "airtune", self._peer, method, *options]
        self._log = log
        self._client: Http | None = None

    def request(self, message: Message) -> Message:
        """Ask the role; see `Transport.request`.

        Raises:
            TransportError: also where the process has ended, or is not ready after `START_TIMEOUT_S`.
        """
        if self._client is None:
            self._client = Http(self._ready_url(), timeout_s=REQUEST_TIMEOUT_S)
        try:
            return self._client.request(message)
        except TransportError:
            if not self._ended(within_s=1.0):
                raise
            line = (
                f"the {self._peer} process ended during the run ({self._last_words()}); mend that and go on by --resume"
            )
            raise TransportError(line) from None

    def __enter__(self) -> PeerProcess:
        with open(self._log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()
        self._process.terminate()
        if not self._ended(within_s=15.0):
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _ready_url(self) -> str:
        assert self._process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                if line.startswith(self._peer + READY):
                    return line.removeprefix(self._peer + READY).strip()
        finally:
            watchdog.cancel()
        self._process.wait()
        raise TransportError(
            f"the {self._peer} process ended before it was ready ({self._last_words()}); mend that and run again"
        )

    def _ended(self, within_s: float) -> bool:
        try:
            self._process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1].removeprefix("airtune: ") if said else f"exit status {self._process.returncode}"
