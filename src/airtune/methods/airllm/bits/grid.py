"""The uniform grid: numbers at a fixed width with one scale a row, the width searched for nothing but least squares.

What is counted is generous: no header, no hashes; 16 bits a scale, of which a direction needs one, for P's and Q's are
only ever multiplied. The head has a width of its own. Knows factors and bits; not losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from airtune.adapters import RankVector
from airtune.codec import DAMPINGS, Binding, Curvature, Factors, chunk_ends, damped, decode, encode
from airtune.codec.coded.curvature import site_metrics
from airtune.codec.coded.rounding import Metric
from airtune.codec.contents import Meta
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.baselines.truncation import cut
from airtune.methods.airllm.bits.candidate import Candidate

WIDTHS = (2, 3, 4, 5, 6, 8, 16, 32)
HEAD_WIDTHS = (1, 2, 3, 4, 8)
"""Of the head, where the rest has fewer than 32 bits a number; the best is left to dev."""
SCALE_BITS = 16
SHRINKS = np.linspace(0.1, 1.1, 51)
"""Largest value of the grid, as shares of a row's largest number, that are tried."""


@dataclass(frozen=True, slots=True, eq=False)
class RowGrids:
    """A symmetric uniform grid for every row: all 2 ** width values around 0, or one fewer with 0 among them.

    Args:
        steps: Shape (n, 1).
        around: Whether a row's values lie around 0, shape (n, 1).
    """

    steps: np.ndarray
    around: np.ndarray
    width: int

    @classmethod
    def fitted(cls, rows: np.ndarray, width: int) -> RowGrids:
        """The grids of least squared error, their largest values among `SHRINKS` of the rows'."""
        peaks = np.abs(rows).max(axis=1, keepdims=True, initial=0)
        best, least = None, np.full((len(rows), 1), np.inf)
        for shrink in SHRINKS:
            peak = np.maximum(shrink * peaks, np.finfo(np.float32).tiny)
            for around, largest in ((True, 2 ** (width - 1) - 0.5), (False, 2 ** (width - 1) - 1)):
                found = cls(peak / largest, np.full((len(rows), 1), around), width)
                error = ((rows - found.nearest(rows)) ** 2).sum(axis=1, keepdims=True)
                nearer = error < least
                best = found if best is None else best._or(found, nearer)
                least = np.minimum(error, least)
        assert best is not None
        return best

    def _or(self, other: RowGrids, there: np.ndarray) -> RowGrids:
        steps = np.where(there, other.steps, self.steps)
        return RowGrids(steps, np.where(there, other.around, self.around), self.width)

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """Every number's nearest value on its row's grid, shape (n, any)."""
        half = 2 ** (self.width - 1)
        scaled = rows / self.steps
        around = np.clip(np.floor(scaled), -half, half - 1) + 0.5
        return np.where(self.around, around, np.clip(np.round(scaled), 1 - half, half - 1)) * self.steps


def on_grid(rows: np.ndarray, width: int, metric: Metric | None = None) -> np.ndarray:
    """Every row rounded to a grid of its own (`RowGrids`); at width 1 to two values.

    Args:
        rows: Any numbers, shape (n, k).
        width: Bits a number; 32 leaves float32.
        metric: What an error counts; given, errors are fed back under it.
    """
    if width == 32:
        return rows.astype(np.float32)
    if width == 1:
        return (np.sign(rows) * np.abs(rows).mean(axis=1, keepdims=True)).astype(np.float32)
    grids, rows = RowGrids.fitted(rows, width), rows.astype(np.float64)
    return (grids.nearest(rows) if metric is None else metric.fed_back(rows, grids.nearest)).astype(np.float32)


