"""Any transport, carried by a wireless link: each message costs bits and seconds, booked where they arise.

It knows what a message weighs on the air and how long the block's realised rate needs for it. It does not lose or
damage messages, decides nothing, and knows no deadline. Replies travel in the other direction and are not charged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from airtune.transport.message import JSON, MESSAGE_ID_LENGTH, Message

if TYPE_CHECKING:  # only their names are needed here: a device that sends nothing over a link does not load scipy
    from airtune.ledger import Ledger
    from airtune.links import ChannelState, Link
    from airtune.transport.role import Transport

REQUEST_HEAD_BYTES: Final = 256
"""Fixed charge for the head of the HTTP request that carries a frame; `Http` never sends a longer one."""


@dataclass(frozen=True, slots=True)
class Transmission:
    """What one message cost on the air."""

    air_bits: int
    """Frame and request head, in bits."""
    airtime_s: float
    """`air_bits` at the rate of `state`, in seconds."""
    state: ChannelState
    """The realised block."""


def air_bits(message: Message) -> int:
    """What a message weighs on the air: its frame plus the fixed charge for the request head, in bits."""
    return 8 * (message.frame_length() + REQUEST_HEAD_BYTES)


def air_overhead_bits(kind: str, header: Mapping[str, JSON], id_length: int = MESSAGE_ID_LENGTH) -> int:
    """The bits a message costs beyond its body's own, before the body exists.

    ``air_bits(message) == 8 * len(message.body) + air_overhead_bits(message.kind, message.header, len(message.id))``
    holds for every message. A header may thus be filled with placeholders of the length of the final values.
    """
    return air_bits(Message(kind, "0" * id_length, header))


@final
class OverTheAir:
    """A transport whose requests cross a link first.

    Args:
        inner: Delivers the message once it has crossed the air.
        link: Turns bits into seconds.
        ledger: Books the quantities bits, seconds and messages, whether or not the message is then accepted.
        role: Who sends; the name the costs are booked under.
        observe: Draws the block that the next message meets.
        pace: Waits for the given seconds, so that a demonstration takes as long as the air does; nothing waits
            without it, airtime is computed.
    """

    def __init__(
        self,
        inner: Transport,
        link: Link,
        ledger: Ledger,
        role: str,
        observe: Callable[[], ChannelState],
        *,
        pace: Callable[[float], None] | None = None,
    ) -> None:
        self._inner = inner
        self._link = link
        self._ledger = ledger
        self._role = role
        self._observe = observe
        self._pace = pace
        self.last: Transmission | None = None
        """The latest transmission, also of a message that was then refused."""

    def request(self, message: Message) -> Message:
        """Ask the role; see `Transport.request`."""
        return self.send(message)[0]

    def send(self, message: Message, *, round: int = 0) -> tuple[Message, Transmission]:
        """Ask the role, and tell what the message cost. `round` is the round the costs are booked under."""
        state = self._observe()
        bits = air_bits(message)
        transmission = Transmission(bits, self._link.airtime_s(bits, state), state)
        self.last = transmission
        self._ledger.book("bits", bits, role=self._role, round=round, what=message.kind)
        self._ledger.book("seconds", transmission.airtime_s, role=self._role, round=round, what=message.kind)
        self._ledger.book("messages", 1, role=self._role, round=round, what=message.kind)
        if self._pace is not None:
            self._pace(transmission.airtime_s)
        return self._inner.request(message), transmission
