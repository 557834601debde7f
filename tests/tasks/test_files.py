"""Reading tables and text: what comes back, and one clear line for every way a file can be wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from airtune.errors import DataError
from airtune.tasks.examples import Columns
from airtune.tasks.files import Row, read_table, read_text

COLUMNS = Columns()


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (".tsv", 'label\tsentence\n1\tgood "film\n0\tbad\r\n'),
        (".csv", 'sentence,label\n"good ""film",1\nbad,0\n'),
        (".jsonl", '{"sentence": "good \\"film", "label": 1, "id": 7}\n{"sentence": "bad", "label": "0"}\n'),
    ],
)
def test_every_kind_of_table_gives_the_same_rows(tmp_path: Path, kind: str, content: str, packed: str) -> None:
    rows = read_table(write(tmp_path / f"rows{kind}{packed}", content), COLUMNS)
    assert [(row.text, row.label) for row in rows] == [('good "film', "1"), ("bad", "0")]


def test_a_row_knows_the_line_it_begins_on_though_a_field_spans_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", 'sentence,label\n"two\nlines",1\nbad,0\n')
    assert read_table(path, COLUMNS) == (Row("two\nlines", "1", 2), Row("bad", "0", 4))


def test_a_byte_order_mark_and_other_line_ends_are_no_part_of_the_text(tmp_path: Path) -> None:
    assert read_text(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\n")) == "one\ntwo\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "text\tlabel\nx\t1\n", r"no column 'sentence', found: text, label"),
        ("a.csv", "sentence\nx\n", r"no column 'label', found: sentence"),
        ("a.jsonl", '{"text": "x", "label": 1}\n', r"line 1: no column 'sentence', found: text, label"),
        ("a.tsv", "sentence\tlabel\nx\t1\ny\n", r"line 3: 1 fields, expected 2"),
        ("a.tsv", "sentence\tlabel\nx\t1\ty\n", r"line 2: 3 fields, expected 2"),
        ("a.csv", 'sentence,label\n"x"y,1\n', r"line 2: .*mend the row"),
        ("a.tsv", "sentence\tlabel\nx\t1\n  \t1\n", r"line 3: the text is empty"),
        ("a.tsv", "sentence\tlabel\nx\t\n", r"line 2: the label is empty"),
        ("a.tsv", "sentence\tlabel\n", r"no rows"),
        ("a.jsonl", "{}\n{\n", r"line 1: no column"),
        ("a.jsonl", '{"sentence": "x", "label": 1}\n{\n', r"line 2: not JSON"),
        ("a.jsonl", "[1]\n", r"line 1: list, expected an object"),
        ("a.jsonl", '{"sentence": 3, "label": 1}\n', r"line 1: sentence is 3, expected a string"),
        ("a.jsonl", '{"sentence": "x", "label": 1.5}\n', r"line 1: label is 1.5, expected a string or an integer"),
        ("a.jsonl", '{"sentence": "x", "label": null}\n', r"line 1: label is None"),
        ("a.tsv", b"sentence\tlabel\nx\t1\n\xff\t1\n", r"line 3: bytes that are not UTF-8"),
        ("a.tsv", " \n", r"is empty"),
        ("a.parquet", "x", r"ends in .parquet; give one of .jsonl, .tsv, .csv"),
    ],
)
def test_a_malformed_table_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(tmp_path / name, content), COLUMNS)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_torn_gzip_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_text(tmp_path / "absent.txt")
    whole = gzip.compress(b"some text " * 100)
    for torn in (whole[: len(whole) // 2], b"not gzip", whole[:12] + b"\xff\xff" + whole[14:]):
        (tmp_path / "torn.txt.gz").write_bytes(torn)
        with pytest.raises(DataError, match="not a whole gzip file"):
            read_text(tmp_path / "torn.txt.gz")
