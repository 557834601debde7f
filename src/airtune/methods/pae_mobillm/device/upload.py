"""What an upload weighs, and what its samples are called.

Knows the wire, message heads and hashes; not models, and nothing of what is in a sample.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.wire import body_bytes
from airtune.models import Items
from airtune.transport import JSON, air_overhead_bits


@dataclass(frozen=True, slots=True)
class Upload:
    """What one call of `Device.upload` sent.

    Args:
        samples: Sent now; the rest of those asked for was with the server already.
        held: With the server before.
        body_bytes: Of all bodies of `samples` messages, each counted once.
        repeats: Messages that were sent again because a request failed.
    """

    samples: int
    held: int
    messages: int
    body_bytes: int
    repeats: int


def sample_ids(name: str, items: Items) -> np.ndarray:
    """An id for each item, uint64 ``(n,)``: the first 8 bytes of SHA-256 over device, repetition, label and tokens.

    Where a label and tokens occur several times among the items, the first is repetition 0, the next 1, and so on. So
    an item has the same id after a restart, in another order and among others. Whoever knows the name and guesses a
    sample can check the guess, so a name should not be guessable.
    """
    start = hashlib.sha256(name.encode()).digest()
    classes = np.full(len(items), -1) if items.classes is None else items.classes
    found, seen = np.empty(len(items), np.uint64), Counter[bytes]()
    for at, (tokens, label) in enumerate(zip(items.ids, classes.tolist(), strict=True)):
        sample = np.array([label, *tokens], "<i8").tobytes()
        digest = hashlib.sha256(start + seen[sample].to_bytes(8, "little") + sample).digest()
        found[at] = int.from_bytes(digest[:8], "little")
        seen[sample] += 1
    return found


def samples_header(identity: Identity, count: int, several: bool) -> dict[str, JSON]:
    """Of a message with `count` samples."""
    return {"key": identity.key, "count": count, "several": several}


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
