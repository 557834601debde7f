"""Files that are whole or absent, and lines that are whole or ignored, whatever kills the writer.

A file is written beside its place, flushed to the disk and renamed into place. A line is appended in one write; what an
interrupted write left behind has no line end, is skipped on reading and cut off by the next append. This module knows
nothing of what the bytes mean. One writer per file at a time is the caller's business (see `lock`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from airtune.errors import RunError

PARTIAL_SUFFIX: Final = ".partial"
"""Ends the names of files that were not finished; they may be deleted whenever no writer is alive."""
_TAIL_BYTES: Final = 4096


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` at `path` at once: a reader, and a reboot, find the old content or the new, nothing between.

    Folders above `path` are made. Raises `RunError` where the file cannot be written; the old content then stands.
    """
    if path.is_dir():
        raise RunError(f"cannot write {path}: it is a folder; give the name of a file")
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise RunError(f"cannot write {path} ({error}); free space or choose a folder that can be written") from error


def write_text(path: Path, text: str) -> None:
    """Put `text` at `path` at once, as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Add one line to a file of lines.

    Args:
        path: The file; it is made where it is missing, folders above it too.
        line: Text without line ends.
        durable: Wait until the line is on the disk. Without it the line survives the end of the process, not of the
            machine.

    Raises:
        RunError: the file cannot be written, or the line holds a line end.
    """
    if "\n" in line:
        raise RunError(f"a line for {path} holds a line end: {line!r:.80}; give one line")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            whole = _whole_bytes(file)
            if whole < file.seek(0, os.SEEK_END):
                file.truncate(whole)
            data = line.encode() + b"\n"
            if file.write(data) != len(data):
                file.truncate(whole)
                raise OSError("the disk took only a part of the line")
            if durable:
                os.fsync(file.fileno())
    except OSError as error:
        raise RunError(f"cannot append to {path} ({error}); free space or choose another folder") from error


def read_lines(path: Path) -> Iterator[str]:
    """Yield the whole lines of a file, without line ends; a last line without an end was interrupted and is skipped.

    A missing file has no lines. Bytes that are not UTF-8 come as replacement characters. Raises `RunError` where the
    file is there and cannot be read.
    """
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1].decode(errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"cannot read {path} ({error}); check the path and its permissions") from error


def _whole_bytes(file: FileIO) -> int:
    """Length of a file up to and with its last line end."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _TAIL_BYTES)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
