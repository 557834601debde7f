"""Files stay whole under every fault, and so do lines."""

from __future__ import annotations

import os
import signal
from io import FileIO
from pathlib import Path

import pytest

from airtune.errors import RunError
from airtune.records import append_line, read_lines, write_bytes, write_text


def test_content_is_replaced_and_folders_are_made(tmp_path: Path):
    path = tmp_path / "a" / "b" / "file"
    write_bytes(path, b"\x00old")
    write_text(path, "nü")
    assert path.read_bytes() == b"n\xc3\xbc"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("path", [".", "", "/", "folder"])
def test_a_folder_is_no_file_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(RunError, match="it is a folder; give the name of a file"):
        write_bytes(Path(path), b"new")


class _FullFile(FileIO):
    """A file that takes half of what it is given, then finds the disk full."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        super().write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("fault", ["write", "fsync", "rename"])
@pytest.mark.parametrize("before", [b"old content", None])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, before: bytes | None
):
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    match fault:
        case "write":
            monkeypatch.setattr("airtune.records.atomic.open", _FullFile, raising=False)
        case "fsync":
            monkeypatch.setattr(os, "fsync", fail)
        case "rename":
            monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError, match=r"cannot write .*file .*(No space|Input/output)"):
        write_bytes(path, b"new content")
    monkeypatch.undo()
    assert (path.read_bytes() if path.exists() else None) == before
    assert [entry.name for entry in tmp_path.iterdir()] == (["file"] if before is not None else [])


def test_an_interrupt_leaves_what_was_there_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_data_reaches_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        events.append("fsync folder" if Path(target).is_dir() else f"fsync {os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_bytes(tmp_path / "file", b"12345")
    assert events == ["fsync 5 bytes", "rename", "fsync folder"]


_KILLED_BEFORE_RENAME = """
import os, signal, sys
from pathlib import Path
from airtune.records import write_bytes
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_bytes(Path(sys.argv[1]), b"new")
"""


def test_a_kill_between_write_and_rename_leaves_the_old_content(tmp_path: Path, elsewhere):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert elsewhere(_KILLED_BEFORE_RENAME, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_bytes(path, b"newer")
    assert path.read_bytes() == b"newer"


def test_lines_come_back_in_order(tmp_path: Path):
    path = tmp_path / "new" / "lines"
    for line in ("one", "", "drü"):
        append_line(path, line, durable=line == "one")
    assert list(read_lines(path)) == ["one", "", "drü"]


def test_a_missing_file_has_no_lines(tmp_path: Path):
    assert list(read_lines(tmp_path / "lines")) == []


@pytest.mark.parametrize("kept", range(len(b"one\ntwo\nthree\n") + 1))
def test_a_file_cut_anywhere_keeps_its_whole_lines_and_takes_more(tmp_path: Path, kept: int):
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\nthree\n"[:kept])
    whole = ["one", "two", "three"][: (kept >= 4) + (kept >= 8) + (kept >= 14)]
    assert list(read_lines(path)) == whole
    append_line(path, "next")
    assert list(read_lines(path)) == [*whole, "next"]


def test_a_long_torn_line_is_cut_off(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_bytes(b"one\n" + b"x" * 10_000)
    append_line(path, "two")
    assert path.read_bytes() == b"one\ntwo\n"


def test_bytes_that_are_not_text_do_not_stop_reading(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_bytes(b"one\n\xff\xfe\nthree\n")
    assert list(read_lines(path)) == ["one", "\ufffd\ufffd", "three"]


def test_a_line_end_inside_a_line_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="give one line"):
        append_line(tmp_path / "lines", "one\ntwo")
    assert not (tmp_path / "lines").exists()


def test_what_cannot_be_written_or_read_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write"):
        write_text(tmp_path / "file" / "below", "text")
    with pytest.raises(RunError, match="cannot append"):
        append_line(tmp_path / "file" / "below", "text")
    with pytest.raises(RunError, match="cannot read"):
        list(read_lines(tmp_path))
