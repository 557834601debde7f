"""Answers are found again after any end, and never asked for twice."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest

from airtune.errors import RunError
from airtune.records import Measurements

_QUESTION = {"adapter": "ab" * 32, "ranks": (8, 0, 4), "bits": (4, 4, 8), "snr_db": -5.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "losses.jsonl"


def test_an_answer_is_known_after_a_restart(path: Path):
    first = Measurements(path)
    assert first.get(_QUESTION) is None
    assert _QUESTION not in first
    first.put(_QUESTION, np.float64(0.1) + 0.2)
    for measurements in (first, Measurements(path)):
        assert measurements.get(_QUESTION) == 0.30000000000000004
        assert len(measurements) == 1


def test_a_question_is_its_content(path: Path):
    measurements = Measurements(path)
    measurements.put(_QUESTION, 1.0)
    assert dict(reversed([*(_QUESTION | {"ranks": np.array([8, 0, 4])}).items()])) in measurements
    assert _QUESTION | {"ranks": (0, 8, 4)} not in measurements
    assert _QUESTION | {"more": None} not in measurements


def test_only_new_questions_are_asked(path: Path):
    asked: list[int] = []

    def ask(number: int) -> dict[str, int]:
        asked.append(number)
        return {"square": number**2}

    for _ in range(2):
        measurements = Measurements(path)
        for number in (1, 2, 1):
            answer = measurements.measure({"n": number}, lambda number=number: ask(number))
            assert answer == {"square": number**2}
    assert asked == [1, 2]


@pytest.mark.parametrize("answer", [None, math.nan, math.inf, (1, math.nan)])
def test_an_answer_that_is_not_finite_is_known_and_the_same_after_a_restart(path: Path, answer: object):
    before = Measurements(path)
    kept = before.measure(_QUESTION, lambda: answer)
    assert kept == ([1, None] if isinstance(answer, tuple) else None)
    assert _QUESTION in Measurements(path)
    assert Measurements(path).get(_QUESTION, "unknown") == kept


def test_the_later_answer_counts(path: Path):
    measurements = Measurements(path)
    measurements.put(_QUESTION, 1.0)
    measurements.put(_QUESTION, 2.0)
    assert measurements.get(_QUESTION) == Measurements(path).get(_QUESTION) == 2.0


def test_damaged_lines_are_skipped(path: Path):
    measurements = Measurements(path)
    for number in range(3):
        measurements.put({"n": number}, number)
    lines = path.read_text().splitlines()
    wrong_key = json.dumps(json.loads(lines[1]) | {"question": {"n": 7}})
    damaged = [
        "{",
        "[]",
        "null",
        "\x00" * 9,
        '{"key": 1}',
        '{"key": "a", "answer": 1, "question": NaN}',
        wrong_key,
        "[" * 9999,
    ]
    path.write_text("\n".join([lines[0], *damaged, lines[2], lines[1][:30]]))
    kept = Measurements(path)
    assert [kept.get({"n": number}) for number in (0, 1, 2, 7)] == [0, None, 2, None]
    kept.put({"n": 1}, 1)
    assert [Measurements(path).get({"n": number}) for number in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}])
def test_a_question_without_one_meaning_is_refused(path: Path, value: object):
    with pytest.raises(RunError):
        Measurements(path).measure({"x": value}, lambda: 1.0)
    assert not path.exists()


def test_a_kill_loses_nothing_that_was_put(path: Path, elsewhere):
    source = """
import os, signal, sys
from pathlib import Path
from airtune.records import Measurements
measurements = Measurements(Path(sys.argv[1]))
for n in range(20):
    measurements.put({"n": n}, n * n)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert elsewhere(source, path).returncode == -signal.SIGKILL
    measurements = Measurements(path)
    assert [measurements.get({"n": n}) for n in range(20)] == [n * n for n in range(20)]
