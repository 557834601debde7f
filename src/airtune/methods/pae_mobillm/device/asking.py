"""How a device asks its server: each request repeated until it arrives, ids in parts.

Knows messages and ids; not models, nor what is in a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

import numpy as np

from airtune.errors import RefusedError, TransportError
from airtune.methods.pae_mobillm.wire import ID_BYTES, IDS_AT_ONCE
from airtune.transport import JSON, Message, Transport, message_id

ATTEMPTS: Final = 5
"""How often one request is tried."""
PAUSE_S: Final = 0.2
"""Before the first repetition; twice as long before each further one."""


@final
class Asking:
    """One process of a device at its end of the link.

    Args:
        transport: To the server.
        key: Of the identity.
        name: The device's.
        session: Tells this process's requests from those before a restart.
        sleep: Waits before a repetition.
    """

    def __init__(
        self, transport: Transport, key: str, *, name: str, session: str, sleep: Callable[[float], None]
    ) -> None:
        self._transport, self._key, self.name, self._session, self._sleep = transport, key, name, session, sleep
        self._asked = 0
        self.repeats = 0
        """Requests that were sent once more."""
        self.forgets = 0
        """Requests to forget that the server has had, as far as this device knows."""

    def ask(self, kind: str, header: Mapping[str, JSON], body: bytes = b"") -> Message:
        """Ask once; a failed request is repeated under its id, a new question never gets an old one's answer."""
        self._asked += 1
        message = Message(kind, message_id(kind, header, body, self.name, self._session, self._asked), header, body)
        for attempt in range(ATTEMPTS - 1):
            try:
                return self._answered(message)
            except RefusedError:
                raise
            except TransportError:
                self.repeats += 1
                self._sleep(PAUSE_S * 2**attempt)
        return self._answered(message)

    def standing(self, ids: np.ndarray, *, again: int = 0) -> np.ndarray:
        """Which ids the server holds, and which it was told to forget and does not hold, bool ``(2, n)``.

        Asked in the order of the ids, which are hashes: the order of what they stand for, its labels say, does not
        cross.

        Args:
            again: Requests to forget, counted from the server's first, that are not to count.

        Raises:
            TransportError: an answer of another length.
        """
        header: dict[str, JSON] = {"key": self._key, "again": again} if again else {"key": self._key}
        order, found = np.argsort(ids), [np.zeros((2, 0), bool)]
        for asked in _parts(ids[order]):
            answer = self.ask("have", header, _body(asked)).body
            if len(answer) != (expected := 2 * ((len(asked) + 7) // 8)):
                raise TransportError(
                    f"the server answered {len(asked)} ids with {len(answer)} bytes, {expected} expected; "
                    "run the same airtune on both sides"
                )
            bits = np.frombuffer(answer, np.uint8).reshape(2, -1)
            found.append(np.unpackbits(bits, axis=1, count=len(asked)).astype(bool))
        standing = np.empty((2, len(ids)), bool)
        standing[:, order] = np.concatenate(found, axis=1)
        return standing

    def forget(self, ids: np.ndarray) -> int:
        """Have ids forgotten, asked in the order of the ids; how many of them the server held."""
        answers = [self.ask("forget", {"key": self._key}, _body(asked)).header for asked in _parts(np.sort(ids))]
        return sum(whole_number(answer, "forgotten") for answer in answers)

    def forget_all(self) -> int:
        """Have all forgotten that the server holds; how many samples that were."""
        return whole_number(self.ask("forget", {"key": self._key, "all": True}).header, "forgotten")

    def _answered(self, message: Message) -> Message:
        answer = self._transport.request(message)
        if answer.kind in ("opened", "forgotten"):
            self.forgets = whole_number(answer.header, "requests")
        return answer


def _parts(ids: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield ids[start : start + IDS_AT_ONCE]


def whole_number(header: Mapping[str, JSON], name: str) -> int:
    """A count out of an answer. Raises `TransportError` for anything else."""
    found = header.get(name)
    if type(found) is not int or found < 0:
        raise TransportError(f"the server's {name} is {found!r:.40}; run the same airtune on both sides")
    return found


def _body(ids: np.ndarray) -> bytes:
    return ids.astype(f"<u{ID_BYTES}").tobytes()
