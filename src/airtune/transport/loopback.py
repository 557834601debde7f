"""The other role, in this process. It knows no sockets, yet every message crosses as the bytes a socket would carry."""

from __future__ import annotations

from typing import final

from airtune.transport.message import DEFAULT_LIMITS, Limits, Message
from airtune.transport.role import Role, accepted, answer_frame


@final
class Loopback:
    """Reach a role by a call. Frames, limits and errors behave as over `Http`.

    Example:
        >>> class Echo:
        ...     def handle(self, message: Message) -> Message:
        ...         return message.reply("echo", message.header, message.body)
        >>> Loopback(Echo()).request(Message("ask", "1", {"n": 1}, b"abc")).body
        b'abc'
    """

    def __init__(self, role: Role, limits: Limits = DEFAULT_LIMITS) -> None:
        self._role = role
        self._limits = limits

    def request(self, message: Message) -> Message:
        """Ask the role; see `Transport.request`."""
        reply = answer_frame(self._role, message.frame(self._limits), self._limits)
        return accepted(message, Message.parse(reply, self._limits))
