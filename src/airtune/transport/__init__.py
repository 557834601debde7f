"""Messages between roles, in one process, over HTTP, and over the air.

Where to read what:

| file              | idea                                                                                     |
|-------------------|------------------------------------------------------------------------------------------|
| `message`         | a message and its frame: versioned, hashed, bounded bytes. Start here                    |
| `role`            | the two seams (`Role` answers, `Transport` carries), asking twice, errors that cross     |
| `loopback`        | a transport to a role in this process                                                    |
| `http`            | a transport to a role behind a socket                                                    |
| `http_server`     | a role put behind a socket                                                               |
| `over_the_air`    | any transport, carried by a link: bits, seconds and messages booked in the ledger        |

Anything with ``request(message) -> Message`` is a transport, so that one to many roles at once (a fleet), or one that
fetches published artefacts, is another class beside these and wraps them; nothing here needs to change. The room knows
no torch, no methods and no meaning of a body.
"""

from airtune.transport.http import Http
from airtune.transport.http_server import HttpServer, serve
from airtune.transport.loopback import Loopback
from airtune.transport.message import DEFAULT_LIMITS, JSON, MESSAGE_ID_LENGTH, Limits, Message, message_id
from airtune.transport.over_the_air import (
    REQUEST_HEAD_BYTES,
    OverTheAir,
    Transmission,
    air_bits,
    air_overhead_bits,
)
from airtune.transport.role import Idempotent, Role, Transport

__all__ = [
    "DEFAULT_LIMITS",
    "JSON",
    "MESSAGE_ID_LENGTH",
    "REQUEST_HEAD_BYTES",
    "Http",
    "HttpServer",
    "Idempotent",
    "Limits",
    "Loopback",
    "Message",
    "OverTheAir",
    "Role",
    "Transmission",
    "Transport",
    "air_bits",
    "air_overhead_bits",
    "message_id",
    "serve",
]
