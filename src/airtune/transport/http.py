"""Reach a role behind a socket: one POST of a frame, one frame back.

The client knows frames, limits and what can go wrong on a network; it knows neither links nor what a message asks. The
listening side is `http_server`.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, final

import httpx2

from airtune.errors import RefusedError, TransportError
from airtune.transport.message import DEFAULT_LIMITS, Limits, Message
from airtune.transport.role import accepted

MAX_URL_BYTES: Final = 100
"""Longest address of a role; it keeps the request head under `over_the_air.REQUEST_HEAD_BYTES`."""
_RETRY_PAUSE_S: Final = 0.2
_KEEP_ALIVE_S: Final = 2.0  # shorter than the server's 5 s, so a connection is not reused while it is being closed
_HEADERS: Final = {
    "Accept-Encoding": "identity",  # a frame's size is bounded as it arrives, so nothing may expand afterwards
    "User-Agent": "airtune",
    "Content-Type": "application/octet-stream",
}


@final
class Http:
    """A role at a URL such as ``http://127.0.0.1:8765``. Close it, or use it as a context manager.

    Work is never sent twice: only a connection that was not established is tried again. Proxies named in the
    environment are used for other machines, never for loopback addresses.

    Args:
        url: ``http`` or ``https``, without credentials or query, at most `MAX_URL_BYTES` bytes.
        timeout_s: Longest silence while sending or while waiting for the reply; a role that trains needs more.
        connect_timeout_s: Longest wait for a connection.
        attempts: How often a connection is tried.
        limits: The largest frames sent and accepted.
        sleep: Waits between attempts.

    Raises:
        TransportError: the URL, a timeout or the number of attempts is not usable.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 5.0,
        *,
        attempts: int = 2,
        limits: Limits = DEFAULT_LIMITS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not (timeout_s > 0 and connect_timeout_s > 0 and attempts >= 1):
            raise TransportError(
                f"timeout_s is {timeout_s}, connect_timeout_s {connect_timeout_s}, attempts {attempts};"
                " choose timeouts above 0 and at least 1 attempt"
            )
        self.url = url.rstrip("/")
        self._attempts, self._limits, self._sleep = attempts, limits, sleep
        self._client = httpx2.Client(
            headers=_HEADERS,
            timeout=httpx2.Timeout(timeout_s, connect=connect_timeout_s),
            limits=httpx2.Limits(keepalive_expiry=_KEEP_ALIVE_S),
            trust_env=not _is_loopback(_checked(self.url).host),
        )
        for name in ("Accept", "Connection"):  # their values are what HTTP/1.1 assumes without them
            del self._client.headers[name]

    def request(self, message: Message) -> Message:
        """Ask the role; see `Transport.request`."""
        status, content = self._exchange("POST", "/message", message.frame(self._limits))
        if status == 413:
            raise RefusedError(f"{self.url} refused {message.frame_length()} bytes as too large (413); send less")
        if status != 200:
            raise TransportError(f"{self.url} answered status {status}, 200 expected{_quoted(content)}; see its log")
        try:
            reply = Message.parse(content, self._limits)
        except TransportError as error:
            raise TransportError(
                f"{self.url} did not answer with a frame: {error}; is a role listening there?"
            ) from None
        return accepted(message, reply)

    def healthy(self) -> bool:
        """Whether a role answers at the URL now."""
        try:
            return self._exchange("GET", "/health", b"")[0] == 200
        except TransportError:
            return False

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def __enter__(self) -> Http:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, method: str, path: str, content: bytes) -> tuple[int, bytes]:
        for attempt in range(1, self._attempts + 1):
            try:
                with self._client.stream(method, self.url + path, content=content) as response:
                    return response.status_code, self._read(response)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                if attempt == self._attempts:
                    line = f"no connection to {self.url} after {attempt} attempts ({_why(error)}); start the role there"
                    raise TransportError(line) from None
                self._sleep(_RETRY_PAUSE_S)
            except httpx2.TimeoutException as error:
                line = f"{self.url} was silent for too long ({_why(error)}); raise timeout_s or see what the role does"
                raise TransportError(line) from None
            except httpx2.HTTPError as error:
                line = f"the connection to {self.url} broke ({_why(error)}); ask again once the role is back"
                raise TransportError(line) from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _read(self, response: httpx2.Response) -> bytes:
        content = bytearray()
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > self._limits.frame_bytes:
                most = self._limits.frame_bytes
                raise TransportError(f"{self.url} answered more than {most} bytes; raise the limits or ask for less")
        return bytes(content)


def _checked(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise TransportError(f"url {url!r:.120} is not a URL ({error}); give one like http://127.0.0.1:8765") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.query or parsed.fragment:
        raise TransportError(f"url is {url!r:.120}; give http:// or https://, a host, no credentials and no query")
    length = len(parsed.scheme) + len("://") + len(parsed.netloc) + len(parsed.raw_path)  # as sent, escapes included
    if length > MAX_URL_BYTES:
        raise TransportError(f"url has {length} bytes; give one of at most {MAX_URL_BYTES}")
    return parsed


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _why(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _quoted(content: bytes) -> str:
    text = " ".join(content[:200].decode(errors="replace").split())
    return f" ({text})" if text.isprintable() and text else ""
