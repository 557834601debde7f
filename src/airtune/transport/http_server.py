"""Put a role behind a socket: ``POST /message`` takes a frame and answers one, ``GET /health`` says that it is there.

One worker, one message at a time; the size of a request is bounded while it arrives. What a message asks is the role's
business. The web libraries load when a server starts, so that a client alone does not pay for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, final

from airtune.errors import TransportError
from airtune.transport.message import DEFAULT_LIMITS, Limits
from airtune.transport.role import Role, answer_frame

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request

_SILENCE_S: Final = 60.0
"""Longest wait for the next piece of a request."""
_GRACE_S: Final = 5
"""Longest wait for answers in progress when the server stops."""
_START_S: Final = 30.0


_FRAMES_HELD: Final = 2
"""Largest frames that all requests together may fill memory with, while they arrive, wait and are answered."""


class _TooLarge(Exception):
    pass


class _NoRoom(Exception):
    pass


class _Room:
    """Bytes that requests may still fill. Used by the event loop's thread alone."""

    def __init__(self, most_bytes: int) -> None:
        self.left = most_bytes

    def take(self, size: int) -> None:
        if size > self.left:
            raise _NoRoom
        self.left -= size


@final
class HttpServer:
    """A role behind a socket for as long as the ``with`` block lasts, served by a thread of this process.

    Args:
        role: Answers the messages; it is called from one thread at a time.
        host: Address to listen on; the default is reachable from this machine only.
        port: 0 picks a free one; `url` names it.
        limits: The largest frames accepted and answered.

    Raises:
        TransportError: the address cannot be listened on.

    Example:
        >>> with HttpServer(role) as server, Http(server.url) as client:  # doctest: +SKIP
        ...     reply = client.request(message)
    """

    def __init__(self, role: Role, host: str = "127.0.0.1", port: int = 0, limits: Limits = DEFAULT_LIMITS) -> None:
        self._socket = _listen(host, port)
        self.url = _url(self._socket)
        self._server = _server(role, limits)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> HttpServer:
        self._thread.start()
        give_up = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > give_up:
                self._socket.close()
                raise TransportError(f"the server at {self.url} did not start; see its log")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def serve(
    role: Role,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Answer messages until interrupted (SIGINT returns, SIGTERM ends the process, both after answers in progress).

    Args:
        role: As in `HttpServer`.
        host: As in `HttpServer`.
        port: As in `HttpServer`.
        on_ready: Called with the URL as soon as connections are accepted.
        limits: As in `HttpServer`.

    Raises:
        TransportError: the address cannot be listened on.
    """
    with contextlib.closing(_listen(host, port)) as listening:
        server = _server(role, limits)
        if on_ready is not None:
            on_ready(_url(listening))
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        line = f"cannot listen on {host} port {port} ({error}); choose an address of this machine and a free port, or 0"
        raise TransportError(line) from None


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(role: Role, limits: Limits) -> uvicorn.Server:
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            _application(role, limits),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )


def _application(role: Role, limits: Limits) -> Starlette:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    one_at_a_time, room = threading.Lock(), _Room(_FRAMES_HELD * limits.frame_bytes)

    def handle(frame: bytes) -> bytes:
        with one_at_a_time:
            return answer_frame(role, frame, limits)

    async def message(request: Request) -> Response:
        content = bytearray()
        try:
            await _receive(request, limits.frame_bytes, content, room)
            return Response(await run_in_threadpool(handle, bytes(content)), media_type="application/octet-stream")
        except _NoRoom:
            line = "other requests fill the memory for them; ask again"
            return PlainTextResponse(line, 503, {"Connection": "close"})
        except _TooLarge:
            line = f"a frame has at most {limits.frame_bytes} bytes here"
            return PlainTextResponse(line, 413, {"Connection": "close"})
        except TimeoutError:
            return PlainTextResponse(f"no more bytes for {_SILENCE_S} s", 408, {"Connection": "close"})
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is left to read it
        except TransportError as error:
            return PlainTextResponse(str(error), 400)
        finally:
            room.left += len(content)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/message", message, methods=["POST"]), Route("/health", health, methods=["GET"])])


async def _receive(request: Request, most_bytes: int, content: bytearray, room: _Room) -> None:
    """Read a request's body into `content`, giving up as soon as it is announced or found to be larger than allowed."""
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > most_bytes:
        raise _TooLarge
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(_SILENCE_S) as patience:
        async for piece in request.stream():
            room.take(len(piece))
            content += piece
            if len(content) > most_bytes:
                raise _TooLarge
            patience.reschedule(clock() + _SILENCE_S)
