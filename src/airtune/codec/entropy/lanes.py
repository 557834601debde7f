"""Codes <-> words by asymmetric numeral systems (Duda 2013), many streams side by side in NumPy.

A lane is one stream: the words that constriction's `AnsCoder` gives for the same codes and tables, its state of 64 bits
and its words of 32, so either may read what the other wrote. All lanes advance together, one code a step, so that NumPy
works on as many numbers as there are lanes. Knows tables and words; not what the codes mean.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from airtune.codec.entropy.tables import PRECISION, TABLES, Codes, TableIndices, table
from airtune.errors import PayloadError

Words = npt.NDArray[np.uint32]

_WORD = np.uint64(32)
_SHIFT = np.uint64(PRECISION)
_LOW = np.uint64((1 << PRECISION) - 1)
_LOW_WORD = np.uint64(2**32 - 1)
_FEW = 8
"""As few lanes are decoded faster one after the other, number by number."""


class _Flat:
    """All tables in one row, so that a code of any table is found by one search.

    `starts` holds ``(table << 24) + cumulative frequency`` of every code, ascending; `place[j]` is where table j has
    its code 0.
    """

    def __init__(self) -> None:
        rows = [table(index) for index in range(TABLES)]
        lows = [np.concatenate([[0], np.cumsum(row.frequencies)[:-1]]) for row in rows]
        self.low = np.concatenate(lows).astype(np.uint64)
        self.frequency = np.concatenate([row.frequencies for row in rows]).astype(np.uint64)
        self.starts = np.concatenate([low + (j << PRECISION) for j, low in enumerate(lows)]).astype(np.int64)
        self.code = np.concatenate([np.arange(-row.largest, row.largest + 1) for row in rows]).astype(np.int16)
        self.starts_listed, self.codes_listed = self.starts.tolist(), self.code.tolist()
        self.rest_listed = list(zip(self.frequency.tolist(), self.low.tolist(), strict=True))
        ends = np.cumsum([len(low) for low in lows])
        self.place = np.array([end - row.largest - 1 for end, row in zip(ends, rows, strict=True)], np.int64)


@cache
def _flat() -> _Flat:
    return _Flat()


def encode_lanes(lanes: Sequence[tuple[Codes, TableIndices]]) -> list[Words]:
    """The words of every lane.

    Args:
        lanes: Codes ``(n,)`` and the table of each ``(n,)``; a code lies within its table.
    """
    flat, counts = _flat(), np.array([len(codes) for codes, _ in lanes], np.int64)
    order = np.argsort(-counts, kind="stable")  # the longest first: those still busy are a leading part
    most = int(counts.max(initial=0))
    at = np.zeros((most, len(lanes)), np.int32)
    for column, lane in enumerate(order):
        codes, tables = lanes[lane]
        at[: counts[lane], column] = flat.place[tables] + codes
    words = np.zeros((most + 2, len(lanes)), np.uint32)
    filled, state = np.zeros(len(lanes), np.int64), np.zeros(len(lanes), np.uint64)
    busy = np.searchsorted(-counts[order], -np.arange(most), side="left")  # lanes with more than `step` codes
    for step in range(most - 1, -1, -1):
        live = busy[step]
        index = at[step, :live]
        frequency, now = flat.frequency[index], state[:live]
        full = np.flatnonzero((now >> np.uint64(64 - PRECISION)) >= frequency)
        if len(full):
            words[filled[full], full] = (now[full] & _LOW_WORD).astype(np.uint32)
            filled[full] += 1
            now[full] >>= _WORD
        quotient = now // frequency
        state[:live] = (quotient << _SHIFT) + (now - quotient * frequency) + flat.low[index]
    for _ in range(2):
        left = np.flatnonzero(state)
        words[filled[left], left] = (state[left] & _LOW_WORD).astype(np.uint32)
        filled[left] += 1
        state[left] >>= _WORD
    found: list[Words] = [np.zeros(0, np.uint32)] * len(lanes)
    for column, lane in enumerate(order):
        found[lane] = words[: filled[column], column].copy()
    return found


def decode_lanes(lanes: Sequence[tuple[Words, TableIndices]]) -> list[Codes]:
    """The codes of every lane, as many as it has tables.

    Raises:
        PayloadError: words that no encoder writes for these tables.
    """
    if any(len(words) and words[-1] == 0 for words, _ in lanes):
        raise PayloadError("a stream of codes ends in a zero word; get the payload again")
    flat, counts = _flat(), np.array([len(tables) for _, tables in lanes], np.int64)
    order = np.argsort(-counts, kind="stable")
    most = int(counts.max(initial=0))
    busy = np.searchsorted(-counts[order], -np.arange(most), side="left")
    rows = np.concatenate([[0], np.cumsum(busy)])  # no room is kept for lanes that have ended
    tables = np.zeros(rows[-1], np.uint8)
    for column, lane in enumerate(order):
        tables[rows[: counts[lane]] + column] = lanes[lane][1]
    stream = np.concatenate([np.zeros(1, np.uint32), *(lanes[lane][0] for lane in order)])
    left = np.array([len(lanes[lane][0]) for lane in order], np.int64)
    next_word = np.cumsum(left)  # words are taken from the end of a lane's own
    state = np.zeros(len(lanes), np.uint64)
    for _ in range(2):
        _refill(state, np.flatnonzero((left > 0) & (state <= _LOW_WORD)), stream, next_word, left)
    codes = np.zeros(rows[-1], np.int16)
    together = int(np.count_nonzero(busy > _FEW))
    for step in range(together):
        live, row = busy[step], slice(rows[step], rows[step + 1])
        now = state[:live]
        quantile = now & _LOW
        key = (tables[row].astype(np.int64) << PRECISION) + quantile.astype(np.int64)
        index = np.searchsorted(flat.starts, key, side="right") - 1
        codes[row] = flat.code[index]
        now = flat.frequency[index] * (now >> _SHIFT) + quantile - flat.low[index]
        state[:live] = now
        low = np.flatnonzero((now <= _LOW_WORD) & (left[:live] > 0))
        if len(low):
            _refill(state, low, stream, next_word, left)
    for column in range(int(np.count_nonzero(counts > together))):
        places = rows[together : counts[order[column]]] + column
        unread = stream[next_word[column] - left[column] + 1 : next_word[column] + 1].tolist()
        codes[places], state[column] = _decode_alone(int(state[column]), unread, tables[places].tolist())
        left[column] = len(unread)
    if left.any() or state.any():
        raise PayloadError("a stream of codes does not end where it should; get the payload again")
    found: list[Codes] = [np.zeros(0, np.int16)] * len(lanes)
    for column, lane in enumerate(order):
        found[lane] = codes[rows[: counts[lane]] + column]
    return found


def _decode_alone(state: int, words: list[int], tables: list[int]) -> tuple[list[int], int]:
    """Codes of what is left of one lane, and the state after them; takes words from the end of `words`."""
    flat, found = _flat(), []
    starts, rest, codes = flat.starts_listed, flat.rest_listed, flat.codes_listed
    for index in tables:
        quantile = state & ((1 << PRECISION) - 1)
        place = bisect_right(starts, (index << PRECISION) + quantile) - 1
        found.append(codes[place])
        frequency, low = rest[place]
        state = frequency * (state >> PRECISION) + quantile - low
        if words and state < 2**32:
            state = state << 32 | words.pop()
    return found, state


def _refill(
    state: npt.NDArray[np.uint64],
    lanes: npt.NDArray[np.intp],
    stream: Words,
    next_word: npt.NDArray[np.int64],
    left: npt.NDArray[np.int64],
) -> None:
    state[lanes] = (state[lanes] << _WORD) | stream[next_word[lanes]].astype(np.uint64)
    next_word[lanes] -= 1
    left[lanes] -= 1
