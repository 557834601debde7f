"""Running text from one file, cut into four stretches that follow one another.

This module knows characters, no tokens: windows are cut by whoever has a tokenizer.
"""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path

from airtune.errors import DataError
from airtune.tasks.examples import PARTS, Text
from airtune.tasks.files import TEXT_KINDS, kind_of, read_text
from airtune.tasks.splits import SHARES

_BLANK = re.compile(r"\s")


def load_text(path: Path) -> Text:
    """Read a .txt file (or .gz): 80 % train, 5 % calibration, 5 % dev, 10 % test of its characters, in this order.

    Each cut is moved on to the next white space, so no word is torn; the four parts joined are the file again.
    Raises `DataError` for another kind of file, one that cannot be read, or one too short to be cut.
    """
    if kind_of(path) not in (*TEXT_KINDS, ""):
        raise DataError(f"{path} ends in {kind_of(path)}; give running text as .txt or .txt.gz")
    content = read_text(path)
    edges = [0]
    for share in list(accumulate(SHARES[part] for part in PARTS))[:-1]:
        blank = _BLANK.search(content, round(share * len(content)))
        edges.append(blank.end() if blank else len(content))
    edges.append(len(content))
    stretches = {part: content[edges[i] : edges[i + 1]] for i, part in enumerate(PARTS)}
    return Text(name="text", **stretches)
