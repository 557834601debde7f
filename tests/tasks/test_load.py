"""Tasks by name from files: sst2, classify, text, hub; written here, and the real ones where they are at hand."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from airtune.errors import DataError
from airtune.tasks import Classification, Columns, Sizes, Task, Text, load_task
from airtune.tasks.examples import PARTS
from airtune.tasks.splits import normalised
from airtune.tasks.tables import sorted_labels


def glue(path: Path, rows: list[tuple[str, object]]) -> Path:
    content = "sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def numbered(count: int, prefix: str) -> list[tuple[str, object]]:
    return [(f"{prefix} {i}", i % 2) for i in range(count)]


def classification(task: Task) -> Classification:
    assert isinstance(task, Classification)
    return task


def assert_disjoint(task: Classification) -> None:
    texts = {part: {normalised(example.text) for example in getattr(task, part)} for part in PARTS}
    assert all(texts[a].isdisjoint(texts[b]) for a, b in combinations(PARTS, 2))


@pytest.fixture
def sst2_folder(tmp_path: Path) -> Path:
    glue(tmp_path / "train.tsv.gz", [*numbered(60, "train"), ("DEV 3", 1)])
    glue(tmp_path / "dev.tsv", numbered(20, "dev"))
    glue(tmp_path / "test.tsv", numbered(30, "test"))
    return tmp_path


def test_sst2_reads_its_folder_and_draws_calibration_from_train(sst2_folder: Path) -> None:
    task = classification(load_task("sst2", data=sst2_folder, sizes=Sizes(calibration=10)))
    assert (task.kind, task.metric, task.labels) == ("classify", "accuracy", ("negative", "positive"))
    assert [len(getattr(task, part)) for part in PARTS] == [50, 10, 20, 30]
    assert task.train_rows_dropped == 1
    assert Counter(example.label for example in task.calibration) == {0: 5, 1: 5}
    assert [(example.text, example.label) for example in task.test[:2]] == [("test 0", 0), ("test 1", 1)]
    assert_disjoint(task)


@pytest.mark.parametrize("test_file", [None, "index\tsentence\n0\thidden\n", "sentence\tlabel\nhidden\t-1\n"])
def test_sst2_halves_dev_where_test_has_no_labels(sst2_folder: Path, test_file: str | None) -> None:
    (sst2_folder / "test.tsv").unlink()
    if test_file is not None:
        (sst2_folder / "test.tsv").write_text(test_file, encoding="utf-8")
    task = classification(load_task("sst2", data=sst2_folder))
    assert (len(task.dev), len(task.test)) == (10, 10)
    assert {example.text for example in (*task.dev, *task.test)} == {f"dev {i}" for i in range(20)}


def test_sst2_refuses_a_label_that_is_no_zero_or_one(sst2_folder: Path) -> None:
    glue(sst2_folder / "dev.tsv", [("good", 1), ("fine", "positive")])
    with pytest.raises(DataError, match=r"dev.tsv, line 3: label is 'positive', expected 0 or 1"):
        load_task("sst2", data=sst2_folder)


def test_sst2_refuses_a_folder_without_its_files(sst2_folder: Path, tmp_path: Path) -> None:
    (sst2_folder / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"no dev.tsv in"):
        load_task("sst2", data=sst2_folder)
    (sst2_folder / "train.tsv.gz").unlink()
    with pytest.raises(DataError, match=r"no train file in .* found: test.tsv"):
        load_task("sst2", data=sst2_folder)
    with pytest.raises(DataError, match=r"no folder"):
        load_task("sst2", data=tmp_path / "absent")


def test_classify_splits_one_file_with_copies_on_one_side(tmp_path: Path) -> None:
    lines = [{"review": f"{word} {i}", "stars": i % 3 + 9} for i in range(150) for word in ("Film", "film ")]
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    columns = Columns(text="review", label="stars")
    task = classification(load_task("classify", data=path, columns=columns))
    assert task.labels == ("9", "10", "11")
    assert len(task.test) == 60  # 30 of 300 rows' different texts, both copies of each
    assert_disjoint(task)
    assert task == load_task("classify", data=path, columns=columns)
    assert task != load_task("classify", data=path, columns=columns, seed=1)


def test_classify_reads_a_folder_of_any_kinds_and_sorts_string_labels(tmp_path: Path) -> None:
    glue(tmp_path / "train.tsv", [(f"train {i}", "zany" if i % 2 else "apt") for i in range(30)])
    (tmp_path / "validation.csv").write_text("label,sentence\nzany,dev 1\napt,dev 2\n", encoding="utf-8")
    (tmp_path / "test.jsonl").write_text('{"sentence": "test 1", "label": "zany"}\n', encoding="utf-8")
    task = classification(load_task("classify", data=tmp_path))
    assert task.labels == ("apt", "zany")
    assert [len(getattr(task, part)) for part in PARTS] == [27, 3, 2, 1]
    assert task.test[0].label == 1


def test_agnews_has_columns_of_its_own_unless_others_are_named(tmp_path: Path) -> None:
    rows = [{"text": f"news {i}", "label": "World" if i % 2 else "Sports", "title": f"title {i}"} for i in range(60)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = classification(load_task("agnews", data=tmp_path))
    assert (task.name, task.labels) == ("agnews", ("Sports", "World"))
    assert all(example.text.startswith("news ") for example in task.train)
    titled = classification(load_task("agnews", data=tmp_path, columns=Columns(text="title")))
    assert all(example.text.startswith("title ") for example in titled.train)


def test_labels_sort_as_numbers_only_if_all_are_and_equal_numbers_by_their_spelling() -> None:
    assert sorted_labels(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert sorted_labels(["10", "9", "x"]) == ("10", "9", "x")
    assert sorted_labels(["1", "01", "0"]) == ("0", "01", "1")


def test_classify_refuses_strange_labels_two_train_files_and_one_class(tmp_path: Path) -> None:
    glue(tmp_path / "train.tsv", numbered(30, "train"))
    glue(tmp_path / "test.tsv", [("x", 2)])
    with pytest.raises(DataError, match=r"test.tsv, line 2: label '2' is not in train \(0, 1\)"):
        load_task("classify", data=tmp_path)
    with pytest.raises(DataError, match=r"at least 2 different labels"):
        load_task("classify", data=glue(tmp_path / "one.tsv", [(f"row {i}", 1) for i in range(40)]))
    glue(tmp_path / "train.tsv.gz", numbered(30, "train"))
    with pytest.raises(DataError, match=r"several files for train: train.tsv, train.tsv.gz"):
        load_task("classify", data=tmp_path)


@pytest.mark.parametrize("name", ["words.txt", "words.txt.gz"])
def test_a_short_text_is_cut_into_four_parts_that_join_to_the_whole(tmp_path: Path, name: str) -> None:
    content = " ".join(f"word{i}" for i in range(1_000))
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    task = load_task("text", data=path)
    assert isinstance(task, Text)
    assert (task.kind, task.metric) == ("text", "perplexity")
    parts = [getattr(task, part) for part in PARTS]
    assert "".join(parts) == content
    assert [word for part in parts for word in part.split()] == content.split()  # no word is torn
    shares = [len(part) / len(content) for part in parts]
    assert shares == pytest.approx([0.8, 0.05, 0.05, 0.1], abs=0.005)


def test_a_long_text_gives_calibration_and_dev_from_all_over_it_and_test_from_its_end(tmp_path: Path) -> None:
    words = [f"w{i:06d}" for i in range(12_500)]  # 100,000 characters with blanks: 90,000 before test, 4 stretches
    (tmp_path / "long.txt").write_text(" ".join(words), encoding="utf-8")
    task = load_task("text", data=tmp_path / "long.txt")
    assert isinstance(task, Text)
    places = {part: [int(word[1:]) for word in getattr(task, part).split()] for part in PARTS}
    assert sorted(place for found in places.values() for place in found) == list(range(12_500))
    assert places["test"] == list(range(11_250, 12_500))
    for part, begins, share in (("train", 0, 80 / 90), ("calibration", 80 / 90, 5 / 90), ("dev", 85 / 90, 5 / 90)):
        stretch = 11_250 / 4
        expected = [stretch * (index + begins) for index in range(4)]
        pieces = np.split(places[part], np.flatnonzero(np.diff(places[part]) > 1) + 1)
        assert [piece[0] for piece in pieces] == pytest.approx(expected, abs=2)
        assert [len(piece) for piece in pieces] == pytest.approx([stretch * share] * 4, abs=2)


def test_text_without_white_space_is_cut_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("語" * 2_000, encoding="utf-8")
    task = load_task("text", data=tmp_path / "long.txt")
    assert [len(getattr(task, part)) for part in PARTS] == [1_600, 100, 100, 200]


def test_text_refuses_a_short_text_and_a_table(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("one word", encoding="utf-8")
    with pytest.raises(DataError, match="no text left for"):
        load_task("text", data=tmp_path / "short.txt")
    with pytest.raises(DataError, match=r"ends in \.csv"):
        load_task("text", data=tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("sst3", None, r"unknown task 'sst3'; choose one of pydocs, sst2, agnews, classify, text, hub:NAME"),
        ("hub:", None, r"unknown task 'hub:'"),
        ("sst2", None, r"task sst2 got no data, expected a folder"),
        ("pydocs", Path("x"), r"task pydocs reads no data, but got x"),
        ("classify", Path("absent.tsv"), r"no file absent.tsv"),
    ],
)
def test_a_wrong_name_or_missing_data_says_what_to_do(name: str, data: Path | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_task(name, data=data)


class HubSplit(list):
    """A stand-in for one split of a hub data set: rows, column names, and class names as a feature."""

    column_names = ("sentence", "label", "idx")
    features = {"label": SimpleNamespace(names=["bad", "good"])}  # noqa: RUF012


def hub_split(count: int, prefix: str, label: int | None = None) -> HubSplit:
    return HubSplit({"sentence": f"{prefix} {i}", "label": i % 2 if label is None else label} for i in range(count))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Put a stand-in for the library datasets in its place; returns the calls it gets."""
    calls: list[tuple[str, str | None]] = []

    def load_dataset(path: str, name: str | None = None) -> dict[str, HubSplit]:
        calls.append((path, name))
        if path == "glue/sst2":
            raise FileNotFoundError(f"Dataset '{path}' doesn't exist on the Hub")
        if path == "far/away":
            raise ConnectionError("no route\nto host")
        return {"train": hub_split(60, "train"), "validation": hub_split(8, "dev"), "test": hub_split(4, "test", -1)}

    library = ModuleType("datasets")
    library.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    return calls


