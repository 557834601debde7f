"""What a task is: labelled sentences or running text, in four disjoint parts.

These values know neither where the data came from nor any tokenizer or model; windows, batches and token ids are made
elsewhere. Rewards and searches read `calibration`, tuning reads `dev`, a report reads `test` once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from airtune.errors import DataError

Part = Literal["train", "calibration", "dev", "test"]
PARTS: tuple[Part, ...] = ("train", "calibration", "dev", "test")


@dataclass(frozen=True, slots=True)
class Example:
    """One text and the index of its label in `Classification.labels`."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns (or JSON keys) that hold text and label."""

    text: str = "sentence"
    label: str = "label"


@dataclass(frozen=True, slots=True)
class Sizes:
    """At most how many rows of each part to keep, drawn stratified by label. Raises `DataError` below 1."""

    train: int | None = None
    """None keeps every row; likewise for dev and test."""
    calibration: int | None = None
    """None keeps 512, or a tenth of the training rows where those are fewer than 5,120."""
    dev: int | None = None
    test: int | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            size = getattr(self, part)
            if size is not None and size < 1:
                raise DataError(f"size of {part} is {size}; ask for at least 1 row, or leave it out for all")


@dataclass(frozen=True, slots=True)
class Classification:
    """Sentences with one of `labels` each; scored by accuracy, a share from 0 to 1.

    `train_rows_dropped` counts the rows that were taken out of training because their text stands in dev or test.
    """

    name: str
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    calibration: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    train_rows_dropped: int = 0

    kind: ClassVar[Literal["classify"]] = "classify"
    metric: ClassVar[Literal["accuracy"]] = "accuracy"

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            found = ", ".join(self.labels) or "none"
            raise DataError(f"task {self.name} has labels: {found}; give data with at least 2 different labels")
        for part in PARTS:
            if not (examples := getattr(self, part)):
                raise DataError(
                    f"task {self.name} has no rows left for {part}; give more rows or ask for fewer elsewhere"
                )
            if stray := {example.label for example in examples} - set(range(len(self.labels))):
                raise DataError(
                    f"task {self.name}, {part}: label index {min(stray)} is outside 0..{len(self.labels) - 1}"
                )

    def majority_share(self, part: Part = "test") -> float:
        """Return the share of the most frequent label: what guessing one label scores."""
        examples: Sequence[Example] = getattr(self, part)
        return max(Counter(example.label for example in examples).values()) / len(examples)


@dataclass(frozen=True, slots=True)
class Text:
    """Running text for next-token prediction, in four parts that do not overlap; scored by perplexity."""

    name: str
    train: str
    calibration: str
    dev: str
    test: str

    kind: ClassVar[Literal["text"]] = "text"
    metric: ClassVar[Literal["perplexity"]] = "perplexity"

    def __post_init__(self) -> None:
        for part in PARTS:
            if not getattr(self, part).strip():
                raise DataError(f"task {self.name} has no text left for {part}; give a longer text")


Task = Classification | Text
