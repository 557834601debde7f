"""Disjoint parts and stratified draws, against counts worked out by hand."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airtune.errors import DataError
from airtune.tasks.examples import PARTS, Classification, Example, Sizes
from airtune.tasks.splits import assemble, draw, draw_texts, normalised, without_texts_of

YES_NO = ("no", "yes")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rows(count: int, prefix: str = "row", positive: int | None = None) -> list[Example]:
    """Make rows of which the first `positive` (half by default) have label 1."""
    return [Example(f"{prefix} {i}", int(i < (count // 2 if positive is None else positive))) for i in range(count)]


def texts(task: Classification) -> dict[str, set[str]]:
    return {part: {normalised(example.text) for example in getattr(task, part)} for part in PARTS}


def assert_disjoint(task: Classification) -> None:
    found = texts(task)
    assert all(found[a].isdisjoint(found[b]) for a, b in combinations(PARTS, 2))


def test_a_draw_is_stratified_and_keeps_the_order() -> None:
    drawn, rest = draw(rows(100, positive=20), 10, rng())
    assert Counter(example.label for example in drawn) == {1: 2, 0: 8}
    assert len(rest) == 90
    assert sorted([*drawn, *rest], key=lambda example: int(example.text[4:])) == rows(100, positive=20)
    assert list(drawn) == sorted(drawn, key=lambda example: int(example.text[4:]))


def test_the_largest_remainder_gets_the_row_that_rounding_leaves() -> None:
    drawn, _ = draw(rows(10, positive=3), 5, rng())  # quotas 1.5 and 3.5: one row is left, labels in order on a tie
    assert Counter(example.label for example in drawn) == {0: 4, 1: 1}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 3))
def test_a_draw_has_the_size_asked_for_and_is_fair_to_within_one_row(labels: list[int], count: int, seed: int) -> None:
    examples = [Example(str(place), label) for place, label in enumerate(labels)]
    drawn, rest = draw(examples, count, rng(seed))
    assert len(drawn) == min(count, len(examples))
    assert set(drawn) | set(rest) == set(examples)
    assert not set(drawn) & set(rest)
    for label, total in Counter(labels).items():
        got = sum(example.label == label for example in drawn)
        assert abs(got - len(drawn) * total / len(labels)) < 1


def test_copies_of_a_text_stay_on_one_side() -> None:
    copies = [Example(text, 0) for i in range(40) for text in (f"Row {i}", f"row  {i} ")]
    drawn, rest = draw_texts(copies, 10, rng())
    assert len(drawn) == 20
    assert len(rest) == 60
    assert not without_texts_of(drawn, drawn)
    assert without_texts_of(rest, drawn) == rest


def test_train_alone_is_cut_into_four_disjoint_parts() -> None:
    task = assemble("t", YES_NO, {"train": rows(400)}, Sizes(calibration=40), rng())
    assert [len(getattr(task, part)) for part in PARTS] == [300, 40, 20, 40]
    assert all(task.majority_share(part) == 0.5 for part in PARTS)
    assert_disjoint(task)


def test_rows_seen_in_dev_or_test_leave_training_and_are_counted() -> None:
    given_parts = {
        "train": [*rows(40), Example("DEV  1", 0), Example("test 2", 1)],
        "dev": rows(10, "dev"),
        "test": rows(10, "test"),
    }
    task = assemble("t", YES_NO, given_parts, Sizes(calibration=4), rng())
    assert task.train_rows_dropped == 2
    assert [len(getattr(task, part)) for part in PARTS] == [36, 4, 10, 10]
    assert_disjoint(task)


def test_rows_of_dev_that_stand_in_test_leave_dev() -> None:
    given_parts = {"train": rows(40), "dev": [*rows(4, "dev"), Example("test 1", 0)], "test": rows(10, "test")}
    task = assemble("t", YES_NO, given_parts, Sizes(), rng())
    assert len(task.dev) == 4
    assert len(task.test) == 10


def test_dev_is_halved_where_there_is_no_test_and_drawn_from_train_where_there_is_no_dev() -> None:
    without_test = assemble("t", YES_NO, {"train": rows(40), "dev": rows(20, "dev")}, Sizes(), rng())
    assert (len(without_test.dev), len(without_test.test)) == (10, 10)
    without_dev = assemble("t", YES_NO, {"train": rows(40), "test": rows(20, "test")}, Sizes(), rng())
    assert (len(without_dev.dev), len(without_dev.test)) == (4, 20)
    assert_disjoint(without_test)
    assert_disjoint(without_dev)


def test_calibration_is_512_or_a_tenth_and_loses_its_copies_from_train() -> None:
    sizes = {
        n: len(
            assemble(
                "t", YES_NO, {"train": rows(n), "dev": rows(9, "d"), "test": rows(9, "t")}, Sizes(), rng()
            ).calibration
        )
        for n in (200, 6_000)
    }
    assert sizes == {200: 20, 6_000: 512}
    copied = {"train": rows(50) * 2, "dev": rows(9, "d"), "test": rows(9, "t")}
    assert_disjoint(assemble("t", YES_NO, copied, Sizes(calibration=30), rng()))


def test_sizes_cap_every_part() -> None:
    task = assemble("t", YES_NO, {"train": rows(400)}, Sizes(train=100, calibration=20, dev=10, test=6), rng())
    assert [len(getattr(task, part)) for part in PARTS] == [100, 20, 10, 6]


def test_a_seed_redraws_calibration_and_the_same_seed_does_not() -> None:
    parts = {"train": rows(400), "dev": rows(20, "dev"), "test": rows(20, "test")}
    first, again, other = (assemble("t", YES_NO, parts, Sizes(), rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert texts(first)["calibration"] != texts(other)["calibration"]
    assert first.test == other.test


@pytest.mark.parametrize(
    ("parts", "sizes", "labels", "message"),
    [
        ({"train": rows(40)}, Sizes(calibration=30), YES_NO, "34 training rows, too few to draw 30"),
        ({"train": rows(3)}, Sizes(), YES_NO, "no rows left for"),
        ({"train": rows(1), "dev": rows(4, "d")}, Sizes(), YES_NO, "1 training rows, too few to draw 1"),
        ({"train": rows(40)}, Sizes(), ("only",), "at least 2 different labels"),
        ({"train": rows(1) * 40, "test": rows(4, "t")}, Sizes(), YES_NO, "0 training rows, too few to draw 1"),
    ],
)
def test_too_little_data_is_refused(parts: dict, sizes: Sizes, labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        assemble("t", labels, parts, sizes, rng())
    assert "\n" not in str(caught.value)


def test_a_size_below_one_and_a_label_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="size of dev is 0"):
        Sizes(dev=0)
    with pytest.raises(DataError, match=r"label index 7 is outside 0\.\.1"):
        Classification("t", YES_NO, *((Example("x", 7),),) * 4)
