"""Processes that die and connections that break: the run is resumable, the edge ends, nothing half-written stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import airtune
from airtune.errors import ModelError, RunError, TransportError
from airtune.methods.airllm.building import edge_role
from airtune.records import RunFolder
from airtune.services import PeerProcess
from airtune.transport import Http, HttpServer, Idempotent, Message
from airtune.transport.role import answer_frame
from services.tiny_runs import ENVIRONMENT, GRADIENTS_BESIDE, classify_settings, config_of, options, outcome, run_here

LONG = {"adapter.steps": "300"}
"""Checkpoints after 100 and 200 steps, a second of training apart."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, str]:
    return classify_settings(tmp_path_factory.mktemp("in") / "classify")


def until(happened: Callable[[], Any], within_s: float = 120.0) -> Any:
    """Wait for something to become true, and return it."""
    give_up = time.monotonic() + within_s
    while not (found := happened()):
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.02)
    return found


def children(process: subprocess.Popen[str]) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid, parent in map(str.split, listed.splitlines()) if int(parent) == process.pid]


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip()[:1] not in ("", "Z")


@contextmanager
def started(settings: dict[str, str], out: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "airtune", "run", "airllm", "--preset", "tiny", *options(settings), "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_killed_run_leaves_no_edge_and_resumes_to_the_same_rows(settings, tmp_path):
    out = tmp_path / "run"
    with started(settings | LONG, out) as process:
        until((out / "checkpoint.safetensors").exists)
        (edge,) = children(process)
        assert alive(edge)
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: not alive(edge), within_s=30)
    assert (out / "run.lock").exists()  # nobody was left to release it
    assert not (out / "summary.json").exists()

    with pytest.raises(RunError, match=r"an empty or new folder expected; choose another --out, or --resume"):
        airtune.run("airllm", preset="tiny", overrides=settings | LONG, out=out)
    resumed = run_here(settings | LONG, out, resume=True)
    assert not (out / "run.lock").exists()
    assert outcome(resumed) == outcome(run_here(settings | LONG, tmp_path / "unbroken"))
    measured = len((out / "measurements.jsonl").read_text().splitlines())
    assert RunFolder.open(out).read_ledger().total("loss_evaluations") == measured + GRADIENTS_BESIDE


# The edge's own process


