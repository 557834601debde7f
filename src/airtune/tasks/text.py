"""Running text from one file: its last tenth is test; train, calibration and dev are spread over what comes before.

This module knows characters, no tokens: windows are cut by whoever has a tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from airtune.errors import DataError
from airtune.tasks.examples import PARTS, Part, Text
from airtune.tasks.files import TEXT_KINDS, kind_of, read_text
from airtune.tasks.splits import SHARES

STRETCHES, SHORTEST = 16, 20_000
"""Stretches that calibration and dev are taken from, at most, and the characters of the shortest."""
LONGEST_WORD = 200
"""Characters within which a cut looks for white space; scripts without any are cut where they are."""
_BLANK = re.compile(r"\s")


def load_text(path: Path) -> Text:
    """Read a .txt file (or .gz): 80 % train, 5 % calibration, 5 % dev of its characters, and the last 10 % test.

    A long text changes as it goes on, and ranks that suit one page need not suit the next. So all that comes before
    test is cut into stretches, each of which gives train, calibration and dev their shares, in this order. Cuts are
    moved on to white space where it is near, so no word is torn; within a part, a stretch follows the one before
    without a gap. Raises `DataError` for another kind of file, one that cannot be read, or one too short to be cut.
    """
    if kind_of(path) not in (*TEXT_KINDS, ""):
        raise DataError(f"{path} ends in {kind_of(path)}; give running text as .txt or .txt.gz")
    content = read_text(path)
    before, test = _cut(content, {"train": 1 - SHARES["test"], "test": SHARES["test"]}).values()
    shares: dict[Part, float] = {part: SHARES[part] for part in PARTS if part != "test"}
    pieces = [_cut(stretch, shares) for stretch in _stretches(before)]
    return Text(name="text", **{part: "".join(piece[part] for piece in pieces) for part in shares}, test=test)


def _stretches(content: str) -> Iterator[str]:
    """Equal stretches of a text, cut at white space."""
    count = max(1, min(STRETCHES, len(content) // SHORTEST))
    edges = [_word_start(content, len(content) * index // count) for index in range(count)]
    for start, end in pairwise([*edges, len(content)]):
        yield content[start:end]


def _cut(content: str, shares: Mapping[Part, float]) -> dict[Part, str]:
    """Consecutive parts of a text in these proportions, cut at white space."""
    whole, begun, edges = sum(shares.values()), 0.0, [0]
    for share in shares.values():
        begun += share
        edges.append(_word_start(content, round(begun / whole * len(content))))
    return {part: content[start:end] for part, (start, end) in zip(shares, pairwise(edges), strict=True)}


def _word_start(content: str, place: int) -> int:
    """The first place after white space that is near; where there is none, and at 0 and the end, the place itself."""
    if place in (0, len(content)):
        return place
    blank = _BLANK.search(content, place, place + LONGEST_WORD)
    return blank.end() if blank else place
