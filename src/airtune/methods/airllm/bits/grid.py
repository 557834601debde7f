"""The uniform grid: numbers at a fixed width with one scale a row, the width searched for nothing but least squares.

What is counted is generous: no header, no hashes; 16 bits a scale, of which a direction needs one, for P's and Q's are
only ever multiplied. The head has a width of its own. Knows factors and bits; not losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from airtune.adapters import RankVector
from airtune.codec import Binding, Curvature, Factors, chunk_ends, decode, encode
from airtune.codec.coded.rounding import Metric
from airtune.codec.contents import Meta
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.baselines.truncation import cut
from airtune.methods.airllm.bits.candidate import Candidate

WIDTHS = (2, 3, 4, 5, 6, 8, 16, 32)
HEAD_WIDTHS = (3, 4, 8)
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


def grid_of(
    name: str,
    factors: Mapping[str, Factors],
    dense: Mapping[str, np.ndarray],
    width: int,
    head_width: int,
    curvature: Mapping[str, Curvature] | None = None,
) -> Candidate:
    """An adapter on the grid: P with lam in it by column, Q by row, the head by row.

    Args:
        head_width: Bits of a number of the head.
        curvature: Of every site; given, P and Q are rounded under it.
    """
    rounded, bits = {}, 0.0
    for path, site in factors.items():
        bends = curvature[path] if curvature is not None else None
        metrics = (Metric(bends.outputs, site.shape[0]), Metric(bends.inputs, site.shape[1])) if bends else (None, None)
        columns, rows = on_grid((site.p * site.lam).T, width, metrics[0]), on_grid(site.q, width, metrics[1])
        rounded[path] = Factors(columns.T.copy(), np.ones(site.rank, np.float32), rows)
        bits += site.rank * (sum(site.shape) * width + (SCALE_BITS if width < 32 else 0))
    head, head_bits = head_on_grid(dense, head_width)
    return Candidate(name, bits + head_bits, rounded, head)


def head_on_grid(dense: Mapping[str, np.ndarray], width: int) -> tuple[dict[str, np.ndarray], int]:
    """The head by row, and its bits."""
    head = {name: on_grid(np.atleast_2d(value), width).reshape(value.shape) for name, value in dense.items()}
    scales = sum(len(np.atleast_2d(value)) for value in dense.values()) if width < 32 else 0
    return head, sum(value.size for value in dense.values()) * width + scales * SCALE_BITS


def widths(dense: Mapping[str, np.ndarray]) -> Iterator[tuple[int, int, str]]:
    """Bits of a number, of one of the head, and both in words; the head only where there is one."""
    for width in WIDTHS:
        if width == 32 or not dense:
            yield width, width, f"{width} bits"
        else:
            yield from ((width, head, f"{width} bits, head {head}") for head in HEAD_WIDTHS)


def grid(trained: Mapping[int, TrainedAdapter]) -> Iterator[Candidate]:
    """LoRA trained at each rank, at each width."""
    for rank, adapter in trained.items():
        for width, head, words in widths(adapter.dense):
            yield grid_of(f"rank {rank}, {words}", adapter.factors, adapter.dense, width, head)


def float32(trained: Mapping[int, TrainedAdapter]) -> Candidate:
    """LoRA of the largest rank as it was trained: what budgets are shares of."""
    most = max(trained)
    return grid_of(f"rank {most}, 32 bits", trained[most].factors, trained[most].dense, 32, 32)


def calibrated(
    trained: Mapping[int, TrainedAdapter], curvature: Mapping[int, Mapping[str, Curvature]]
) -> Iterator[Candidate]:
    """The same, rounded under the measured curvature, as format 2 is: on the same grids, at the same bits."""
    for rank, adapter in trained.items():
        for width, head, words in widths(adapter.dense):
            bends = curvature[rank] if width < 32 else None
            yield grid_of(f"rank {rank}, {words}, calibrated", adapter.factors, adapter.dense, width, head, bends)


def cuts(trained: Mapping[int, TrainedAdapter]) -> Iterator[Candidate]:
    """LoRA trained at the largest rank, cut by singular values to the smaller ones after training."""
    most = max(trained)
    adapter = trained[most]
    for rank in trained:
        shorter = cut(adapter.factors, RankVector(tuple(min(rank, site.rank) for site in adapter.factors.values())))
        for width, head, words in widths(adapter.dense):
            yield grid_of(f"cut to {rank}, {words}", shorter, adapter.dense, width, head)


def blockwise(trained: Mapping[int, TrainedAdapter], binding: Binding, meta: Meta) -> Iterator[Candidate]:
    """Format 1 at 4 bits: the chunks of its payloads, numbers and a scale for every block of 64, without the header."""
    for rank, adapter in trained.items():
        payload = encode(adapter.factors, adapter.dense, adapter.ranks.allocation(4), binding, meta)
        found = decode(payload.data, binding)
        yield Candidate(f"rank {rank}", payload.bits - 8 * chunk_ends(payload.data)[0], found.factors, found.dense)
