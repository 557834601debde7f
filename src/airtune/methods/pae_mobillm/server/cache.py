"""Samples that were sent, on disk and partly in memory, until they are forgotten or expire.

A row keeps the bytes it came in, so that disk and memory cost what the wire cost, and is decoded when it is read.
Knows identities and bodies of samples; no messages, models or training.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import final

import numpy as np

from airtune.errors import TransportError
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.server.disk import DiskTier
from airtune.methods.pae_mobillm.server.layout import cut, join
from airtune.methods.pae_mobillm.server.memory import MemoryTier
from airtune.methods.pae_mobillm.wire import Samples, row_bytes


@final
class ActivationCache:
    """The samples of one identity in one file. Close it, or use it as a context manager.

    Args:
        path: The file; it is made where it is missing, in a folder that exists.
        identity: What the samples were sent under.
        memory_mb: Samples kept in memory too, the least recently used leave first; in 10^6 bytes.
        disk_mb: The most that the file may take; 0 sets no limit. See `DiskTier`.
        keep_s: How long `expire` leaves a sample; 0 is for ever.
        spare: Bytes that samples leave free on the disk, for what else is written there.

    Raises:
        AirtuneError: as `DiskTier` does; so do all operations.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        *,
        memory_mb: float = 256.0,
        disk_mb: float = 0.0,
        keep_s: float = 0.0,
        spare: int = 0,
    ) -> None:
        self._identity, self._keep_s, self._row_bytes = identity, keep_s, row_bytes(identity)
        self._spare = spare
        self._memory = MemoryTier(memory_mb * 1e6)
        self._disk = DiskTier(path, identity.key, self._row_bytes, disk_mb)

    def put(self, body: bytes, count: int, *, several: bool = False, again: int = 0, now: float) -> tuple[int, int]:
        """Keep the samples of a body (see `wire`); those that are here with the same content stay as they are.

        A sample that was asked to be forgotten is left out: a copy that was under way does not bring it back.

        Args:
            again: Sent knowing of so many requests to forget: what the later ones name is left out, the rest are new
                samples.
            now: Time in seconds.

        Returns:
            How many were stored, and how many were here before.

        Raises:
            TransportError: the body is none, a sample is here with other content, or the disk is full. Nothing of this
                body is stored then, and what is cached stays.
        """
        samples, rows = cut(body, count, self._identity, several=several)
        came = {one: rows[where].tobytes() for one, where in samples.rows_of()}
        here = self._contents(came)
        for one, content in here.items():
            if content != came[one]:
                raise TransportError(
                    f"sample {one} came again with other content; the first is kept and nothing of this message "
                    "stored; send other samples under other ids, or have this one forgotten first"
                )
        left_out = {one for one, request in self._disk.forgotten(came).items() if request > again}
        new = {one: content for one, content in came.items() if one not in here and one not in left_out}
        self._disk.store(new, now, self._spare)
        for one, content in new.items():
            self._memory.put(one, content)
        return len(new), len(here)

    @property
    def requests(self) -> int:
        """How many requests to forget there were."""
        return self._disk.requests

    def forgotten(self, ids: np.ndarray, *, after: int = 0) -> np.ndarray:
        """Which of these ids were asked to be forgotten and are not here, as bool of their shape ``(n,)``.

        Args:
            after: By the requests behind so many alone.
        """
        marked = self._disk.forgotten(ids.tolist())
        return np.array([marked.get(one, 0) > after for one in ids.tolist()], bool) & ~self.present(ids)

    def present(self, ids: np.ndarray) -> np.ndarray:
        """Which of these ids are here, as bool of their shape ``(n,)``."""
        here = self._disk.present(ids.tolist())
        return np.array([one in here for one in ids.tolist()], bool)

    def ids(self) -> np.ndarray:
        """All that are here, uint64 ascending: the order in which they came does not show."""
        return np.array(self._disk.ids(), np.uint64)

    def __len__(self) -> int:
        return len(self._disk)

    def rows(self, ids: np.ndarray) -> Samples:
        """Decode samples, at least one, each once, in the order given. Raises `TransportError` for one not here."""
        found = self._contents(ids.tolist())
        if missing := [one for one in ids.tolist() if one not in found]:
            raise TransportError(f"sample {missing[0]} is not cached; send it first")
        contents = [found[one] for one in ids.tolist()]
        counts = np.array([len(content) // self._row_bytes for content in contents])
        rows = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, self._row_bytes)
        return join(ids, counts, rows, self._identity)

    def forget(self, ids: np.ndarray) -> int:
        """Write zeros over samples, on disk and in its log, and keep their ids; return how many of them were here."""
        return self._erase(ids, self.requests + 1)

    def expire(self, now: float) -> int:
        """Forget what came more than `keep_s` seconds before `now`, ids too; return how many these were."""
        if not self._keep_s:
            return 0
        return self._erase(np.array(self._disk.ids(before=now - self._keep_s), np.uint64), 0)

    def close(self) -> None:
        """Let others open the file."""
        self._disk.close()

    def __enter__(self) -> ActivationCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _erase(self, ids: np.ndarray, request: int) -> int:
        for one in ids.tolist():
            self._memory.forget(one)
        return self._disk.forget(ids.tolist(), request=request)

    def _contents(self, ids: Iterable[int]) -> dict[int, bytes]:
        """Those of these that are here, from memory where they are there."""
        asked = list(ids)
        found = {one: content for one in asked if (content := self._memory.get(one)) is not None}
        loaded = self._disk.contents(one for one in asked if one not in found)
        for one, content in loaded.items():
            self._memory.put(one, content)
        return found | loaded
