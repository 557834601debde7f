"""One writer at a time: a file that names the process which writes.

The file is made exclusively and holds host, process id and the process's start time where the system tells it, so that
a lock whose process has ended is recognised even when its number is in use again. It knows nothing of what is locked.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from airtune.errors import BusyError, RunError


@final
class Lock:
    """Held from construction until `release`, or until the process ends.

    Args:
        path: The lock file; its folder exists.

    Raises:
        BusyError: a living process holds it, or one on another machine, of which nothing can be known.
        RunError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
        try:
            with locked(path.parent):
                self._acquire()
        except FileExistsError:
            raise BusyError(f"{path} was taken by another process just now; run again") from None
        except OSError as error:
            raise RunError(f"cannot lock {path} ({error}); choose a folder that can be written") from error
        self.held = True

    def release(self) -> None:
        """Let others write. Releasing twice is the same as once."""
        if self.held and _read(self._path) == self._owner:
            with suppress(OSError):
                self._path.unlink()
        self.held = False

    def _acquire(self) -> None:
        if self._path.exists():
            holder = _read(self._path)
            if holder is not None and _may_live(holder):
                raise BusyError(
                    f"{self._path.parent} is being written by process {holder.get('pid')} on {holder.get('host')};"
                    f" wait for it, choose another folder, or delete {self._path.name} if that process is gone"
                )
            self._path.unlink()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._owner, file)


def _read(path: Path) -> dict[str, Any] | None:
    """Who holds a lock; None where the file is missing or its writer was killed before it had finished."""
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if isinstance(holder, dict) and isinstance(holder.get("pid"), int) and holder["pid"] > 0:
        return holder
    return None


def _may_live(holder: dict[str, Any]) -> bool:
    if holder.get("host") != socket.gethostname():
        return True
    pid = holder["pid"]
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return holder.get("started") == _started(pid)


def _started(pid: int) -> str | None:
    """When a process began, in ticks since the machine started (proc(5), stat); None if it has ended or is unknown."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else fields[18]
    except (OSError, ValueError, IndexError):
        return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time is in the block, of those that ask for this folder; its end ends that too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot; the exclusive creation still holds there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
