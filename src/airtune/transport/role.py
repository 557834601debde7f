"""Who answers messages (`Role`), who carries them (`Transport`), and how a refusal crosses from one to the other.

An error inside a role travels as a message of kind ``error`` and is raised again, with the same class, where the
question was asked; nothing else of the role's inside leaves it. This module knows no sockets and no links.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from typing import Final, Protocol, final

from airtune import errors
from airtune.errors import AirtuneError, RefusedError, TransportError
from airtune.transport.message import DEFAULT_LIMITS, Limits, Message

_log = logging.getLogger(__name__)

_ERROR_KIND: Final = "error"
_MAX_LINE: Final = 2000
_ERRORS: Final[dict[str, type[AirtuneError]]] = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, AirtuneError)
}


class Role(Protocol):
    """One side of a conversation, such as cloud or edge."""

    def handle(self, message: Message) -> Message:
        """Do what is asked and answer with ``message.reply(...)``; raise an `AirtuneError` to refuse."""
        ...


class Transport(Protocol):
    """A way to reach a role."""

    def request(self, message: Message) -> Message:
        """Carry a message to the role and bring its reply back.

        Raises:
            TransportError: the message was not delivered, or the reply did not come back whole.
            AirtuneError: the role refused; the class and line are the role's own.
        """
        ...


@final
class Idempotent:
    """Any role, made safe to ask twice: a repeated message gets the remembered reply and is not handled again.

    A refusal is not remembered, so what failed may be tried again under the same id. Messages are handled one at a
    time; a repetition that arrives while the first is being handled waits for its reply.

    Args:
        role: The role that does the work.
        remember: How many of the latest replies are kept, bodies included.
    """

    def __init__(self, role: Role, remember: int = 64) -> None:
        if remember < 1:
            raise TransportError(f"remember is {remember}; keep at least 1 reply")
        self._role = role
        self._remember = remember
        self._replies: OrderedDict[str, tuple[bytes, Message]] = OrderedDict()
        self._lock = threading.Lock()

    def handle(self, message: Message) -> Message:
        """Answer as the role does. Raises `TransportError` for a known id that comes with other content."""
        content = hashlib.sha256(message.frame()).digest()
        with self._lock:
            if message.id in self._replies:
                known, reply = self._replies[message.id]
                if known != content:
                    raise TransportError(f"message id {message.id} was used before with other content; use a new id")
                return reply
            reply = self._role.handle(message)
            self._replies[message.id] = content, reply
            if len(self._replies) > self._remember:
                self._replies.popitem(last=False)
            return reply


def answer_frame(role: Role, frame: bytes, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The receiving side of every transport: a frame in, the frame of the reply out.

    Whatever goes wrong inside the role becomes a reply of kind ``error``: an `AirtuneError` with its class and line,
    anything else with a general line while the traceback goes to the log.

    Raises:
        TransportError: the bytes are not a frame, so there is no message to answer.
    """
    message = Message.parse(frame, limits)
    try:
        return role.handle(message).frame(limits)
    except AirtuneError as error:
        return _refusal(message, error).frame()
    except Exception:
        _log.exception("handling %s message %s failed", message.kind, message.id)
        line = f"the other role failed on {message.kind} message {message.id}; see its log for the cause"
        return _refusal(message, TransportError(line)).frame()


def accepted(request: Message, reply: Message) -> Message:
    """The asking side of every transport: pass on a reply, or raise the refusal it carries.

    Raises:
        AirtuneError: the reply is of kind ``error``; the class is the named one, `RefusedError` where that is
            `TransportError` or unknown.
        TransportError: the reply belongs to another message.
    """
    if reply.id != request.id:
        raise TransportError(f"reply carries id {reply.id}, {request.id} expected; the other role mixes up messages")
    if reply.kind != _ERROR_KIND:
        return reply
    named = _ERRORS.get(str(reply.header.get("error")), TransportError)
    refusal = RefusedError if named is TransportError else named
    raise refusal(_one_line(str(reply.header.get("line", "the other role refused without saying why"))))


def _refusal(message: Message, error: AirtuneError) -> Message:
    name = next(cls.__name__ for cls in type(error).__mro__ if _ERRORS.get(cls.__name__) is cls)
    return message.reply(_ERROR_KIND, {"error": name, "line": _one_line(str(error))})


def _one_line(text: str) -> str:
    clean = text.encode(errors="replace").decode()
    return " ".join(clean.split())[:_MAX_LINE]