@pytest.fixture(scope="module")
def run_folder(settings, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("like") / "run"
    RunFolder.create(out, config_of(settings).as_dict()).close()
    return out


HELLO = Message("hello", "1", {})


def test_an_edge_process_that_dies_is_one_clear_line(run_folder, tmp_path):
    with PeerProcess("airllm", run_folder, tmp_path / "log") as edge:
        assert edge.request(HELLO).kind == "hello"
        edge._process.kill()
        with pytest.raises(TransportError, match=r"ended during the run \(exit status -9\); mend that and go on by"):
            edge.request(Message("hello", "2", {}))


def test_an_edge_process_that_cannot_start_says_why(tmp_path):
    with (
        PeerProcess("airllm", tmp_path, tmp_path / "log") as edge,
        pytest.raises(TransportError, match=r"ended before it was ready \(.* holds no config\.toml, so it is no run"),
    ):
        edge.request(HELLO)
    assert edge._process.returncode == 1


def test_leaving_the_block_ends_an_edge_that_was_never_asked(run_folder, tmp_path):
    with PeerProcess("airllm", run_folder, tmp_path / "log") as edge:
        assert edge._process.poll() is None
    assert edge._process.poll() is not None


# An edge that goes away in the middle of a run


class Fragile(HTTPServer):
    """An edge whose connection breaks at the n-th adapter: half of the reply, then the end of the connection."""

    def __init__(self, role: Idempotent, breaks_at: int) -> None:
        super().__init__(("127.0.0.1", 0), Half)
        self.role, self.left = role, breaks_at
        self.url = f"http://127.0.0.1:{self.server_port}"


class Half(BaseHTTPRequestHandler):
    server: Fragile

    def do_POST(self) -> None:
        frame = self.rfile.read(int(self.headers["content-length"]))
        reply = answer_frame(self.server.role, frame)
        self.server.left -= Message.parse(frame).kind == "adapter"
        self.send_response(200)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply if self.server.left > 0 else reply[: len(reply) // 2])

    def log_message(self, format: str, *arguments: object) -> None:
        """Not heard."""


def assert_unfinished(folder: Path) -> None:
    assert not (folder / "summary.json").exists()
    assert not (folder / "report.html").exists()
    assert not [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".partial"]


def test_a_reply_that_breaks_off_is_one_clear_line_and_the_run_resumes(settings, tmp_path):
    role = Idempotent(edge_role(config_of(settings)))
    server = Fragile(role, breaks_at=4)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    with_edge = settings | {"edge.url": server.url}
    try:
        with pytest.raises(TransportError, match=r"the connection to http://127\.0\.0\.1:\d+ broke \(.*\); ask again"):
            airtune.run("airllm", preset="tiny", overrides=with_edge, out=tmp_path / "run")
        assert_unfinished(tmp_path / "run")
        assert len(list((tmp_path / "run" / "payloads").iterdir())) == 3
        server.left = 1000
        resumed = airtune.run("airllm", out=tmp_path / "run", resume=True)  # the same edge: it knows these messages
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
    assert resumed["rows"] == run_here(settings, tmp_path / "unbroken")["rows"]


class Leaves:
    """A transport to an edge that is shut down after so many messages."""

    def __init__(self, server: HttpServer, client: Http, after: int) -> None:
        self._server, self._client, self._left = server, client, after

    def request(self, message: Message) -> Message:
        if self._left == 0:
            self._server.__exit__(None, None, None)
        self._left -= 1
        return self._client.request(message)


@pytest.mark.parametrize("after", [1, 4])
def test_an_edge_that_is_gone_between_messages_is_one_clear_line(settings, tmp_path, after):
    server = HttpServer(edge_role(config_of(settings)))
    server.__enter__()
    with Http(server.url) as client, pytest.raises(TransportError, match=r"no connection to .* start the role there"):
        run_here(settings, tmp_path / "run", edge=Leaves(server, client, after))
    assert_unfinished(tmp_path / "run")


def test_one_edge_serves_run_after_run(settings, tmp_path):
    """An edge that stays: the same run again, and one at another SNR whose payloads it partly knows."""
    with HttpServer(Idempotent(edge_role(config_of(settings)))) as server, Http(server.url) as edge:
        first = run_here(settings, tmp_path / "first", edge=edge)
        again = run_here(settings, tmp_path / "again", edge=edge)
        shifted = {"link.snrs_db": "15,20", "link.bandwidth_hz": first["rows"][0]["bandwidth_hz"]}
        third = run_here(settings | shifted, tmp_path / "third", edge=edge)
    assert outcome(again) == outcome(first)
    for row in third["rows"]:
        assert row["score_edge"] == row["score_cloud"]
    assert {row["payload_sha256"] for row in third["rows"]} & {row["payload_sha256"] for row in first["rows"]}


def test_a_run_that_is_refused_before_it_begins_leaves_its_folder_free(settings, tmp_path):
    out, nobody = tmp_path / "run", {"edge.url": "http://127.0.0.1:9"}
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        airtune.run("airllm", preset="tiny", overrides=settings | nobody | {"model.name": "./nowhere"}, out=out)
    assert not list(out.iterdir())
    with pytest.raises(TransportError, match=r"no connection to http://127\.0\.0\.1:9 after 2 attempts"):
        airtune.run("airllm", preset="tiny", overrides=settings | nobody, out=out)
    assert not list(out.iterdir())
    assert run_here(settings, out)["rows"]  # the same folder, once name and edge are mended
