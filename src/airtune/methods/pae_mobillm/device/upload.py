"""What an upload weighs, and what its samples are called.

Knows the wire, message heads and hashes; not models, and nothing of what is in a sample.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from airtune.methods.pae_mobillm.device.asking import Asking
from airtune.methods.pae_mobillm.identity import SHAPED_BY, Identity
from airtune.methods.pae_mobillm.wire import ID_BYTES, IDS_AT_ONCE, body_bytes
from airtune.models import Items
from airtune.transport import JSON, air_overhead_bits

REPETITIONS: Final = 8
"""Of one content, asked about at once to have all of them forgotten."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What one call of `Device.upload` sent.

    Args:
        samples: Sent now; the rest of those asked for was with the server already.
        held: With the server before.
        body_bytes: Of all bodies of `samples` messages, each counted once.
        repeats: Messages that were sent again because a request failed.
        forgotten: Left out, for the server was asked to forget them.
        refused: Not sent, for the server has no room for more.
    """

    samples: int
    held: int
    messages: int
    body_bytes: int
    repeats: int
    forgotten: int = 0
    refused: int = 0


def sample_ids(name: str, items: Items) -> np.ndarray:
    """An id for each item, uint64 ``(n,)``: the first 8 bytes of SHA-256 over device, repetition, label and tokens.

    Where a label and tokens occur several times among the items, the first is repetition 0, the next 1, and so on. So
    an item has the same id after a restart, in another order and among others. Whoever knows the name and guesses a
    sample can check the guess, so a name should not be guessable.
    """
    found, seen = np.empty(len(items), np.uint64), Counter[bytes]()
    for at, content in enumerate(_contents(items)):
        found[at] = _id(name, content, seen[content])
        seen[content] += 1
    return found


def repetition_ids(name: str, items: Items, repetitions: range) -> tuple[np.ndarray, np.ndarray]:
    """Ids of some repetitions of all that differs among the items, uint64 ``(n, repetitions)``; where each is first."""
    places: dict[bytes, int] = {}
    for at, content in enumerate(_contents(items)):
        places.setdefault(content, at)
    ids = [[_id(name, content, one) for one in repetitions] for content in places]
    return np.array(ids, np.uint64), np.array(list(places.values()))


def forget_repetitions(server: Asking, name: str, items: Items) -> tuple[int, set[int]]:
    """Have every repetition of some items forgotten, however many of the items are the same.

    The server is asked about more of them until it knows none of `REPETITIONS`.

    Returns:
        How many samples the server held, and the ids that it was asked to forget.
    """
    gone, asked, first, left = 0, set[int](), 0, items
    while len(left):
        ids, places = repetition_ids(name, left, range(first, first + REPETITIONS))
        held, forgotten = server.standing(ids.ravel())
        known = (held | forgotten).reshape(ids.shape)
        later = np.logical_or.accumulate(known[:, ::-1], axis=1)[:, ::-1]  # this one or one behind it
        if not first:
            later[:, 0] = True  # one that is still under way
        gone += server.forget(ids[later])
        asked.update(ids[later].tolist())
        first, left = first + REPETITIONS, left.chosen(places[known.any(1)])
    return gone, asked


def _contents(items: Items) -> Iterator[bytes]:
    """Label and tokens of each."""
    classes = np.full(len(items), -1) if items.classes is None else items.classes
    for tokens, label in zip(items.ids, classes.tolist(), strict=True):
        yield np.array([label, *tokens], "<i8").tobytes()


def _id(name: str, content: bytes, repetition: int) -> int:
    start = hashlib.sha256(name.encode()).digest()
    digest = hashlib.sha256(start + repetition.to_bytes(8, "little") + content).digest()
    return int.from_bytes(digest[:8], "little")


def samples_header(identity: Identity, count: int, several: bool, again: int = 0) -> dict[str, JSON]:
    """Of a message with `count` samples; `again` where what so many requests had forgotten is meant."""
    header: dict[str, JSON] = {"key": identity.key, "count": count, "several": several}
    return {**header, "again": again} if again else header


def asking_bits(samples: int, layers: int, side: Mapping[str, JSON], seed: int) -> int:
    """Bits on the air, at most, of what an upload asks before it sends: to open, and which samples are there.

    Args:
        layers: That an identity names, at most.
        side, seed: As `Device.open` sends them.
    """
    hashed, places = "0" * 64, tuple(range(layers))
    shaping = tuple((name, hashed) for name in SHAPED_BY)
    identity = Identity(hashed, hashed, hashed, 10**6, places, (16,) * layers, 10**6, "probability", shaping)
    opening = air_overhead_bits("open", {"identity": identity.as_header(), "side": dict(side), "seed": seed})
    asking = air_overhead_bits("have", {"key": hashed, "again": 10**6})
    return opening + -(-samples // IDS_AT_ONCE) * asking + 8 * ID_BYTES * samples


def uplink_bits(identity: Identity, samples: int, rows: int, batch_size: int, *, several: bool = False) -> int:
    """Bits on the air of all samples, sent in batches without a repetition: bodies, frames and request heads.

    Args:
        rows: Pivots of all samples together.
    """
    whole, rest = divmod(samples, batch_size)
    bits = 8 * body_bytes(identity, samples, rows, several=several)
    for messages, count in ((whole, batch_size), (min(rest, 1), rest)):
        bits += messages * air_overhead_bits("samples", samples_header(identity, count, several))
    return bits
