"""The task as a run reads it: tokenised parts, and how complex each training batch is (H, rho).

Train / calibration / dev / test are disjoint. Rewards, greedy and the surrogate read calibration; a report reads test.
A seed redraws the calibration part; what is scored in the end is the same for every seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from airtune.errors import DataError
from airtune.models import BaseModel, Items, sentences, windows
from airtune.records import generator
from airtune.tasks import Complexity, Lexicon, Task, Text, complexity, words_of

COMPLEXITY_BATCHES = 64
"""How many batches' complexities a run draws its states from."""
CHARACTERS_PER_TOKEN = 3


@dataclass(frozen=True)
class Parts:
    """Tokenised items of each part, and the complexity of some training batches."""

    train: Items
    calibration: Items
    dev: Items
    test: Items
    complexities: tuple[Complexity, ...]

    @property
    def complexity(self) -> Complexity:
        """Of the task as a whole: the mean over its batches."""
        entropy, rate, words = (
            float(np.mean([getattr(found, name) for found in self.complexities]))
            for name in ("entropy_bits", "oov_rate", "words")
        )
        return Complexity(entropy, rate, round(words))


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns parts of a task into items for one base model.

    Args:
        max_length: Longest sentence in tokens.
        window: Window of running text in tokens; windows overlap by half in training and not at all elsewhere.
    """

    task: Task
    base: BaseModel
    max_length: int
    window: int

    def items(self, part: str) -> Items:
        """All items of a part."""
        content = getattr(self.task, part)
        if isinstance(self.task, Text):
            stride = self.window // 2 if part == "train" else self.window
            return windows(content, self.base.tokenizer, window=self.window, stride=stride)
        texts, classes = [example.text for example in content], [example.label for example in content]
        return sentences(texts, classes, self.base.tokenizer, max_length=self.max_length)

    def drawn(self, part: str, count: int, seed: int) -> Items:
        """At most `count` items of a part, drawn by the seed; in the part's order."""
        items = self.items(part)
        if len(items) <= count:
            return items
        return items.chosen(np.sort(generator(seed, "draw", part).permutation(len(items))[:count]))

    def spread(self, part: str, count: int) -> Items:
        """At most `count` items of a part, evenly over it: a module or page counts by its length."""
        items = self.items(part)
        if len(items) <= count:
            return items
        return items.chosen((2 * np.arange(count) + 1) * len(items) // (2 * count))

    def complexities(self, batch_size: int, seed: int) -> tuple[Complexity, ...]:
        """H and rho of some training batches, against the whole words of the tokenizer's vocabulary as lexicon."""
        lexicon = Lexicon.from_vocabulary(self.base.tokenizer.get_vocab())
        batches = self._batches(batch_size)
        shuffled = (batches[index] for index in generator(seed, "complexity").permutation(len(batches)))
        worded = (batch for batch in shuffled if any(words_of(text) for text in batch))
        found = tuple(complexity(batch, lexicon) for batch in islice(worded, COMPLEXITY_BATCHES))
        if not found:
            raise DataError(f"the training part of {self.task.name} holds no words; give texts with letters or digits")
        return found

    def _batches(self, batch_size: int) -> list[Sequence[str]]:
        """Train in batches, in order. What is left over is dropped: H grows with the words a batch holds."""
        if isinstance(self.task, Text):
            text, size = self.task.train, batch_size * self.window * CHARACTERS_PER_TOKEN
            return [[text[start : start + size]] for start in _starts(len(text), size)]
        texts = [example.text for example in self.task.train]
        return [texts[start : start + batch_size] for start in _starts(len(texts), batch_size)]


def _starts(length: int, size: int) -> range:
    """Where whole pieces of `size` begin; 0 alone where there is none."""
    return range(0, max(1, length - size + 1), size)


def read_parts(
    reader: Reader, *, batch_size: int, calibration_items: int, dev_items: int, test_items: int, seed: int
) -> Parts:
    """Every part a run needs; calibration, dev and test hold at most so many items."""
    return Parts(
        train=reader.items("train"),
        calibration=reader.drawn("calibration", calibration_items, seed),
        dev=reader.spread("dev", dev_items),
        test=reader.spread("test", test_items),
        complexities=reader.complexities(batch_size, seed),
    )
