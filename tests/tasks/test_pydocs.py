"""The embedded task: clean sentences, parts that share no module, the same on every machine with this Python."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from airtune.errors import DataError
from airtune.tasks import Classification, Sizes, load_task
from airtune.tasks.areas import AREAS, TOPICS, area_by_name
from airtune.tasks.examples import PARTS
from airtune.tasks.prose import MAX_WORDS, MIN_WORDS, sentences
from airtune.tasks.pydocs import Module, load_pydocs, read_modules, split_by_module
from airtune.tasks.splits import normalised

STDLIB = Path(sysconfig.get_path("stdlib"))

DIGEST = """
import hashlib
from airtune.tasks import Sizes, load_task
task = load_task("pydocs", seed=3)
print(hashlib.sha256(repr(task).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def units() -> tuple[Module, ...]:
    return read_modules(STDLIB)


@pytest.fixture(scope="module")
def task() -> Classification:
    loaded = load_task("pydocs")
    assert isinstance(loaded, Classification)
    return loaded


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("Return the first\nitem of a list.  Raise if it\nis empty or closed.", 2),
        ("Use :meth:`~Pool.map` or ``Pool.apply`` for *all* such calls, e.g. Both of them.", 1),
        ("Title of the whole page here\n============================\n", 0),
        (
            "How to do it:\n\n>>> this is an example of code\nand its output has words too\n\nIt ends after a line.",
            1,
        ),
        ("- the first of these two items\n- the second of these two items,\n  on two lines", 2),
        ("| a table | with many words | in a row |", 0),
        ("call(a=1, b=2) -> the result of this call", 0),
        ("Too few words here.", 0),
        ("word " * MAX_WORDS + "more.", 0),
    ],
)
def test_sentences_are_found_and_the_rest_is_left(document: str, expected: int) -> None:
    assert len(list(sentences(document))) == expected


def test_markup_is_stripped_and_the_words_are_kept() -> None:
    document = (
        'Use :meth:`~x` or ``Pool.map`` for *all* of\nthe "pending" calls [1].  See\n   (or not) what it does then.'
    )
    found = list(sentences(document.replace("~x", "Pool.run")))
    assert found == ["Use Pool.run or Pool.map for all of the pending calls."]


def test_there_are_enough_sentences_of_every_area_and_no_area_prevails(task: Classification) -> None:
    assert sum(len(unit.sentences) for unit in read_modules(STDLIB)) >= 6_000
    assert len(task.train) >= 6_000
    assert len(task.test) >= 1_000
    assert task.labels == tuple(AREAS)
    for part in PARTS:
        assert {example.label for example in getattr(task, part)} == set(range(len(AREAS)))
        assert task.majority_share(part) < 0.25


def test_every_sentence_has_5_to_60_words(task: Classification) -> None:
    lengths = [len(example.text.split()) for part in PARTS for example in getattr(task, part)]
    assert min(lengths) >= MIN_WORDS == 5
    assert max(lengths) <= MAX_WORDS == 60


def test_no_module_and_no_sentence_stands_in_two_parts(units: tuple[Module, ...], task: Classification) -> None:
    parts = split_by_module(units)
    assert sorted(unit.name for part in PARTS for unit in parts[part]) == sorted({unit.name for unit in units})
    texts = {part: {normalised(example.text) for example in getattr(task, part)} for part in PARTS}
    for a, b in combinations(PARTS, 2):
        assert {unit.name for unit in parts[a]}.isdisjoint(unit.name for unit in parts[b])
        assert texts[a].isdisjoint(texts[b])
    whole = {unit.name: set(unit.sentences) for unit in parts["test"]}
    assert {example.text for example in task.test} == set().union(*whole.values())


def test_a_module_is_one_file_or_one_topic(units: tuple[Module, ...]) -> None:
    by_name = {unit.name: unit for unit in units}
    assert by_name["logging"].area == "testing"
    assert by_name["logging.handlers"].area == "testing"
    assert any("familiar to users" in sentence for sentence in by_name["json"].sentences)
    assert not any(name.endswith(".__init__") for name in by_name)
    assert all(
        (STDLIB / f"{name.replace('.', '/')}.py").is_file() or (STDLIB / name.replace(".", "/")).is_dir()
        for name in by_name
        if not name.startswith(TOPICS)
    )
    assert all(name.startswith(TOPICS) for name, unit in by_name.items() if unit.area == "language")


def test_no_module_stands_in_two_areas() -> None:
    assert len(area_by_name()) == sum(len(names.split()) for names in AREAS.values())


def test_a_seed_redraws_calibration_and_order_but_neither_dev_nor_test(task: Classification) -> None:
    other = load_task("pydocs", seed=1)
    assert isinstance(other, Classification)
    assert (other.dev, other.test) == (task.dev, task.test)
    assert set(other.train) == set(task.train)
    assert other.train != task.train
    assert set(other.calibration) != set(task.calibration)
    assert len(task.calibration) == len(other.calibration) == 512


def test_it_is_the_same_under_another_hash_seed_and_locale() -> None:
    expected = hashlib.sha256(repr(load_task("pydocs", seed=3)).encode()).hexdigest()
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "LC_ALL": "C", "PYTHONPATH": paths}
    found = subprocess.run([sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == expected


def test_missing_sources_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "ast.py").write_text('"""Only one short sentence stands here."""\n', encoding="utf-8")
    with pytest.raises(
        DataError, match=r"gives 1 documentation sentences, expected 6000; install Python with"
    ) as caught:
        load_pydocs(Sizes(), np.random.default_rng(0), stdlib=tmp_path)
    assert "\n" not in str(caught.value)


def test_sizes_cap_the_parts_and_too_many_calibration_rows_are_refused() -> None:
    small = load_task("pydocs", sizes=Sizes(train=900, calibration=90, dev=45, test=45))
    assert [len(getattr(small, part)) for part in PARTS] == [900, 90, 45, 45]
    with pytest.raises(DataError, match="asked for 99999 calibration rows, but has"):
        load_task("pydocs", sizes=Sizes(calibration=99_999))
