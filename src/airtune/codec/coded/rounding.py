"""Round vectors to codes so that the error counts least under a metric, and the codes cost little.

With a full metric an entry's error is fed back into the entries still to be rounded, so that it lies where the metric
is small (Frantar et al. 2022, GPTQ, arXiv:2210.17323). With prices, each entry takes of the nearest code, the next one
towards zero and zero the one of least error + price x bits. Knows metrics and codes; not sites or scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from airtune.codec.entropy import LARGEST_CODE, Codes, best_table, code_bits
from airtune.errors import PayloadError

Floats = npt.NDArray[np.float64]

DAMPING = 0.1
"""Share of a metric's mean eigenvalue that is added to all of them, if nothing else is said."""
NOTHING = 1e-100
"""What an error counts under a metric of zeros alone: nothing, but it can be divided by."""
_BLOCK = 64
"""Columns whose errors are fed back into each other one by one, into all that follow at once."""


class Metric:
    """How much an error vector e counts: e H e^T.

    Args:
        weights: H as a matrix ``(d, d)``, as its diagonal ``(d,)``, or None where every entry counts 1.
        size: d.
        damping: Share of the weights' mean eigenvalue that is added to all of them, before all are scaled back to that
            mean: what calibration never saw still counts, and the larger errors are, the less the loss bends as it does
            at no error.

    Raises:
        PayloadError: weights that are not finite, of another size, or not positive semidefinite; a damping below 0.
    """

    def __init__(self, weights: npt.NDArray[np.floating] | None, size: int, damping: float = DAMPING) -> None:
        self.size = size
        given = None if weights is None else np.asarray(weights, np.float64)
        if given is not None and (given.shape not in ((size,), (size, size)) or not np.isfinite(given).all()):
            raise PayloadError(
                f"a metric has shape {given.shape}; give finite numbers of shape ({size}, {size}) or ({size},)"
            )
        if not (math.isfinite(damping) and damping >= 0):
            raise PayloadError(f"a metric's damping is {damping}; give a finite number, 0 or more")
        self._matrix: Floats | None = None
        self._diagonal = np.ones(size)
        self._order = np.arange(size)
        self._feedback: Floats | None = None
        if given is None:
            self.importance = self._diagonal
        elif not given.any():
            self._diagonal = self.importance = np.full(size, NOTHING)
        elif given.ndim == 1:
            self._diagonal = self.importance = (given + damping * given.mean()) / (1 + damping)
        else:
            self._matrix = (given + damping * (np.trace(given) / size) * np.eye(size)) / (1 + damping)
            self._factorise(self._matrix)
        if (self.importance <= 0).any():
            raise PayloadError("a metric has a direction of negative weight; give a positive semidefinite one")

    def _factorise(self, matrix: Floats) -> None:
        from scipy.linalg.lapack import dtrtri  # devices, which encode nothing, need no SciPy

        self._order = np.argsort(-np.diag(matrix), kind="stable")  # what counts most is rounded first
        backwards = self._order[::-1]
        try:
            lower = np.linalg.cholesky(matrix[np.ix_(backwards, backwards)])
        except np.linalg.LinAlgError:
            raise PayloadError("a metric is not positive semidefinite; average outer products") from None
        upper = dtrtri(lower, lower=1)[0][::-1, ::-1]  # U of H^-1 = U^T U, entries in order
        self._feedback = upper / np.diag(upper)[:, None]
        self.importance = np.empty(self.size)
        self.importance[self._order] = 1 / np.diag(upper) ** 2

    @property
    def feeds_back(self) -> bool:
        """Whether an entry's error is fed back into others."""
        return self._feedback is not None

    @property
    def mean_importance(self) -> float:
        """What a rounding error of mean square 1 counts for, for each entry, once it is fed back."""
        return float(self.importance.mean())

    def square(self, rows: Floats) -> Floats:
        """e H e^T of every row, shape (rows,)."""
        found: Floats = (self.weighted(rows) * rows).sum(axis=-1)
        return found

    def weighted(self, rows: Floats) -> Floats:
        """a H of every row a."""
        return rows * self._diagonal if self._matrix is None else rows @ self._matrix

    def whiten(self, rows: Floats) -> Floats:
        """Rows whose plain inner products are the metric's, as ``rows @ L`` with H = L L^T."""
        if self._feedback is None:
            return rows * np.sqrt(self._diagonal)
        from scipy.linalg import solve_triangular

        solved = solve_triangular(self._feedback, rows[:, self._order].T, trans="T", unit_diagonal=True).T
        found: Floats = solved * np.sqrt(self.importance[self._order])
        return found

    def unwhiten(self, rows: Floats) -> Floats:
        """The inverse of `whiten`."""
        if self._feedback is None:
            return rows / np.sqrt(self._diagonal)
        found = np.empty_like(rows)
        found[:, self._order] = (rows / np.sqrt(self.importance[self._order])) @ self._feedback
        return found

    def round(self, rows: Floats, steps: Floats, prices: Floats | None = None) -> Codes:
        """Codes of every row under its own step.

        Args:
            rows: Shape (rows, d).
            steps: Shape (rows,).
            prices: What a bit costs each row, in the metric's units; None rounds to the nearest.
        """
        codes = self._pass(rows, steps, None, None)
        if prices is None or not len(rows):
            return codes
        bits = np.stack([code_bits(best_table(row)[0]) for row in codes])
        return self._pass(rows, steps, prices, np.where(np.isfinite(bits), bits, 64.0))

    def fed_back(self, rows: Floats, nearest: Callable[[Floats], Floats]) -> Floats:
        """Rows rounded column by column as `nearest` has it, each column's errors fed back into those that follow.

        Args:
            nearest: Columns ``(rows, n)`` to what they become.
        """
        if self._feedback is None:
            return nearest(rows)
        found = np.zeros_like(rows)

        def take(at: int, exact: Floats) -> Floats:
            rounded = nearest(exact[0])
            found[:, self._order[at]] = rounded[:, 0]
            return rounded

        _in_turn([self._feedback], rows[None, :, self._order], take)
        return found

    @staticmethod
    def round_stacked(asked: Sequence[Rounding]) -> Codes:
        """The nearest codes of rows of one shape under metrics that feed back, shape (asked, rows, d)."""
        order = np.stack([one.metric._order for one in asked])[:, None]
        feedback = [one.metric._feedback for one in asked if one.metric._feedback is not None]
        left = np.take_along_axis(np.stack([one.rows for one in asked]), order, axis=2)
        steps, ordered = np.stack([one.steps for one in asked])[:, :, None], np.zeros(left.shape, np.int16)

        def take(at: int, exact: Floats) -> Floats:
            codes = ordered[:, :, at : at + 1] = _chosen(exact / steps, exact, None, None)
            return codes * steps

        _in_turn(feedback, left, take)
        found = np.zeros_like(ordered)
        np.put_along_axis(found, order, ordered, axis=2)
        return found

    def _pass(self, rows: Floats, steps: Floats, prices: Floats | None, bits: Floats | None) -> Codes:
        if self._feedback is None:
            return _chosen(rows / steps[:, None], self.importance * steps[:, None] ** 2, prices, bits)
        found, widths, importance = np.zeros(rows.shape, np.int16), steps[:, None], self.importance[self._order]

        def take(at: int, exact: Floats) -> Floats:
            codes = _chosen(exact[0] / widths, importance[at] * widths**2, prices, bits)
            found[:, self._order[at]] = codes[:, 0]
            return codes * widths

        _in_turn([self._feedback], rows[None, :, self._order], take)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Rounding:
    """What is to be rounded: `metric.round(rows, steps, prices)`."""

    metric: Metric
    rows: Floats
    steps: Floats
    prices: Floats | None = None