def at_widths(
    name: str,
    factors: Mapping[str, Factors],
    dense: Mapping[str, np.ndarray],
    curvature: Mapping[str, Curvature] | None = None,
    *,
    widths: Sequence[int] = WIDTHS,
) -> Iterator[Candidate]:
    """An adapter on the grid at every width: P with lam in it by column, Q by row, the head by row, at its own widths.

    Args:
        name: What candidates' names begin with.
        curvature: Of every site; given, P and Q are rounded under it.
        widths: Bits of a number.
    """
    shapes = {path: site.shape for path, site in factors.items()}
    metrics = site_metrics(shapes, curvature) if curvature else {}
    heads = {width: head_on_grid(dense, width) for width in (*HEAD_WIDTHS, 32)}
    numbers = sum(site.rank * sum(site.shape) for site in factors.values())
    directions = sum(site.rank for site in factors.values())
    for width in widths:
        rounded = {path: _site_on_grid(site, width, metrics.get(path)) for path, site in factors.items()}
        bits = numbers * width + (directions * SCALE_BITS if width < 32 else 0)
        for head_width in HEAD_WIDTHS if dense and width < 32 else (32,):
            head, head_bits = heads[head_width]
            words = f"{width} bits, head {head_width}" if dense and width < 32 else f"{width} bits"
            yield Candidate(f"{name}, {words}", bits + head_bits, rounded, head)


def _site_on_grid(site: Factors, width: int, metrics: tuple[Metric, Metric] | None) -> Factors:
    outputs, inputs = metrics or (None, None)
    columns, rows = on_grid((site.p * site.lam).T, width, outputs), on_grid(site.q, width, inputs)
    return Factors(columns.T.copy(), np.ones(site.rank, np.float32), rows)


def head_on_grid(dense: Mapping[str, np.ndarray], width: int) -> tuple[dict[str, np.ndarray], int]:
    """The head by row, and its bits."""
    head = {name: on_grid(np.atleast_2d(value), width).reshape(value.shape) for name, value in dense.items()}
    scales = sum(len(np.atleast_2d(value)) for value in dense.values()) if width < 32 else 0
    return head, sum(value.size for value in dense.values()) * width + scales * SCALE_BITS


def grid(trained: Mapping[int, TrainedAdapter]) -> Iterator[Candidate]:
    """LoRA trained at each rank, at each width."""
    for rank, adapter in trained.items():
        yield from at_widths(f"rank {rank}", adapter.factors, adapter.dense)


def float32(trained: Mapping[int, TrainedAdapter]) -> Candidate:
    """LoRA of the largest rank as it was trained: what budgets are shares of."""
    most = max(trained)
    return next(at_widths(f"rank {most}", trained[most].factors, trained[most].dense, widths=(32,)))


def calibrated(
    trained: Mapping[int, TrainedAdapter], curvature: Mapping[int, Mapping[str, Curvature]]
) -> Iterator[Candidate]:
    """The same, rounded under the measured curvature, damped as format 2's is: on the same grids, at the same bits."""
    for rank, adapter in trained.items():
        for damping in DAMPINGS:
            name, bends = f"calibrated, damping {damping:g}, rank {rank}", damped(curvature[rank], damping)
            yield from at_widths(name, adapter.factors, adapter.dense, bends)


def cuts(trained: Mapping[int, TrainedAdapter]) -> Iterator[Candidate]:
    """LoRA trained at the largest rank, cut by singular values to the smaller ones after training."""
    most = max(trained)
    adapter = trained[most]
    for rank in trained:
        shorter = cut(adapter.factors, RankVector(tuple(min(rank, site.rank) for site in adapter.factors.values())))
        yield from at_widths(f"cut to {rank}", shorter, adapter.dense)


def blockwise(trained: Mapping[int, TrainedAdapter], binding: Binding, meta: Meta) -> Iterator[Candidate]:
    """Format 1 at 4 bits: the chunks of its payloads, numbers and a scale for every block of 64, without the header."""
    for rank, adapter in trained.items():
        payload = encode(adapter.factors, adapter.dense, adapter.ranks.allocation(4), binding, meta)
        found = decode(payload.data, binding)
        yield Candidate(f"rank {rank}", payload.bits - 8 * chunk_ends(payload.data)[0], found.factors, found.dense)
