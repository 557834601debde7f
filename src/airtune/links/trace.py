"""Fading replayed from a measurement: a column of decibels in a CSV file.

Knows files and the law of the values found; the level a trace was measured at is only reported, since a link states its
own mean SNR.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, final

import numpy as np

from airtune.errors import LinkError
from airtune.links.ranges import BLOCKS, POWER, PROBABILITY, SNR
from airtune.links.units import db_to_linear, linear_to_db

_MISSING: Final = frozenset({"", "-", "nan", "na", "n/a", "null", "none"})
_BOUND_DB: Final = 200.0
"""Wide enough for received power in dBm; beyond it stand error codes such as 9999."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A measured channel, block by block: the values' differences in decibels become power gains around a mean of 1.

    A draw of gains starts at a random block and replays what follows, from the end on to the beginning; a new draw
    starts anew. A trace has no phase: gains are real. Its law is the empirical one.

    Args:
        values_db: One value a block, in order: SNR in dB, or received power in dBm.

    Attributes:
        powers: |h|^2 of every block, shape ``(blocks,)``, mean 1.
        mean_snr_db: The mean linear power of the values, in dB: the SNR at which a link repeats the measurement.

    Raises:
        LinkError: no values, or one that is not finite or beyond 200 dB either way.
    """

    values_db: np.ndarray
    powers: np.ndarray = field(init=False, repr=False)
    mean_snr_db: float = field(init=False)
    _ascending: np.ndarray = field(init=False, repr=False)
    name: ClassVar[str] = "trace"

    def __post_init__(self) -> None:
        values_db = np.array(self.values_db, dtype=np.float64)
        if values_db.ndim != 1 or not len(values_db):
            raise LinkError(f"a trace has values of shape {values_db.shape}; give one dimension, at least one value")
        if not np.all(np.abs(values_db) <= _BOUND_DB):
            worst = values_db[~(np.abs(values_db) <= _BOUND_DB)][0]
            raise LinkError(f"a trace has the value {worst}; give decibels from -{_BOUND_DB:g} to {_BOUND_DB:g}")
        linear = db_to_linear(values_db)
        powers = linear / linear.mean()
        found = {"values_db": values_db, "powers": powers, "_ascending": np.sort(powers)}
        for name, values in found.items():
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        object.__setattr__(self, "mean_snr_db", linear_to_db(float(linear.mean())))

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        column: str = "SNR",
        *,
        session: str | int | None = None,
        session_column: str = "session",
    ) -> Trace:
        """Read a column of a CSV file with a header line, or of a gzipped one named ``*.gz``.

        Args:
            path: The file, UTF-8, comma-separated.
            column: The column that holds decibels. Missing values (empty, -, nan, na, null) are skipped.
            session: Keeps the rows with this value in `session_column`; without it, every row in the file's order.
            session_column: The column that tells sessions apart; needed only with `session`.

        Raises:
            LinkError: the file cannot be read, has no such column or session, a row of another length than the
                header, or a value that is no decibels.
        """
        path = Path(path)
        wanted = None if session is None else (session_column, str(session))
        try:
            with (
                gzip.open(path, "rt", encoding="utf-8-sig", newline="")
                if path.suffix == ".gz"
                else path.open(encoding="utf-8-sig", newline="") as lines
            ):
                values = list(_values(lines, path.name, column, wanted))
        except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise LinkError(
                f"trace {path} cannot be read ({reason}); give a CSV file, plain or gzipped as .gz"
            ) from None
        if not values:
            raise LinkError(f"trace {path} has no value in column {column!r}; choose another column or file")
        return cls(np.array(values))

    def gains(self, rng: np.random.Generator, blocks: int) -> np.ndarray:
        """Consecutive blocks from a start drawn with `rng`, complex128, shape ``(blocks,)``."""
        start = rng.integers(len(self.powers))
        replayed = (start + np.arange(BLOCKS.check_whole(blocks))) % len(self.powers)
        return np.sqrt(self.powers[replayed]).astype(np.complex128)

    def power_cdf(self, power: float) -> float:
        return float(np.searchsorted(self._ascending, POWER.check(power), side="right") / len(self._ascending))

    def power_quantile(self, probability: float) -> float:
        rank = math.ceil(PROBABILITY.check(probability) * len(self._ascending))
        return float(self._ascending[rank - 1])

    def mean_efficiency(self, snr: float) -> float:
        return float(np.log1p(SNR.check(snr) * self.powers).mean() / math.log(2))


def _values(lines: Iterable[str], name: str, column: str, session: tuple[str, str] | None) -> Iterator[float]:
    """The values of a column, in order; `session` is a column and what it must hold."""
    rows = csv.reader(lines)
    header = next(rows, [])
    at = _position(header, column, name)
    session_at = None if session is None else _position(header, session[0], name)
    sessions = set()
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise LinkError(
                f"trace {name} line {rows.line_num} has {len(row)} fields, the header {len(header)}; mend the file"
            )
        if session_at is not None and session is not None:
            sessions.add(row[session_at])
            if row[session_at] != session[1]:
                continue
        if (text := row[at].strip()).lower() not in _MISSING:
            yield _decibels(text, f"trace {name} line {rows.line_num} has {column} {text!r}")
    if session is not None and session[1] not in sessions:
        known = ", ".join(sorted(sessions)[:8]) + (", ..." if len(sessions) > 8 else "")
        raise LinkError(f"trace {name} has no {session[0]} {session[1]!r}; choose one of {known or 'no rows at all'}")


def _position(header: list[str], column: str, name: str) -> int:
    if column not in header:
        known = ", ".join(header) or "no header line at all"
        raise LinkError(f"trace {name} has no column {column!r}; choose one of its columns: {known}")
    return header.index(column)


def _decibels(text: str, found: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if abs(value) <= _BOUND_DB:
        return value
    raise LinkError(f"{found}; give decibels from -{_BOUND_DB:g} to {_BOUND_DB:g}, or leave it empty")
