"""The two roles: the edge verifies, decodes, applies and scores; the cloud asks it to.

Knows messages and payloads; not the link in between. An adapter that is refused leaves the one in use untouched.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch

from airtune.adapters import Adapter, RankVector, check_update
from airtune.adapters.receiver import Receiver, about
from airtune.codec import HeldAdapter, Payload, decode
from airtune.errors import ModelError, PayloadError, TransportError
from airtune.methods.airllm.sizes import adapter_header
from airtune.models import BaseModel, Items, score
from airtune.transport import JSON, Message, Transport, message_id

PROBE_ITEMS = 64
"""Test items whose logits the edge sends back, so that cloud and edge can be compared number by number."""


@final
class EdgeRole:
    """A device with its own copy of the base model.

    | message   | asks                                  | answer                                           |
    |-----------|---------------------------------------|--------------------------------------------------|
    | `hello`   | who are you?                          | hashes of base model, tokenizer and test set     |
    | `adapter` | verify, decode and apply this payload | its hash, its total rank                         |
    | `score`   | score your test set with it           | metric, loss; the probe items' logits as float32 |

    Args:
        base: The device's copy of the base model.
        test: What it scores.
    """

    def __init__(self, base: BaseModel, test: Items) -> None:
        self._base, self._test = base, test
        self._binding, self._held = about(base)[0], Receiver(base).static_parts()
        self._adapter: Adapter | None = None
        self._applied: str | None = None
        self._since: HeldAdapter | None = None  # what is in use, for payloads that change it; a restart forgets it

    def handle(self, message: Message) -> Message:
        """Answer one message. Raises `PayloadError` or `TransportError` to refuse it."""
        match message.kind:
            case "hello":
                return message.reply("hello", _identity(self._base, self._test))
            case "adapter":
                return self._apply(message)
            case "score":
                return self._score(message)
        raise TransportError(f"message kind is {message.kind!r}; an edge answers hello, adapter and score")

    def _apply(self, message: Message) -> Message:
        expected = message.header.get("payload_sha256")
        payload = Payload(message.body)
        if payload.sha256 != expected:
            raise PayloadError(
                f"the payload's SHA-256 is {payload.sha256[:12]}, its manifest says {str(expected)[:12]}; send it again"
            )
        decoded = decode(payload.data, self._binding, held=self._held, since=self._since)
        check_update(self._base, decoded.factors, decoded.dense)
        if self._base.head and not decoded.dense:
            raise PayloadError("the payload holds no head, this model scores with a trained one; send one made for it")
        ranks = RankVector(tuple(decoded.factors[site.path].rank for site in self._base.sites))
        self._attached(ranks).load(decoded.factors, decoded.dense)
        self._applied, self._since = payload.sha256, decoded.held
        return message.reply("applied", {"payload_sha256": payload.sha256, "total_rank": sum(decoded.ranks)})

    def _attached(self, ranks: RankVector) -> Adapter:
        """An adapter of these ranks in place of the one in use: it takes no more memory than the payload decodes to."""
        if self._adapter is not None:
            self._adapter.detach()
        self._adapter = Adapter(self._base, ranks, generator=torch.Generator().manual_seed(0))
        return self._adapter

    def _score(self, message: Message) -> Message:
        asked = message.header.get("payload_sha256")
        if self._applied is None or asked != self._applied:
            raise PayloadError(
                f"the adapter in use is {(self._applied or 'none')[:12]}, not {str(asked)[:12]}; send that one first"
            )
        found = score(self._base.model, self._test, keep_logits=PROBE_ITEMS)
        header: dict[str, JSON] = {"score": found.metric, "loss": found.loss, "items": len(self._test)}
        return message.reply("score", header, found.logits.astype("<f4").tobytes())


def check_edge(edge: Transport, base: BaseModel, test: Items) -> None:
    """Ask who the edge is, and refuse one that holds another base model or test set.

    Raises:
        ModelError: it does; the line names both.
    """
    hello = edge.request(Message("hello", message_id("hello", {}), {})).header
    for name, mine in _identity(base, test).items():
        if hello.get(name) != mine:
            raise ModelError(
                f"the edge's {name.replace('_', ' ')} is {str(hello.get(name))[:12]}, the cloud's {str(mine)[:12]}; "
                "start both with the same --model, --task, --data, --seed and settings"
            )


def _identity(base: BaseModel, test: Items) -> dict[str, JSON]:
    """What two sides must share for their scores to mean the same: SHA-256 of each."""
    return {"base_model": base.sha256, "tokenizer": base.tokenizer_sha256, "test_set": test.sha256}


def adapter_message(payload: Payload, round: int | str) -> Message:
    """The message that delivers a payload; its overhead on the air is `sizes.adapter_overhead_bits`."""
    header = adapter_header(payload.sha256)
    return Message("adapter", message_id("adapter", header, payload.data, round), header, payload.data)


def ask_score(edge: Transport, payload: Payload, round: int | str, *, logits: int) -> tuple[float, float, np.ndarray]:
    """The edge's metric and loss under a payload it has applied, and its probe logits, `logits` numbers in a row.

    Raises:
        TransportError: the answer holds something else.
    """
    header: dict[str, JSON] = {"payload_sha256": payload.sha256}
    reply = edge.request(Message("score", message_id("score", header, b"", round), header))
    found, loss = reply.header.get("score"), reply.header.get("loss")
    if not (isinstance(found, float | int) and isinstance(loss, float | int)):
        raise TransportError(f"the edge's score is {found!r}, its loss {loss!r}; expected numbers; update airtune")
    if len(reply.body) != 4 * logits:
        raise TransportError(f"the edge sent {len(reply.body)} bytes of logits, not {4 * logits}; update airtune")
    return float(found), float(loss), np.frombuffer(reply.body, dtype="<f4")