def test_hub_names_may_have_an_owner_and_a_configuration(hub: list[tuple[str, str | None]]) -> None:
    for name in ("imdb", "stanfordnlp/sst2", "nyu-mll/glue/sst2", "glue/sst2"):
        load_task(f"hub:{name}")
    assert hub == [
        ("imdb", None),
        ("stanfordnlp/sst2", None),
        ("nyu-mll/glue", "sst2"),
        ("glue/sst2", None),
        ("glue", "sst2"),
    ]


def test_hub_keeps_class_names_and_leaves_out_a_part_without_labels(hub: list[tuple[str, str | None]]) -> None:
    task = classification(load_task("hub:stanfordnlp/sst2"))
    assert task.labels == ("bad", "good")
    assert [len(getattr(task, part)) for part in PARTS] == [54, 6, 4, 4]
    assert {example.text[:3] for example in task.test} == {"dev"}


def test_hub_says_what_is_wrong_in_one_line(hub: list[tuple[str, str | None]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"hub:far/away cannot be loaded \(ConnectionError: no route\)") as caught:
        load_task("hub:far/away")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"no column 'text', found: sentence, label, idx"):
        load_task("hub:imdb", columns=Columns(text="text"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"datasets, which is not installed; install airtune\[hub\]"):
        load_task("hub:imdb")


def test_real_sst2(shared: Path) -> None:
    task = classification(load_task("sst2", data=shared / "data" / "sst2"))
    assert len(task.calibration) == 512
    assert len(task.dev) == 872
    assert len(task.train) > 60_000
    assert 0.5 < task.majority_share("train") < 0.6
    assert_disjoint(task)


def test_real_continual_learning_task(shared: Path) -> None:
    folder = shared / "data" / "cl_benchmark" / "rte"
    task = classification(load_task("classify", data=folder, columns=Columns(text="text")))
    assert task.labels == ("contradiction", "entailment")
    with gzip.open(folder / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        assert len(task.test) == len(lines.readlines())
    assert_disjoint(task)


def test_real_agnews(shared: Path) -> None:
    task = classification(load_task("agnews", data=shared / "data" / "agnews"))
    assert task.labels == ("Business", "Science or Technology", "Sports", "World")
    assert_disjoint(task)


def test_real_shakespeare(shared: Path) -> None:
    path = shared / "data" / "tinyshakespeare" / "input.txt.gz"
    task = load_task("text", data=path)
    assert isinstance(task, Text)
    with gzip.open(path, "rt", encoding="utf-8") as text:
        content = text.read()
    parts = [getattr(task, part) for part in PARTS]
    assert sorted("".join(parts).split()) == sorted(content.split())
    assert content.endswith(task.test)
    assert [len(part) / len(content) for part in parts] == pytest.approx([0.8, 0.05, 0.05, 0.1], abs=0.005)
