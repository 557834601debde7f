"""The edge as a service of its own, and as a child process of a run on this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from airtune.errors import TransportError
from airtune.services.catalog import method_entry
from airtune.transport import Idempotent, serve

READY: Final = "edge ready at "
"""What a serving edge prints before its address."""
START_TIMEOUT_S: Final = 300.0


def serve_edge(method: str, config: Any, *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Load the edge's model and data, then answer messages until interrupted."""
    role = Idempotent(method_entry(method).edge_role(config))
    serve(role, host, port, on_ready=lambda url: say(READY + url))


class EdgeProcess:
    """An edge in its own process on this machine, for as long as the `with` block lasts.

    Args:
        run_folder: The run's folder; the edge reads model, task and data from its recorded settings.
        log: Where the edge's own messages go.

    Raises:
        TransportError: the process ends, or says nothing for `START_TIMEOUT_S`, before it is ready.
    """

    def __init__(self, method: str, run_folder: Path, log: Path) -> None:
        self._command = [sys.executable, "-m", "airtune", "edge", method, "--like", str(run_folder), "--port", "0"]
        self._log_path = log
        self.url = ""

    def __enter__(self) -> EdgeProcess:
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self._process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                if line.startswith(READY):
                    self.url = line.removeprefix(READY).strip()
                    return self
        finally:
            watchdog.cancel()
        self._stop()
        self._log.seek(0)
        last = (self._log.read().strip().splitlines() or ["it printed nothing"])[-1]
        self._log.close()
        raise TransportError(f"the edge process ended before it was ready ({last}); mend that and run again")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._log.seek(0)
        self._log_path.write_text(self._log.read(), encoding="utf-8")
        self._log.close()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
