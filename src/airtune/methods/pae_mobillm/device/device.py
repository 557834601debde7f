"""The device: reads each sample once, sends it once, and adds the side network's answer to its own.

| message   | asks                                                | answer                                       |
|-----------|-----------------------------------------------------|----------------------------------------------|
| `open`    | keep samples of this identity, train such a network | what the server holds of it                  |
| `have`    | which of these ids (u64) do you hold, or were told to forget? | two bits per id, see `role`        |
| `samples` | keep these (`wire`)                                 | how many were forgotten and are left out     |
| `forget`  | hold these ids no longer, whenever they come        | how many it held                             |
| `train`   | train until this epoch                              | how training stands                          |
| `side`    | the side network as it is                           | its weights                                  |

Labels and tokens stay here. A request that fails is repeated as it was, under its id; whatever of it arrived, arrived
with the same content, so that lost, doubled and re-ordered uploads leave the server with the same samples.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import final

import numpy as np

from airtune.errors import ModelError, RefusedError, TransportError
from airtune.ledger import Ledger
from airtune.methods.pae_mobillm.device.asking import Asking
from airtune.methods.pae_mobillm.device.differences import corrected, outcomes, prediction_differences
from airtune.methods.pae_mobillm.device.flops import forward_flops, side_flops
from airtune.methods.pae_mobillm.device.pivots import Reading, outputs_of, read_pivots
from airtune.methods.pae_mobillm.device.upload import Upload, forget_repetitions, sample_ids, samples_header
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.privacy.defences import Defence, Plain
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import NO_ROOM, Samples, as_received, encode_samples
from airtune.models import BaseModel, Items, Score
from airtune.records import Progress, Silent
from airtune.transport import DEFAULT_LIMITS, JSON, Transport


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
        self._base, self._identity = base, identity
        self._name, self._batch_size, self._scale = name, batch_size, scale
        self._secrecy = secrecy or Plain()
        self._ledger = Ledger() if ledger is None else ledger
        self._progress = progress or Silent()
        self._server = Asking(transport, identity.key, name=name, session=session or uuid.uuid4().hex, sleep=sleep)
        self._clock = clock
        self._held: set[int] = set()
        self._bottleneck = 0
        self._several = base.kind == "text"
        if identity.outputs != (made := self._secrecy.outputs(outputs_of(base))):
            raise ModelError(
                f"the identity has differences of {identity.outputs} numbers, this device sends {made}; "
                "make the identity for these defences"
            )

    def open(self, side: Mapping[str, JSON], seed: int, *, requests: int | None = None) -> Mapping[str, JSON]:
        """Ask the server to keep samples of this identity for a side network of these settings; its answer's header.

        Args:
            requests: Requests to forget that `upload` with `again` is to undo, counted from the server's first; None
                undoes all that there were. A resumed process gives what the first one was answered.

        Raises:
            ModelError: the server holds another backbone, tokenizer or template. TransportError: it was not reached.
        """
        header: dict[str, JSON] = {"identity": self._identity.as_header(), "side": dict(side), "seed": seed}
        self._bottleneck = asked if type(asked := side.get("bottleneck")) is int else 0
        answer = self._server.ask("open", header).header
        if requests is not None:
            self._server.forgets = min(self._server.forgets, requests)
        return answer

    def upload(self, items: Items, *, again: bool = False) -> Upload:
        """Send every sample that the server does not hold, each once.

        Call it again with more items at any time. What an earlier call of this process delivered is not even asked
        about; after a restart the server is asked, and the rest is sent. Batches go out shortest items first, so the
        server learns which samples are about as long. An item that an earlier call sent is the same sample.

        Args:
            again: Send what was forgotten, too; it is left out otherwise.

        Raises:
            TransportError: a request failed `ATTEMPTS` times, or an answer could not be read; what was delivered
                stays, and the next call goes on from there. So it does after any error that the server answers with.
                One that has no room for more is none: the rest is `Upload.refused`.
            DataError: items of another kind than the backbone's, or a number that cannot be sent.
        """
        ids = sample_ids(self._name, items)
        forgotten = np.zeros(len(ids), bool)
        unknown = np.flatnonzero([one not in self._held for one in ids.tolist()])
        known = self._server.forgets if again else 0
        held, forgotten[unknown] = self._server.standing(ids[unknown], again=known)
        self._held.update(ids[unknown[held]].tolist())
        lacking = np.array([one not in self._held for one in ids.tolist()]) & ~forgotten
        left_out = int(forgotten.sum())
        # the same batches after a restart: in others, sums round differently
        batches = [kept for rows in items.in_order(self._batch_size) if len(kept := rows[lacking[rows]])]
        total, sent_bytes, repeats = int(lacking.sum()), 0, self._server.repeats
        messages = sent = 0
        with self._progress.stage("upload", total) as stage:
            for rows in batches:
                body = encode_samples(self.samples(items, rows, ids[rows]), self._identity, several=self._several)
                if len(body) > DEFAULT_LIMITS.body_bytes:
                    raise TransportError(
                        f"{len(rows)} samples take {len(body)} bytes, a message at most {DEFAULT_LIMITS.body_bytes}; "
                        "lower device.batch_size"
                    )
                try:
                    self._server.ask("samples", samples_header(self._identity, len(rows), self._several, known), body)
                except RefusedError as error:
                    if NO_ROOM not in str(error):
                        raise
                    self._progress.say(str(error))
                    break
                messages, sent = messages + 1, sent + len(rows)
                self._held.update(ids[rows].tolist())
                sent_bytes += len(body)
                stage.advance(len(rows))
        before = len(items) - total - left_out
        return Upload(sent, before, messages, sent_bytes, self._server.repeats - repeats, left_out, total - sent)

    def samples(self, items: Items, rows: np.ndarray, ids: np.ndarray) -> Samples:
        """Some items as they are sent, under these ids."""
        read = self._read(items, rows, "read")
        differences = prediction_differences(read.logits, read.targets, space=self._identity.space, scale=self._scale)
        activations, differences = self._secrecy.outgoing(ids, read.activations, differences, read.counts)
        return Samples(ids, read.counts, activations, differences)

    def holds(self, items: Items) -> np.ndarray:
        """Which items the server holds, as far as this process knows, bool ``(n,)``."""
        return np.array([one in self._held for one in sample_ids(self._name, items).tolist()], bool)

    def forget(self, items: Items) -> int:
        """Have the server forget samples until they are uploaded with `again`; as `upload` else.

        Returns:
            How many samples the server held, all repetitions of these items counted; see `forget_repetitions`.
        """
        gone, asked = forget_repetitions(self._server, self._name, items)
        self._held.difference_update(asked)
        return gone

    def train(self, until: int) -> Mapping[str, JSON]:
        """Ask the server to train until so many epochs are done in all; its answer's header."""
        return self._server.ask("train", {"key": self._identity.key, "until": until}).header

    def side(self, *, temperature: float = 1.0) -> SideNetwork:
        """The side network as it is. Raises `TransportError` for weights of another size or not finite."""
        body = self._server.ask("side", {"key": self._identity.key}).body
        layers, width, outputs = len(self._identity.layers), self._identity.width, self._identity.outputs
        return SideNetwork.of_bytes(
            body, layers=layers, width=width, outputs=outputs, bottleneck=self._bottleneck, temperature=temperature
        )

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
