"""Rows and text out of files: .tsv, .csv, .jsonl, .txt, each also gzipped (.gz).

This module knows file formats and says what is wrong with a file, in which line. It knows no task and draws nothing.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from airtune.errors import DataError
from airtune.tasks.examples import Columns

TABLE_KINDS = (".jsonl", ".tsv", ".csv")
TEXT_KINDS = (".txt",)
UNLABELLED = "-1"
"""The label of rows whose labels are withheld, as data sets with a hidden test part write it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text and its label as the file spells it, with the line it begins on."""

    text: str
    label: str
    line: int


def kind_of(path: Path) -> str:
    """Return the suffix that says how to read a file, with .gz taken off: `train.tsv.gz` -> `.tsv`."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_text(path: Path) -> str:
    """Return a UTF-8 file as text with `\\n` line ends. Raises `DataError`: missing, not gzip, not UTF-8, empty."""
    if not path.is_file():
        raise DataError(f"no file {path}; give the path of an existing file")
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: bytes that are not UTF-8; save the file as UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}); compress it again or drop the .gz") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if not text.strip():
        raise DataError(f"{path} is empty; give a file with text in it")
    return text.replace("\r\n", "\n")


def read_table(path: Path, columns: Columns, *, labels_optional: bool = False) -> tuple[Row, ...]:
    """Return the rows of a table file, text and label stripped of outer white space.

    `.tsv` has a header and no quoting (as GLUE), `.csv` a header and standard quoting, `.jsonl` one object a line. Rows
    of a table without a label column are `UNLABELLED` where `labels_optional` allows it.
    Raises `DataError` for an unknown kind, a missing column, a short or malformed row, an empty text or label.
    """
    kind = kind_of(path)
    if kind not in TABLE_KINDS:
        raise DataError(
            f"{path} ends in {kind or 'no suffix'}; give one of {', '.join(TABLE_KINDS)}, or these with .gz"
        )
    text = read_text(path)
    wanted = (columns.text,) if labels_optional else (columns.text, columns.label)
    cells = _json_cells(path, text, columns, wanted) if kind == ".jsonl" else _cells(path, text, columns, wanted)
    rows = tuple(_checked(path, cells))
    if not rows:
        raise DataError(f"{path} has a header but no rows; give a file with rows")
    return rows


def read_texts(path: Path, columns: Columns) -> tuple[str, ...]:
    """Texts alone: the rows of a table, whatever their labels, or the lines of a .txt that hold something."""
    if kind_of(path) not in TEXT_KINDS:
        return tuple(row.text for row in read_table(path, columns, labels_optional=True))
    return tuple(line.strip() for line in read_text(path).split("\n") if line.strip())


def _cells(path: Path, text: str, columns: Columns, wanted: tuple[str, ...]) -> Iterator[Row]:
    source = io.StringIO(text, newline="")
    if kind_of(path) == ".tsv":
        reader = csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(source, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        _require(path, wanted, header, line=1)
        at_text, at_label = header.index(columns.text), header.index(columns.label) if columns.label in header else None
        line = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                expected = f"{len(header)} ({', '.join(header)})"
                raise DataError(f"{path}, line {line}: {len(fields)} fields, expected {expected}; mend the row")
            if fields:
                yield Row(fields[at_text], UNLABELLED if at_label is None else fields[at_label], line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; mend the row") from error


def _json_cells(path: Path, text: str, columns: Columns, wanted: tuple[str, ...]) -> Iterator[Row]:
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        try:
            cells = json.loads(source)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {line}: not JSON ({error}); write one object a line") from error
        if not isinstance(cells, dict):
            raise DataError(f"{path}, line {line}: {type(cells).__name__}, expected an object; write one object a line")
        _require(path, wanted, cells, line)
        content, label = cells[columns.text], cells.get(columns.label, UNLABELLED)
        if not isinstance(content, str):
            raise DataError(f"{path}, line {line}: {columns.text} is {content!r:.40}, expected a string; mend the row")
        if isinstance(label, bool) or not isinstance(label, str | int):
            expected = "expected a string or an integer"
            raise DataError(f"{path}, line {line}: {columns.label} is {label!r:.40}, {expected}; mend the row")
        yield Row(content, str(label), line)


def _require(path: Path, wanted: tuple[str, ...], found: Collection[str], line: int) -> None:
    """Refuse a file without the columns asked for, and name those it has."""
    for name in wanted:
        if name not in found:
            has = ", ".join(found) or "none"
            raise DataError(f"{path}, line {line}: no column {name!r}, found: {has}; name the text and label columns")


def _checked(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        text, label = row.text.strip(), row.label.strip()
        if not text or not label:
            empty = "text" if not text else "label"
            raise DataError(f"{path}, line {row.line}: the {empty} is empty; fill it in or remove the row")
        yield Row(text, label, row.line)
