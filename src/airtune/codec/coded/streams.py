"""Runs and vectors of codes as byte streams: a side stream of small numbers, then lanes of codes.

Whatever is coded under table 0 is all zero and in no stream. Knows bytes and codes; not sites or tensors. Reading
trusts nothing: a count is held against the bytes at hand before anything is cut out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from airtune.codec.entropy import LANE_CODES, TABLES, Codes, TableIndices, Words, best_table, code_bits, encode_lanes
from airtune.errors import PayloadError

LANE_BYTES = 2 + 8
"""The most a lane takes beyond what its codes cost: its count, and two words that are not full."""
BODY_BYTES = 2 + 4 * 3
"""Heads of a body of directions."""

Vector = tuple[Codes, int]
"""Codes and the table they are under."""

_COUNT = struct.Struct("<H")
_MOST = 2**16 - 1
_RUN = struct.Struct("<hB")


@dataclass(frozen=True, slots=True)
class Run:
    """Small numbers of one kind: each is sent as its distance from `centre`, all under one table."""

    centre: int
    table: int

    @classmethod
    def of(cls, values: npt.NDArray[np.int64]) -> Run:
        """The run with the centre nearest to the mean, and the table that costs least."""
        centre = round(float(values.mean())) if len(values) else 0
        return cls(centre, best_table(values - centre)[0])

    def bits(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """What each number costs; infinite where the table does not hold it."""
        distances = np.abs(values - self.centre)
        costs = code_bits(self.table)
        return np.where(distances < len(costs), costs[np.minimum(distances, len(costs) - 1)], np.inf)


def write_streams(
    runs: Sequence[npt.NDArray[np.integer]], vectors: Sequence[Vector], known: Sequence[Run | None] = ()
) -> bytes:
    """Heads of the runs, the side stream, the lanes.

    Args:
        known: What a run may be coded under where that is no dearer than its own best; nothing for no such offer.

    Raises:
        PayloadError: a run is spread wider than a table holds, or runs take more words than a body counts.
    """
    whole = [values.astype(np.int64) for values in runs]
    heads = [_cheaper(values, offer) for values, offer in zip_longest(whole, known)]
    side = _joined([((run - head.centre).astype(np.int16), head.table) for head, run in zip(heads, whole, strict=True)])
    codes, tables = _joined(vectors)
    words = encode_lanes([side, *((codes[at], tables[at]) for at in lanes_of(len(codes)))])
    if len(words[0]) > _MOST:
        raise PayloadError(f"side numbers take {len(words[0])} words, a body holds {_MOST}; send fewer rows")
    return b"".join(
        (
            *(_RUN.pack(head.centre, head.table) for head in heads),
            _COUNT.pack(len(words[0])),
            _bytes(words[0]),
            *(_COUNT.pack(len(lane)) for lane in words[1:]),
            *(_bytes(lane) for lane in words[1:]),
        )
    )


def lanes_of(codes: int) -> list[slice]:
    """Where the lanes of a body cut its codes: into parts as equal as can be, of about `LANE_CODES`; none of none."""
    lanes = max(1, round(codes / LANE_CODES)) if codes else 0
    return [slice(lane * codes // lanes, (lane + 1) * codes // lanes) for lane in range(lanes)]


class StreamReader:
    """Reads one body in two steps, so that all bodies' streams can be decoded together.

    Args:
        body: What follows a body's own head.
        lengths: How many numbers each run holds.

    Raises:
        PayloadError: the bytes are not such a body.
    """

    def __init__(self, body: memoryview, lengths: Sequence[int]) -> None:
        self._body, self._at, self._lengths = body, 0, lengths
        self._heads = [Run(*_RUN.unpack(self._take(_RUN.size))) for _ in lengths]
        _check_tables(np.array([head.table for head in self._heads]))
        (count,) = _COUNT.unpack(self._take(_COUNT.size))
        sent = [length if head.table else 0 for length, head in zip(lengths, self._heads, strict=True)]
        self.side = self._words(count), np.repeat(np.array([head.table for head in self._heads], np.uint8), sent)

    def runs(self, side: Codes) -> list[npt.NDArray[np.int64]]:
        """The numbers of every run, from the decoded side stream."""
        found, at = [], 0
        for length, head in zip(self._lengths, self._heads, strict=True):
            distances = side[at : at + length] if head.table else np.zeros(length, np.int64)
            at += len(distances) if head.table else 0
            found.append(distances.astype(np.int64) + head.centre)
        return found

    def lanes(self, lengths: npt.NDArray[np.int64], tables: npt.NDArray[np.int64]) -> list[tuple[Words, TableIndices]]:
        """The lanes that hold vectors of these lengths under these tables; the body ends with them."""
        _check_tables(tables)
        self._vectors = lengths, tables > 0
        each = np.repeat(tables.astype(np.uint8), np.where(tables > 0, lengths, 0))
        cuts = lanes_of(len(each))
        counts = [_COUNT.unpack(self._take(_COUNT.size))[0] for _ in cuts]
        found = [(self._words(count), each[cut]) for count, cut in zip(counts, cuts, strict=True)]
        if self._at != len(self._body):
            raise PayloadError(
                f"a body has {len(self._body) - self._at} bytes more than its streams; get the payload again"
            )
        return found

    def codes(self, lanes: Sequence[Codes]) -> Codes:
        """The codes of all vectors, one after the other, from the decoded lanes."""
        lengths, sent = self._vectors
        found = np.zeros(int(lengths.sum()), np.int16)
        if lanes:
            found[np.repeat(sent, lengths)] = np.concatenate(lanes)
        return found

    def _take(self, size: int) -> memoryview:
        if self._at + size > len(self._body):
            raise PayloadError("a body ends inside its streams; get the payload again")
        self._at += size
        return self._body[self._at - size : self._at]

    def _words(self, count: int) -> Words:
        return np.frombuffer(self._take(4 * count), "<u4").astype(np.uint32)


def _cheaper(values: npt.NDArray[np.int64], offer: Run | None) -> Run:
    own = Run.of(values)
    if offer is not None and offer.bits(values).sum() < own.bits(values).sum():
        return offer
    if not np.isfinite(own.bits(values)).all():
        raise PayloadError(f"side numbers run from {values.min()} to {values.max()}, too far apart for one chunk")
    return own


def _joined(vectors: Sequence[Vector]) -> tuple[Codes, TableIndices]:
    sent = [(codes, table) for codes, table in vectors if table]
    codes = np.concatenate([np.zeros(0, np.int16), *(codes for codes, _ in sent)])
    tables = np.repeat(np.array([table for _, table in sent], np.uint8), [len(codes) for codes, _ in sent])
    return codes, tables


def _check_tables(tables: npt.NDArray[np.integer]) -> None:
    if len(tables) and not 0 <= tables.min() <= tables.max() < TABLES:
        raise PayloadError(f"a body names table {tables.min()} to {tables.max()} of {TABLES}; get the payload again")


def _bytes(words: Words) -> bytes:
    return words.astype("<u4").tobytes()
