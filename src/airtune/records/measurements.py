"""Costly results, kept by the content of their question, so that a resumed run does not ask twice.

One line of JSON per result: the SHA-256 of the question, the question, the answer. It knows nothing of what is
measured; whatever the answer depends on (adapter, data, seed) belongs into the question.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from airtune.errors import RunError
from airtune.records.atomic import append_line, read_lines
from airtune.records.plain import canonical_json, for_json, json_text


@final
class Measurements:
    """A cache on disk that survives a kill at any time.

    Answers come back as JSON gave them: tuples as lists, numbers that are not finite as None, the same before and
    after a restart. A line that is damaged is skipped, so its question is asked again. A question that holds a number
    that is not finite is refused with `RunError`.

    Args:
        path: The file of lines; it may be missing, or end in the middle of a line.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     losses = Measurements(Path(folder) / "losses.jsonl")
        ...     first = losses.measure({"ranks": (8, 8)}, lambda: 0.5)
        ...     again = losses.measure({"ranks": (8, 8)}, lambda: 0.7)
        >>> first, again
        (0.5, 0.5)
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answers: dict[str, Any] = {}
        for line in read_lines(path):
            try:
                record = json.loads(line)
                key, answer = record["key"], record["answer"]
                intact = key == _digest(record["question"])
            except (ValueError, RecursionError, KeyError, TypeError, RunError):
                continue
            if intact:
                self._answers[key] = answer

    def get(self, question: Mapping[str, Any], default: Any = None) -> Any:
        """The known answer to a question, or `default`."""
        return self._answers.get(_digest(question), default)

    def put(self, question: Mapping[str, Any], answer: Any) -> None:
        """Keep an answer; a later one to the same question replaces it. Raises `RunError` if it cannot be written."""
        key = _digest(question)
        append_line(self._path, json_text({"key": key, "question": question, "answer": answer}))
        self._answers[key] = for_json(answer)

    def measure(self, question: Mapping[str, Any], ask: Callable[[], Any]) -> Any:
        """The known answer, or else what `ask` returns, kept from now on."""
        if question not in self:
            self.put(question, ask())
        return self.get(question)

    def __contains__(self, question: Mapping[str, Any]) -> bool:
        return _digest(question) in self._answers

    def __len__(self) -> int:
        return len(self._answers)


def _digest(question: Mapping[str, Any]) -> str:
    """SHA-256 of the question: the order of keys does not matter, the order of lists does."""
    return hashlib.sha256(canonical_json(question).encode()).hexdigest()
