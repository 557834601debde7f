"""The device: reads each sample once, sends it once, and adds the side network's answer to its own.

| message   | asks                                               | answer                                       |
|-----------|----------------------------------------------------|----------------------------------------------|
| `open`    | keep samples of this identity, train such a network | what the server holds of it                  |
| `have`    | which of these ids (u64) do you hold?              | one bit per id, as `numpy.packbits` has them |
| `samples` | keep these (`wire`)                                | anything                                     |
| `forget`  | hold these ids no longer                           | how many it held                             |
| `train`   | train until this epoch                             | how training stands                          |
| `side`    | the side network as it is                          | its weights                                  |

Labels and tokens stay here. A request that fails is repeated as it was, under its id; whatever of it arrived, arrived
with the same content, so that lost, doubled and re-ordered uploads leave the server with the same samples.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Final, final

import numpy as np

from airtune.errors import ModelError, RefusedError, TransportError
from airtune.ledger import Ledger
from airtune.methods.pae_mobillm.device.differences import corrected, outcomes, prediction_differences
from airtune.methods.pae_mobillm.device.flops import forward_flops, side_flops
from airtune.methods.pae_mobillm.device.pivots import Reading, outputs_of, read_pivots
from airtune.methods.pae_mobillm.device.upload import Upload, sample_ids, samples_header
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.privacy.defences import Defence, Plain
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import ID_BYTES, Samples, as_received, encode_samples
from airtune.models import BaseModel, Items, Score
from airtune.records import Progress, Silent
from airtune.transport import DEFAULT_LIMITS, JSON, Message, Transport, message_id

ATTEMPTS: Final = 5
"""How often one request is tried."""
PAUSE_S: Final = 0.2
"""Before the first repetition; twice as long before each further one."""
ASKED_AT_ONCE: Final = 65_536
"""Ids in one question."""


@final
class Device:
    """One device with its backbone and its samples.

    Args:
        base: The frozen backbone.
        identity: How samples are read and sent; its `outputs` are those of `secrecy`.
        transport: To the server.
        name: Tells this device's samples from another's, and keeps their ids from being guessed: see `sample_ids`.
        batch_size: Samples per forward pass and per message.
        scale: s of the differences, in logit space.
        secrecy: Stands between what was read and what is sent; None sends everything as it is.
        ledger: Books flops (counted, see `flops`) and compute seconds; bits are booked by transports.
        session: Tells this process's requests from those before a restart; drawn when None.
        sleep: Waits before a repetition.
        clock: Seconds.

    Raises:
        ModelError: the identity sends another number of outputs than secrecy makes of the backbone's.
    """

    def __init__(
        self,
        base: BaseModel,
        identity: Identity,
        transport: Transport,
        *,
        name: str,
        batch_size: int = 32,
        scale: float = 4.0,
        secrecy: Defence | None = None,
        ledger: Ledger | None = None,
        progress: Progress | None = None,
        session: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._base, self._identity, self._transport = base, identity, transport
        self._name, self._batch_size, self._scale = name, batch_size, scale
        self._secrecy = secrecy or Plain()
        self._ledger = Ledger() if ledger is None else ledger
        self._progress = progress or Silent()
        self._session = session or uuid.uuid4().hex
        self._sleep, self._clock = sleep, clock
        self._asked = 0
        self._repeats = 0
        self._held: set[int] = set()
        self._several = base.kind == "text"
        if identity.outputs != (made := self._secrecy.outputs(outputs_of(base))):
            raise ModelError(
                f"the identity has differences of {identity.outputs} numbers, this device sends {made}; "
                "make the identity for these defences"
            )

    def open(self, side: Mapping[str, JSON], seed: int) -> Mapping[str, JSON]:
        """Ask the server to keep samples of this identity for a side network of these settings; its answer's header.

        Raises:
            ModelError: the server holds another backbone, tokenizer or template. TransportError: it was not reached.
        """
        return self._ask("open", {"identity": self._identity.as_header(), "side": dict(side), "seed": seed}).header

    def upload(self, items: Items) -> Upload:
        """Send every sample that the server does not hold, each once.

        Call it again with more items at any time. What an earlier call of this process delivered is not even asked
        about; after a restart the server is asked, and the rest is sent. Batches go out shortest items first, so the
        server learns which samples are about as long. An item that an earlier call sent is the same sample.

        Raises:
            TransportError: a request failed `ATTEMPTS` times, or an answer could not be read; what was delivered
                stays, and the next call goes on from there. So it does after any error that the server answers with,
                such as a full disk.
            DataError: items of another kind than the backbone's, or a number that cannot be sent.
        """
        ids = sample_ids(self._name, items)
        lacking = self._lacking(ids)
        # the same batches after a restart: in others, sums round differently
        batches = [kept for rows in items.in_order(self._batch_size) if len(kept := rows[lacking[rows]])]
        total, sent_bytes, repeats = int(lacking.sum()), 0, self._repeats
        with self._progress.stage("upload", total) as stage:
            for rows in batches:
                body = encode_samples(self.samples(items, rows, ids[rows]), self._identity, several=self._several)
                if len(body) > DEFAULT_LIMITS.body_bytes:
                    raise TransportError(
                        f"{len(rows)} samples take {len(body)} bytes, a message at most {DEFAULT_LIMITS.body_bytes}; "
                        "lower device.batch_size"
                    )
                self._ask("samples", samples_header(self._identity, len(rows), self._several), body)
                self._held.update(ids[rows].tolist())
                sent_bytes += len(body)
                stage.advance(len(rows))
        return Upload(total, len(items) - total, len(batches), sent_bytes, self._repeats - repeats)

    def samples(self, items: Items, rows: np.ndarray, ids: np.ndarray) -> Samples:
        """Some items as they are sent, under these ids."""
        read = self._read(items, rows, "read")
        differences = prediction_differences(read.logits, read.targets, space=self._identity.space, scale=self._scale)
        activations, differences = self._secrecy.outgoing(ids, read.activations, differences, read.counts)
        return Samples(ids, read.counts, activations, differences)

    def forget(self, items: Items) -> None:
        """Have the server forget samples, and send them anew when they are uploaded again; as `upload` else."""
        ids = sample_ids(self._name, items)
        for start in range(0, len(ids), ASKED_AT_ONCE):
            asked = ids[start : start + ASKED_AT_ONCE]
            self._ask("forget", {"key": self._identity.key}, _body(asked))
            self._held.difference_update(asked.tolist())

    def train(self, until: int) -> Mapping[str, JSON]:
        """Ask the server to train until so many epochs are done in all; its answer's header."""
        return self._ask("train", {"key": self._identity.key, "until": until}).header

    def side(self, *, temperature: float = 1.0) -> SideNetwork:
        """The side network as it is. Raises `TransportError` for weights of another size or not finite."""
        body = self._ask("side", {"key": self._identity.key}).body
        layers, width, outputs = len(self._identity.layers), self._identity.width, self._identity.outputs
        return SideNetwork.of_bytes(body, layers=layers, width=width, outputs=outputs, temperature=temperature)

    def infer(self, items: Items, side: SideNetwork) -> Score:
        """What backbone and side network make of all items together, in item order; see `outcomes`."""
        found: list[tuple[np.ndarray, Score]] = []
        for rows in items.in_order(self._batch_size):
            read, predicted = self.predict(items, rows, side)
            scores = corrected(read.logits, predicted, space=self._identity.space)
            worth = outcomes(scores, read.targets, read.counts, space=self._identity.space, text=self._several)
            found.append((rows, worth))
        back = np.argsort(np.concatenate([rows for rows, _ in found]))
        losses, logits = (
            np.concatenate([getattr(worth, name) for _, worth in found])[back] for name in ("losses", "logits")
        )
        hits = [worth.hits for _, worth in found if worth.hits is not None]
        return Score(losses, np.concatenate(hits)[back] if hits else None, logits)

    def predict(self, items: Items, rows: np.ndarray, side: SideNetwork) -> tuple[Reading, np.ndarray]:
        """What the backbone reads of some items as one batch, and the differences predicted for them, ``(rows, C)``.

        The side network is given hidden states at the precision they are sent with: what it was trained on. For a
        batch as it was uploaded without defences, that is the server's answer bit for bit.
        """
        read = self._read(items, rows, "infer")
        start = self._clock()
        predicted = self._secrecy.incoming(side.differences(as_received(read.activations, self._identity)))
        layers, width, bottleneck = side.down.shape
        flops = side_flops(layers, width, bottleneck, self._identity.outputs, len(predicted))
        self._book("infer", flops, start)
        return read, predicted

    def _read(self, items: Items, rows: np.ndarray, what: str) -> Reading:
        start = self._clock()
        read = read_pivots(self._base, items, rows, self._identity.layers)
        longest = int(items.lengths[rows].max())
        self._book(what, forward_flops(self._base, len(rows), longest), start)
        return read

    def _book(self, what: str, flops: int, start: float) -> None:
        self._ledger.book("flops", flops, role="device", what=what)
        self._ledger.book("compute_seconds", self._clock() - start, role="device", what=what)

    def _lacking(self, ids: np.ndarray) -> np.ndarray:
        """Which of the ids the server does not hold, ``(n,)``."""
        unknown = np.flatnonzero([one not in self._held for one in ids.tolist()])
        for start in range(0, len(unknown), ASKED_AT_ONCE):
            asked = ids[unknown[start : start + ASKED_AT_ONCE]]
            answer = self._ask("have", {"key": self._identity.key}, _body(asked)).body
            if len(answer) != (len(asked) + 7) // 8:
                raise TransportError(
                    f"the server answered {len(asked)} ids with {len(answer)} bytes, {(len(asked) + 7) // 8} expected; "
                    "run the same airtune on both sides"
                )
            held = np.unpackbits(np.frombuffer(answer, np.uint8), count=len(asked)).astype(bool)
            self._held.update(asked[held].tolist())
        return np.array([one not in self._held for one in ids.tolist()])

    def _ask(self, kind: str, header: Mapping[str, JSON], body: bytes = b"") -> Message:
        """Ask once; a failed request is repeated under its id, a new question never gets an old one's answer."""
        self._asked += 1
        message = Message(kind, message_id(kind, header, body, self._name, self._session, self._asked), header, body)
        for attempt in range(ATTEMPTS - 1):
            try:
                return self._transport.request(message)
            except RefusedError:
                raise
            except TransportError:
                self._repeats += 1
                self._sleep(PAUSE_S * 2**attempt)
        return self._transport.request(message)


def _body(ids: np.ndarray) -> bytes:
    return ids.astype(f"<u{ID_BYTES}").tobytes()
