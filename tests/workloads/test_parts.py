"""Parts of a task as items: disjoint, drawn by seed where they should be, and the complexity of their batches."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from airtune.errors import DataError
from airtune.models import BaseModel, load_base
from airtune.tasks import Classification, Example, Sizes, Text, load_task, words_of
from airtune.workloads.parts import Parts, Reader, read_parts
from tiny_models import WORDS, save_tiny_model

PARTS = ("train", "calibration", "dev", "test")
DOCS = [
    "Return a new list containing all items from the iterable in ascending order.",
    "The a mat it was not then.",
    "Raise a ValueError if the string cannot be decoded with the given encoding.",
    "Open the file and return a stream; the stream is closed when the with block ends.",
    "the cat sat on the mat and the dog ran",
    "Threads share the memory of a process, so access to mutable objects is guarded by locks.",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> BaseModel:
    return load_base(str(save_tiny_model(tmp_path_factory.mktemp("bert"), "bert", kind="classify")), "classify")


def some_sentences(count: int) -> list[tuple[str, int]]:
    """Sentences of known words, all different."""
    rng, found = np.random.default_rng(0), dict[str, int]()
    while len(found) < count:
        found[" ".join(rng.choice(WORDS[4:], rng.integers(4, 12)))] = len(found) % 2
    return list(found.items())


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Classification:
    path: Path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps({"sentence": s, "label": k}) + "\n" for s, k in some_sentences(400)))
    task = load_task("classify", data=path, sizes=Sizes(calibration=60))
    assert isinstance(task, Classification)
    return task


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Text:
    path: Path = tmp_path_factory.mktemp("data") / "text.txt"
    words = np.random.default_rng(1).choice(WORDS[4:], 4000)
    path.write_text("\n".join(" ".join(words[start : start + 10]) for start in range(0, len(words), 10)))
    task = load_task("text", data=path)
    assert isinstance(task, Text)
    return task


def parts_of(reader: Reader, seed: int = 0, count: int = 12) -> Parts:
    return read_parts(reader, batch_size=8, calibration_items=count, dev_items=count, test_items=count, seed=seed)


def tokens(items) -> list[tuple[int, ...]]:
    return [tuple(ids.tolist()) for ids in items.ids]


def test_labelled_parts_share_no_item(base, labelled):
    parts = parts_of(Reader(labelled, base, max_length=32, window=8), count=10**6)
    found = [set(tokens(getattr(parts, part))) for part in PARTS]
    assert [len(part) for part in found] == [len(getattr(labelled, part)) for part in PARTS]  # all items, all different
    assert len(set.union(*found)) == sum(len(part) for part in found)


def test_items_keep_their_classes(base, labelled):
    parts = parts_of(Reader(labelled, base, max_length=32, window=8), seed=3)
    label_of = {tuple(base.tokenizer(text)["input_ids"]): label for text, label in some_sentences(400)}
    index_of = {name: index for index, name in enumerate(labelled.labels)}
    for part in PARTS:
        items = getattr(parts, part)
        assert [index_of[str(label_of[ids])] for ids in tokens(items)] == items.classes.tolist()


def test_sentences_are_cut_to_their_longest_length(base, labelled):
    items = Reader(labelled, base, max_length=7, window=8).items("train")
    whole = Reader(labelled, base, max_length=32, window=8).items("train")
    assert items.lengths.max() == 7 < whole.lengths.max()
    assert np.array_equal(items.lengths, np.minimum(whole.lengths, 7))


def test_windows_of_training_overlap_by_half_and_no_others_do(base, running):
    reader = Reader(running, base, max_length=32, window=16)
    for part in PARTS:
        stream = base.tokenizer(getattr(running, part), add_special_tokens=False)["input_ids"]
        stride = 8 if part == "train" else 16
        starts = range(0, len(stream) - 15, stride)
        assert tokens(reader.items(part)) == [tuple(stream[start : start + 16]) for start in starts]
    parts = parts_of(reader, count=10**6)
    seen = [set(tokens(getattr(parts, part))) for part in PARTS]
    assert len(set.union(*seen)) == sum(len(part) for part in seen)


@pytest.mark.parametrize("kind", ["labelled", "running"])
def test_a_seed_redraws_calibration_and_nothing_that_is_reported(base, labelled, running, kind):
    reader = Reader(labelled if kind == "labelled" else running, base, max_length=32, window=8)
    first, again, other = (parts_of(reader, seed) for seed in (0, 0, 1))
    for part in PARTS:
        assert tokens(getattr(first, part)) == tokens(getattr(again, part))
    for part in ("train", "dev", "test"):
        assert tokens(getattr(first, part)) == tokens(getattr(other, part))
    assert tokens(first.calibration) != tokens(other.calibration)
    assert set(tokens(other.calibration)) <= set(tokens(reader.items("calibration")))
    assert first.complexities == again.complexities


def test_draws_are_as_many_as_asked_in_order_without_repeats(base, labelled):
    reader = Reader(labelled, base, max_length=32, window=8)
    whole = tokens(reader.items("calibration"))
    for count in (1, 12, 59):
        rows = [whole.index(ids) for ids in tokens(reader.drawn("calibration", count, seed=4))]
        assert len(rows) == count
        assert rows == sorted(set(rows))
    assert tokens(reader.drawn("calibration", 60, seed=4)) == whole


def test_reported_items_lie_evenly_over_their_part(base, labelled):
    reader = Reader(labelled, base, max_length=32, window=8)
    whole = tokens(reader.items("calibration"))
    assert len(whole) == 60
    assert [whole.index(ids) for ids in tokens(reader.spread("calibration", 12))] == list(range(2, 60, 5))
    assert [whole.index(ids) for ids in tokens(reader.spread("calibration", 1))] == [30]
    for count in (7, 41, 59):
        rows = np.array([whole.index(ids) for ids in tokens(reader.spread("calibration", count))])
        assert len(rows) == count
        assert set(np.diff(rows)) <= {60 // count, 60 // count + 1}
    assert tokens(reader.spread("calibration", 60)) == whole


def classification(texts: list[str]) -> Classification:
    examples = tuple(Example(text, index % 2) for index, text in enumerate(texts))
    other = (Example("red", 0), Example("blue", 1))
    return Classification("docs", ("0", "1"), train=examples, calibration=other, dev=other, test=other)


def complexity_by_hand(texts: list[str]) -> tuple[float, float]:
    """scipy's entropy of the word counts, and the share of words that the tiny tokenizer's vocabulary lacks."""
    counts = Counter(word for text in texts for word in words_of(text))
    unknown = sum(count for word, count in counts.items() if word not in WORDS)
    return float(stats.entropy(list(counts.values()), base=2)), unknown / counts.total()


def test_complexities_of_real_sentences_by_hand(base):
    reader = Reader(classification(DOCS), base, max_length=32, window=8)
    found = sorted((c.entropy_bits, c.oov_rate) for c in reader.complexities(2, seed=0))
    expected = sorted(complexity_by_hand(DOCS[start : start + 2]) for start in (0, 2, 4))
    assert found == [pytest.approx(pair) for pair in expected]
    assert len({round(rate, 3) for _, rate in found}) == 3


def test_a_seed_redraws_which_batches_are_looked_at(base):
    many = [" ".join([f"unknown{row}", *["cat"] * (row % 29), "dog"]) for row in range(300)]
    reader = Reader(classification(many), base, max_length=32, window=8)
    first, again, other = (reader.complexities(2, seed=seed) for seed in (0, 0, 1))
    assert len(first) == len(other) == 64  # of 150 batches
    assert first == again != other
    assert len(reader.complexities(100, seed=0)) == 3


def test_what_does_not_fill_a_batch_is_left_out_unless_it_is_all_there_is(base):
    reader = Reader(classification([*DOCS[:4], "cat"]), base, max_length=32, window=8)
    found = {round(c.entropy_bits, 9) for c in reader.complexities(2, seed=0)}
    assert found == {round(complexity_by_hand(DOCS[start : start + 2])[0], 9) for start in (0, 2)}
    (only,) = reader.complexities(10, seed=0)
    assert only.entropy_bits == pytest.approx(complexity_by_hand([*DOCS[:4], "cat"])[0])


def test_batches_of_running_text_are_as_long_as_a_training_batch(base):
    """2 windows of 8 tokens of 3 characters: 48 characters; 100 are two batches, the last 4 are left over."""
    line = "the cat sat on a mat and the dog ran on the log "
    assert len(line) == 48
    text = line + line.upper() + "red\n"
    task = Text("t", train=text, calibration=line, dev=line, test=line)
    found = Reader(task, base, max_length=32, window=8).complexities(2, seed=0)
    assert [c.entropy_bits for c in found] == pytest.approx([complexity_by_hand([line])[0]] * 2)
    short = Text("t", train="red cat", calibration=line, dev=line, test=line)
    (only,) = Reader(short, base, max_length=32, window=8).complexities(2, seed=0)
    assert (only.entropy_bits, only.words) == (1.0, 2)


def test_batches_without_words_are_passed_over_and_a_part_of_nothing_else_is_refused(base):
    reader = Reader(classification(["...", "cat dog", "?!", "---"]), base, max_length=32, window=8)
    assert [c.words for c in reader.complexities(1, seed=0)] == [2]
    with pytest.raises(DataError, match="the training part of docs holds no words"):
        Reader(classification(["...", "?!"]), base, max_length=32, window=8).complexities(1, seed=0)


def test_batches_of_film_reviews_differ_in_complexity(base, shared):
    task = load_task("sst2", data=shared / "data" / "sst2", sizes=Sizes(train=4000))
    found = Reader(task, base, max_length=32, window=8).complexities(32, seed=0)
    assert len(found) == 64
    entropies, rates = np.array([c.entropy_bits for c in found]), np.array([c.oov_rate for c in found])
    assert (entropies < np.log2([c.words for c in found])).all()
    assert entropies.min() > 5  # hundreds of words, some of them often
    assert 0.05 < entropies.std() < 1
    assert (rates > 0.3).all()  # the tiny vocabulary has 22 words
    assert (rates < 1).all()
    assert rates.std() > 0.005