def round_together(asked: Sequence[Rounding]) -> list[Codes]:
    """The codes of each; where errors are fed back and bits have no price, all of one shape at once.

    A column waits for those before it, and a step of NumPy costs about as much for forty sites as for one.
    """
    found: dict[int, Codes] = {}
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, one in enumerate(asked):
        if one.metric.feeds_back and one.prices is None and len(one.rows):
            alike.setdefault(one.rows.shape, []).append(place)
        else:
            found[place] = one.metric.round(one.rows, one.steps, one.prices)
    for places in alike.values():
        found |= zip(places, Metric.round_stacked([asked[place] for place in places]), strict=True)
    return [found[place] for place in range(len(asked))]


def metrics_of(
    weights: Mapping[str, npt.NDArray[np.floating] | None], sizes: Mapping[str, int], dampings: Mapping[str, float]
) -> dict[str, Metric]:
    """Metrics by name; one of zeros, where calibration saw nothing, counts `DAMPING` of the others' mean.

    Args:
        dampings: As `Metric`; `DAMPING` where none is given.
    """
    means = (
        float((np.diag(given) if given.ndim > 1 else given).mean())
        for given in map(np.asarray, (given for given in weights.values() if given is not None))
    )
    seen = [mean for mean in means if mean > 0]
    unseen = DAMPING * sum(seen) / len(seen) if seen else 1.0
    return {
        name: Metric(np.full(size, unseen) if given is not None and not np.any(given) else given, size, damping)
        for name, size in sizes.items()
        for given, damping in [(weights.get(name), dampings.get(name, DAMPING))]
    }


def _in_turn(feedback: Sequence[Floats], left: Floats, take: Callable[[int, Floats], Floats]) -> None:
    """Take column after column, what it is off by fed back into those that follow; into far ones by blocks of columns.

    Args:
        feedback: How much of an error goes to which column, shapes (d, d), upper triangles.
        left: Rows by feedback, shape (n, rows, d); written over.
        take: A column's place and what is left there, shape (n, rows, 1), to what becomes of it.
    """
    for start in range(0, left.shape[2], _BLOCK):
        end = min(start + _BLOCK, left.shape[2])
        near = np.stack([each[start:end, start:end] for each in feedback])[:, :, None]
        errors = np.empty((*left.shape[:2], end - start))
        for at in range(end - start):
            exact = left[:, :, start + at : start + at + 1]
            error = errors[:, :, at : at + 1] = exact - take(start + at, exact)
            left[:, :, start + at + 1 : end] -= error * near[:, at, :, at + 1 :]
        for rows, error, each in zip(left, errors, feedback, strict=True):
            rows[:, end:] -= error @ each[start:end, end:]


def _chosen(exact: Floats, weight: Floats, prices: Floats | None, bits: Floats | None) -> Codes:
    """The nearest code, or of it, the next towards zero, and zero the one of least weight x error^2 + price x bits."""
    nearest = np.clip(np.round(exact), -LARGEST_CODE, LARGEST_CODE).astype(np.int16)
    if prices is None or bits is None:
        return nearest
    rows = np.arange(len(exact))[:, None]
    best, least = nearest, weight * (exact - nearest) ** 2 + prices[:, None] * bits[rows, np.abs(nearest)]
    for other in (nearest - np.sign(nearest), np.zeros_like(nearest)):
        cost = weight * (exact - other) ** 2 + prices[:, None] * bits[rows, np.abs(other)]
        best, least = np.where(cost < least, other, best), np.minimum(cost, least)
    return best.astype(np.int16)
