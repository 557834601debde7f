"""The server as a role: what it is asked, what it answers, what it refuses.

| message   | header                             | body       | answer                                                |
|-----------|------------------------------------|------------|-------------------------------------------------------|
| `open`    | `identity`, `side`, `seed`         |            | `opened`: `key`, `cached`, `epoch`, `requests`        |
| `samples` | `key`, `count`, `several`, `again` | see `wire` | `stored`: `stored`, `known`, `forgotten`              |
| `have`    | `key`, `again`                     | ids, u64   | `have`: body of two bits per id                       |
| `forget`  | `key`; `all`                       | ids, u64   | `forgotten`: `forgotten`, `requests`                  |
| `train`   | `key`, `until` (epochs in all)     |            | `trained`: `epoch`; `losses`, `rows` of each to there |
| `side`    | `key`                              |            | `side`: `epoch`; body of safetensors                  |

`open` carries a `Binding`; `key` is that of its identity. Bits are as `np.packbits` gives them, the first id in the
most significant: first those of ids that are here, in whole bytes, then those of ids that are not, for they were asked
to be forgotten. `cached` counts the samples that are there, `requests` those to forget. Asked twice, each message has
the effect of once, so the role needs no `Idempotent` around it; and must have none, for a remembered answer to `have`,
`forget` or `side` may no longer be true.

What was asked to be forgotten stays so, whether it was here or not: samples with these ids are left out and counted in
`forgotten`, for the message may be a late copy. Where they are meant, `again` says how many requests the device knows
of: what these named is stored, what a later one named is not; in `have`, what these named does not count as forgotten.
With `all`, every sample that is here is forgotten, and ids are not needed.

To forget removes samples, not what was learned from them: weights trained on them stay as they are.

Knows messages; the link in between, and the models of devices, it does not know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import final

import numpy as np

from airtune.errors import ModelError, RunError, TransportError
from airtune.methods.pae_mobillm.config import MAX_EPOCHS
from airtune.methods.pae_mobillm.server.binding import Binding
from airtune.methods.pae_mobillm.server.cache import ActivationCache
from airtune.methods.pae_mobillm.server.checkpoint import checkpoint_bytes
from airtune.methods.pae_mobillm.server.training import Training
from airtune.methods.pae_mobillm.wire import ID_BYTES, IDS_AT_ONCE
from airtune.records.atomic import PARTIAL_SUFFIX
from airtune.transport import JSON, Message


@final
class ServerRole:
    """One store's server: it goes on where the last one on this store ended, however that one ended.

    Close it, or use it as a context manager; another cannot open the store before that, or before the process ends.

    Args:
        store: Folder of cache and checkpoint; the first `open` binds it to an identity and settings.
        memory_mb: Samples kept in memory, in 10^6 bytes; all are on disk.
        disk_mb: The most that the cache may take on disk; 0 sets no limit.
        keep_s: Samples are forgotten so long after they came, when the next message comes or a server starts; 0 keeps
            them.
        clock: Seconds; the same clock for every server of this store.

    Raises:
        RunError: the store cannot be used, is damaged, or another server uses it.
    """

    def __init__(
        self,
        store: Path,
        *,
        memory_mb: float = 256.0,
        disk_mb: float = 0.0,
        keep_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._clock = store, clock
        self._memory_mb, self._disk_mb, self._keep_s = memory_mb, disk_mb, keep_s
        self._bound: _Bound | None = None
        if binding := Binding.load(store):
            self._bound = self._enter(binding)

    def handle(self, message: Message) -> Message:
        """Answer one message. Raises an `AirtuneError` to refuse it: what was there then stays."""
        answers = {
            "samples": self._samples,
            "have": self._have,
            "forget": self._forget,
            "train": self._train,
            "side": self._side,
        }
        if message.kind == "open":
            return self._open(message)
        if message.kind not in answers:
            raise TransportError(f"message kind is {message.kind!r}; a server answers open, {', '.join(answers)}")
        bound, key = self._bound, message.header.get("key")
        if bound is None:
            raise TransportError(
                f"the server is not open, for its store is new, so it cannot answer {message.kind}; send open first, "
                "or start it with the store that has the samples"
            )
        if key != (mine := bound.binding.identity.key):
            shown = key[:12] if isinstance(key, str) else repr(key)[:40]
            raise ModelError(
                f"the message is for identity {shown}, the server holds {mine[:12]}; start it with that identity's "
                "store, or send open first"
            )
        bound.cache.expire(self._clock())
        return answers[message.kind](message, bound)

    def close(self) -> None:
        """Let another server use the store."""
        if self._bound is not None:
            self._bound.cache.close()

    def __enter__(self) -> ServerRole:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _enter(self, binding: Binding) -> _Bound:
        try:
            self._store.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot use {self._store} as a store ({error}); choose another folder") from None
        training = Training(self._store, binding.identity, binding.plan)
        cache = ActivationCache(
            self._store / "cache.db",
            binding.identity,
            memory_mb=self._memory_mb,
            disk_mb=self._disk_mb,
            keep_s=self._keep_s,
            spare=2 * checkpoint_bytes(sum(one.numel() for one in training.network.parameters())),
        )
        try:  # ours alone now: what a killed server left half-written goes, and what expired meanwhile
            for leftover in self._store.glob(f".*{PARTIAL_SUFFIX}"):
                leftover.unlink(missing_ok=True)
            cache.expire(self._clock())
        except BaseException:
            cache.close()
            raise
        return _Bound(binding, cache, training)

    def _open(self, message: Message) -> Message:
        asked = Binding.of_header(message.header)
        if self._bound is None:
            bound = self._enter(asked)
            try:
                asked.save(self._store)
            except BaseException:
                bound.cache.close()  # for the next device to open
                raise
            self._bound = bound
        bound = self._bound
        bound.binding.check(asked)
        bound.cache.expire(self._clock())
        header: dict[str, JSON] = {
            "key": asked.identity.key,
            "cached": len(bound.cache),
            "epoch": len(bound.training.history),
            "requests": bound.cache.requests,
        }
        return message.reply("opened", header)

    def _samples(self, message: Message, bound: _Bound) -> Message:
        several = message.header.get("several")
        if not isinstance(several, bool):
            raise TransportError(f"samples' several is {several!r:.40}, true or false expected; update airtune")
        count = _whole(message.header, "count", len(message.body) // ID_BYTES)
        again = _again(message, bound)
        stored, known = bound.cache.put(message.body, count, several=several, again=again, now=self._clock())
        return message.reply("stored", {"stored": stored, "known": known, "forgotten": count - stored - known})

    def _have(self, message: Message, bound: _Bound) -> Message:
        ids, again = _ids(message), _again(message, bound)
        answers = bound.cache.present(ids), bound.cache.forgotten(ids, after=again)
        return message.reply("have", {}, b"".join(np.packbits(one).tobytes() for one in answers))

    def _forget(self, message: Message, bound: _Bound) -> Message:
        whole = message.header.get("all", False)
        if not isinstance(whole, bool) or (whole and message.body):
            raise TransportError(
                f"forget's all is {whole!r:.40}; true without ids, or ids alone expected; update airtune"
            )
        gone = bound.cache.forget(bound.cache.ids() if whole else _ids(message))
        return message.reply("forgotten", {"forgotten": gone, "requests": bound.cache.requests})

    def _train(self, message: Message, bound: _Bound) -> Message:
        until = _whole(message.header, "until", MAX_EPOCHS)
        for _ in bound.training.until(bound.cache, until):
            bound.cache.expire(self._clock())
        history = bound.training.history
        header: dict[str, JSON] = {
            "epoch": len(history),
            "losses": [one.loss for one in history[:until]],
            "rows": [one.rows for one in history[:until]],
        }
        return message.reply("trained", header)

    def _side(self, message: Message, bound: _Bound) -> Message:
        training = bound.training
        return message.reply("side", {"epoch": len(training.history)}, training.network.to_bytes())


@final
class _Bound:
    """What a role works on once its store is bound."""

    def __init__(self, binding: Binding, cache: ActivationCache, training: Training) -> None:
        self.binding, self.cache, self.training = binding, cache, training


def _whole(header: Mapping[str, JSON], name: str, most: int) -> int:
    found = header.get(name)
    if type(found) is not int or not 1 <= found <= most:
        raise TransportError(f"{name} is {found!r:.40}; expected a whole number from 1 to {most}; update airtune")
    return found


def _again(message: Message, bound: _Bound) -> int:
    return _whole(message.header, "again", bound.cache.requests) if "again" in message.header else 0


def _ids(message: Message) -> np.ndarray:
    """A body of ids, uint64 ``(n,)``."""
    if len(message.body) > IDS_AT_ONCE * ID_BYTES:
        raise TransportError(
            f"{message.kind} came with {len(message.body)} bytes, at most {IDS_AT_ONCE} ids of {ID_BYTES} bytes "
            "expected; ask in parts"
        )
    if not message.body or len(message.body) % ID_BYTES:
        raise TransportError(
            f"{message.kind} came with {len(message.body)} bytes, whole ids of {ID_BYTES} bytes expected; send it again"
        )
    return np.frombuffer(message.body, "<u8").astype(np.uint64)
