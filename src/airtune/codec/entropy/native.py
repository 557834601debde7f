"""The same lanes by constriction, compiled, where it is installed (Bamler 2022, arXiv:2201.01741).

Its `Categorical` gives the k-th of n codes the frequency ``floor(w_k) + 1`` where weights w sum to 2^24 - n; handing it
our frequencies less one reproduces our tables exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from airtune.codec.entropy.lanes import Words
from airtune.codec.entropy.tables import Codes, TableIndices, table
from airtune.errors import PayloadError

try:
    import constriction
except ImportError:  # no build for this machine: the lanes in NumPy read the same words
    AVAILABLE = False
else:
    AVAILABLE = True


def encode_lanes(lanes: Sequence[tuple[Codes, TableIndices]]) -> list[Words]:
    """As `lanes.encode_lanes`."""
    found = []
    for codes, tables in lanes:
        coder = constriction.stream.stack.AnsCoder()
        for start, stop in reversed(list(_runs(tables))):
            index = int(tables[start])
            symbols = codes[start:stop].astype(np.int32) + table(index).largest
            coder.encode_reverse(symbols, _categorical(index))
        found.append(coder.get_compressed())
    return found


def decode_lanes(lanes: Sequence[tuple[Words, TableIndices]]) -> list[Codes]:
    """As `lanes.decode_lanes`, errors too."""
    found = []
    for words, tables in lanes:
        if len(words) and words[-1] == 0:
            raise PayloadError("a stream of codes ends in a zero word; get the payload again")
        coder, codes = constriction.stream.stack.AnsCoder(np.ascontiguousarray(words)), np.empty(len(tables), np.int16)
        for start, stop in _runs(tables):
            index = int(tables[start])
            codes[start:stop] = coder.decode(_categorical(index), stop - start) - table(index).largest
        if not coder.is_empty():
            raise PayloadError("a stream of codes does not end where it should; get the payload again")
        found.append(codes)
    return found


def _runs(tables: TableIndices) -> Iterator[tuple[int, int]]:
    """Stretches of equal tables."""
    cuts = np.flatnonzero(np.diff(tables)) + 1
    edges = [0, *cuts.tolist(), len(tables)]
    return ((start, stop) for start, stop in pairwise(edges) if stop > start)


@cache
def _categorical(index: int) -> Any:
    return constriction.stream.model.Categorical((table(index).frequencies - 1).astype(np.float32), perfect=False)
