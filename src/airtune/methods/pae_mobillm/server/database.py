"""One SQLite file that is ours alone: transactions, room, its log, and its errors in our words.

Knows files and SQL; not what is kept.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, final

from airtune.errors import AirtuneError, BusyError, RunError, TransportError
from airtune.methods.pae_mobillm.wire import NO_ROOM

NO_LIMIT: Final = 2**32 - 2
"""Of pages."""
_AT_ONCE: Final = 500  # values in one statement; every SQLite takes 999


@final
class Database:
    """A file that is made where it is missing, in a folder that exists.

    Raises:
        BusyError: another process has it.
        RunError: it cannot be read or written, or is damaged.
        TransportError: it has no room.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._limit, self._pages = path, 0, NO_LIMIT
        with self.plainly():
            self.connection = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)

    def configure(self, page_size: int, disk_mb: float) -> None:
        """Take the file for this process; 0 sets no limit of megabytes."""
        settings = "locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"
        with self.plainly():
            for setting in (f"page_size={page_size}", *settings, "temp_store=MEMORY"):
                self.connection.execute(f"PRAGMA {setting}").fetchall()
            if disk_mb:
                (page,) = self.connection.execute("PRAGMA page_size").fetchone()
                self._pages = self._limit_pages(max(1, int(disk_mb * 1e6 / page)))
                self._limit = self._pages * page

    def ask(self, question: str, values: Iterable[Any] = ()) -> list[Any]:
        """The lines that answer one question."""
        with self.plainly():
            return self.connection.execute(question, tuple(values)).fetchall()

    def among(self, question: str, values: Iterable[int]) -> Iterator[Any]:
        """Lines for some values, however many."""
        left = iter(values)
        with self.plainly():
            while some := list(islice(left, _AT_ONCE)):
                yield from self.connection.execute(f"{question} ({', '.join('?' * len(some))})", some).fetchall()

    @contextmanager
    def unlimited(self) -> Iterator[None]:
        """The file may grow beyond its limit, and is held to it afterwards where it has not."""
        self._limit_pages(NO_LIMIT)
        try:
            yield
        finally:
            self._limit_pages(self._pages)

    def empty_log(self) -> None:
        """Have everything in the file itself, and nothing beside it. Raises `RunError` where that cannot be."""
        try:
            (busy, *_) = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            why = "another reads it" if busy else ""
        except sqlite3.Error as error:
            why = str(error)
        if why:
            raise RunError(
                f"the log of {self._path} cannot be emptied ({why}), and samples that were forgotten may still be read "
                "there; look at that disk and its free room, then ask again to forget"
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is done within, or nothing."""
        with self.plainly():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # SQLite itself ends it where the disk is full
                    self.connection.execute("ROLLBACK")
                raise

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._refusal(error) from None

    def close(self) -> None:
        """Let others open the file."""
        self.connection.close()

    def check_room(self, size: int) -> None:
        """Raise `TransportError` where the disk has less room than so many bytes."""
        if shutil.disk_usage(self._path.parent).free < size:
            raise self._full("but for the room that training needs the disk is")

    def _full(self, what: str) -> TransportError:
        return TransportError(
            f"{NO_ROOM}, {what} full; nothing of this message is stored; forget samples or wait until some expire, "
            "then send it again; training goes on with what is cached"
        )

    def _limit_pages(self, pages: int) -> int:
        """Set the most pages that the file may have; it is told, and never less than it has."""
        with self.plainly():
            return int(self.connection.execute(f"PRAGMA max_page_count={pages}").fetchone()[0])

    def _refusal(self, error: sqlite3.Error) -> AirtuneError:
        name = str(getattr(error, "sqlite_errorname", ""))
        if name.startswith("SQLITE_FULL"):
            return self._full(f"its {self._limit / 1e6:g} MB are" if self._limit else "the disk is")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return BusyError(f"another server uses {self._path}; stop it or choose another store")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return RunError(f"{self._path} is damaged ({error}); delete it and have the samples sent again")
        return RunError(f"{self._path} cannot be used ({error}); choose a folder that can be written")
