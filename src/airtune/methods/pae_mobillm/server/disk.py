"""Samples on disk, in one SQLite file, until they are forgotten.

| table       | a line is                                                                                    |
|-------------|----------------------------------------------------------------------------------------------|
| `bound`     | the identity's key: every row here was sent under it                                         |
| `samples`   | a sample: its id (as int64), when it came, the slots of its rows                             |
| `slots`     | a row: 16 bytes of SHA-256 over id and row, then the row (see `layout`)                      |
| `forgotten` | an id that was asked to be forgotten, and the number of the last such request          |

SQLite's `secure_delete` alone does not forget: when its tree is balanced, copies of small rows stay in unused parts of
pages. Slots are therefore of one size and never deleted: to forget, zeros are written over them in place, the
write-ahead log is emptied, and a later sample takes the slot. Of a forgotten sample its id stays, so that a copy under
way does not bring it back, and its time of arrival may, in unused parts of pages; what lies below the file system (a
flash disk's spare blocks, backups) is not ours.

A message is one transaction: after a crash all of it is there or nothing. Knows ids and bytes; not what rows mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, final

import numpy as np

from airtune.errors import ModelError, RunError, TransportError
from airtune.methods.pae_mobillm.server.database import Database

_DIGEST_BYTES: Final = 16
_SCHEMA: Final = (
    "CREATE TABLE bound (key TEXT NOT NULL)",
    "CREATE TABLE samples (id INTEGER PRIMARY KEY, arrived REAL NOT NULL, slots BLOB NOT NULL)",
    "CREATE INDEX arrivals ON samples (arrived)",
    "CREATE TABLE slots (slot INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE forgotten (id INTEGER PRIMARY KEY, request INTEGER NOT NULL)",
)


@final
class DiskTier:
    """Contents by id, each some rows of one size.

    One process at a time; whoever opens the file a second time is refused.

    Args:
        path: The file; it is made where it is missing, in a folder that exists.
        key: Of the identity.
        row_bytes: Bytes of a row.
        disk_mb: The most that the file may take, in 10^6 bytes; 0 sets no limit. The log beside it takes the latest
            messages, a few MB and the largest of them, and ids that were forgotten some 16 bytes each.

    Raises:
        ModelError: the file holds samples of another identity.
        BusyError: another process has it.
        RunError: it cannot be read or written, or is damaged.
        TransportError: it has no room even for an empty cache.
    """

    def __init__(self, path: Path, key: str, row_bytes: int, disk_mb: float = 0.0) -> None:
        self._path, self._row_bytes = path, row_bytes
        self._free: list[int] = []  # slots to be taken again, the next one last
        self._last = 0
        self._logged: set[int] = set()  # forgotten, and perhaps still in the log
        self._base = Database(path)
        try:
            self._open(key, disk_mb)
        except BaseException:
            self._base.close()
            raise

    def store(self, contents: Mapping[int, bytes], now: float, spare: int = 0) -> None:
        """Keep contents of ids that are not here, all or, where one is refused, none. Raises as the class says.

        Args:
            spare: Bytes that stay free on the disk.
        """
        if contents:  # once in the log, once in the file
            self._base.check_room(2 * sum(map(len, contents.values())) + spare)
        free, last = list(self._free), self._last
        with self._base.transaction():
            for one, content in contents.items():
                slots = []
                for start in range(0, len(content), self._row_bytes):
                    row = content[start : start + self._row_bytes]
                    data = _digest(one, row) + row
                    if free:
                        slots.append(free.pop())
                        self._base.connection.execute("UPDATE slots SET data = ? WHERE slot = ?", (data, slots[-1]))
                    else:
                        last += 1
                        slots.append(last)
                        self._base.connection.execute("INSERT INTO slots VALUES (?, ?)", (last, data))
                line = _signed(one), now, np.array(slots, "<i8").tobytes()
                self._base.connection.execute("INSERT INTO samples VALUES (?, ?, ?)", line)
        self._free, self._last = free, last

    def contents(self, ids: Iterable[int]) -> dict[int, bytes]:
        """Those of these that are here. Raises `RunError` for one that is not what was written."""
        slots = self._slots(ids)
        flat = (slot for some in slots.values() for slot in some)
        data = dict(self._base.among("SELECT slot, data FROM slots WHERE slot IN", flat))
        found = {}
        for one, some in slots.items():
            rows = [data.get(slot, b"") for slot in some]
            if any(row[:_DIGEST_BYTES] != _digest(one, row[_DIGEST_BYTES:]) for row in rows):
                raise RunError(f"sample {one} in {self._path} is not what was written; forget it and send it again")
            found[one] = b"".join(row[_DIGEST_BYTES:] for row in rows)
        return found

    def present(self, ids: Iterable[int]) -> set[int]:
        """Which of these are here."""
        return set(self._slots(ids))

    def ids(self, before: float = float("inf")) -> list[int]:
        """All that are here and came before then, ascending: the order in which they came does not show."""
        found = self._base.ask("SELECT id FROM samples WHERE arrived < ?", (before,))
        return sorted(_unsigned(one) for (one,) in found)

    def __len__(self) -> int:
        return int(self._base.ask("SELECT count(*) FROM samples")[0][0])

    @property
    def requests(self) -> int:
        """How many requests to forget there were."""
        return int(self._base.ask("SELECT coalesce(max(request), 0) FROM forgotten")[0][0])

    def forgotten(self, ids: Iterable[int]) -> dict[int, int]:
        """Those of these that were asked to be forgotten, and by which request last; they may be here again."""
        lines = self._base.among("SELECT id, request FROM forgotten WHERE id IN", map(_signed, ids))
        return {_unsigned(one): request for one, request in lines}

    def forget(self, ids: Iterable[int], *, request: int = 0) -> int:
        """Write zeros over those of these that are here, and empty the log; return how many they were.

        Args:
            request: Its number, from 1, is kept with all the ids; 0 keeps nothing.

        Raises:
            RunError: the disk has no room for the log that this takes, and nothing is forgotten; or the log cannot be
                emptied, and they may still be read there. Asked again, it goes on with that, and counts them.
        """
        asked = set(ids)
        gone = self._slots(asked)
        freed = [slot for slots in gone.values() for slot in slots]
        zeros = bytes(_DIGEST_BYTES + self._row_bytes)
        marks = [(_signed(one), request) for one in asked] if request else []
        if gone or marks:
            try:
                with self._base.unlimited(), self._base.transaction():  # a full cache can forget, too
                    update = "UPDATE slots SET data = ? WHERE slot = ?"
                    self._base.connection.executemany(update, ((zeros, slot) for slot in freed))
                    self._base.connection.executemany(
                        "DELETE FROM samples WHERE id = ?", ((_signed(one),) for one in gone)
                    )
                    self._base.connection.executemany("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", marks)
            except TransportError:
                line = (
                    f"the disk of {self._path} has no room to forget {len(gone)} samples in; nothing is forgotten yet"
                )
                raise RunError(f"{line}; free some of that disk and ask again") from None
            self._free = sorted([*self._free, *freed], reverse=True)
            self._logged |= gone.keys()
        found = len(asked & self._logged)
        if self._logged:
            self._base.empty_log()
            self._logged.clear()
        return found

    def close(self) -> None:
        """Let others open the file."""
        self._base.close()

    def _open(self, key: str, disk_mb: float) -> None:
        page = 1024 if 1000 <= self._row_bytes < 4000 else 4096  # such rows fill no large page
        self._base.configure(page, disk_mb)
        if not self._base.ask("SELECT 1 FROM sqlite_master"):
            with self._base.transaction():
                for table in _SCHEMA:
                    self._base.connection.execute(table)
                self._base.connection.execute("INSERT INTO bound VALUES (?)", (key,))
        ((bound,),) = self._base.ask("SELECT key FROM bound")
        if bound != key:
            raise ModelError(
                f"{self._path} holds samples of identity {bound[:12]}, not {key[:12]}; give the server a new store"
            )
        self._base.empty_log()  # a crash may have come between forgetting and this
        ((self._last,),) = self._base.ask("SELECT coalesce(max(slot), 0) FROM slots")
        taken = {slot for (slots,) in self._base.ask("SELECT slots FROM samples") for slot in _numbers(slots)}
        self._free = [slot for slot in range(self._last, 0, -1) if slot not in taken]

    def _slots(self, ids: Iterable[int]) -> dict[int, list[int]]:
        """The slots of those samples that are here."""
        lines = self._base.among("SELECT id, slots FROM samples WHERE id IN", map(_signed, ids))
        return {_unsigned(one): _numbers(slots) for one, slots in lines}


def _digest(one: int, row: bytes) -> bytes:
    return hashlib.sha256(one.to_bytes(8, "little") + row).digest()[:_DIGEST_BYTES]


def _numbers(slots: bytes) -> list[int]:
    return [int(slot) for slot in np.frombuffer(slots, "<i8")]


def _signed(one: int) -> int:
    """A 64-bit id as SQLite's integer."""
    return one - (1 << 64) if one >> 63 else one


def _unsigned(one: int) -> int:
    return one % (1 << 64)
