"""The uniform grid: numbers at a fixed width with one scale a row, the width searched for nothing but least squares.

What is counted is generous: no header, no hashes; 16 bits a scale; the head at 8 bits a number below 32. Knows factors
and bits; not losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from airtune.adapters import RankVector
from airtune.codec import Binding, Factors, decode, encode
from airtune.codec.contents import Meta
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.baselines.truncation import cut
from airtune.methods.airllm.bits.candidate import Candidate

WIDTHS = (2, 3, 4, 8, 32)
SCALE_BITS, HEAD_WIDTH = 16, 8
SHRINKS = np.linspace(0.1, 1.1, 51)
"""Largest value of the grid, as shares of a row's largest number, that are tried."""


def on_grid(rows: np.ndarray, width: int) -> np.ndarray:
    """Every row rounded to a symmetric uniform grid of its own, the one of least squared error.

    Either all 2 ** width values around 0, or one fewer with 0 among them, whichever is nearer; at width 1 two.

    Args:
        rows: Any numbers, shape (n, k).
        width: Bits a number; 32 leaves float32.
    """
    if width == 32:
        return rows.astype(np.float32)
    if width == 1:
        return (np.sign(rows) * np.abs(rows).mean(axis=1, keepdims=True)).astype(np.float32)
    best, least = np.zeros_like(rows, np.float64), np.full((len(rows), 1), np.inf)
    peaks = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    for shrink in SHRINKS:
        peak = np.maximum(shrink * peaks, np.finfo(np.float32).tiny)
        for found in (_around_zero(rows, peak, width), _with_zero(rows, peak, width)):
            error = ((rows - found) ** 2).sum(axis=1, keepdims=True)
            best, least = np.where(error < least, found, best), np.minimum(error, least)
    return best.astype(np.float32)


def _with_zero(rows: np.ndarray, peak: np.ndarray, width: int) -> np.ndarray:
    most = 2 ** (width - 1) - 1
    step = peak / most
    return np.clip(np.round(rows / step), -most, most) * step


def _around_zero(rows: np.ndarray, peak: np.ndarray, width: int) -> np.ndarray:
    half = 2 ** (width - 1)
    step = peak / (half - 0.5)
    return (np.clip(np.floor(rows / step), -half, half - 1) + 0.5) * step


def grid_of(name: str, factors: Mapping[str, Factors], dense: Mapping[str, np.ndarray], width: int) -> Candidate:
    """An adapter on the grid: P with lam in it by column, Q by row, the head by row."""
    rounded, bits = {}, 0.0
    for path, site in factors.items():
        columns, rows = on_grid((site.p * site.lam).T, width), on_grid(site.q, width)
        rounded[path] = Factors(columns.T.copy(), np.ones(site.rank, np.float32), rows)
        bits += site.rank * (sum(site.shape) * width + (2 * SCALE_BITS if width < 32 else 0))
    head, head_bits = head_on_grid(dense, 32 if width == 32 else HEAD_WIDTH)
    return Candidate(name, bits + head_bits, rounded, head)


def head_on_grid(dense: Mapping[str, np.ndarray], width: int) -> tuple[dict[str, np.ndarray], int]:
    """The head by row, and its bits."""
    head = {name: on_grid(np.atleast_2d(value), width).reshape(value.shape) for name, value in dense.items()}
    scales = sum(len(np.atleast_2d(value)) for value in dense.values()) if width < 32 else 0
    return head, sum(value.size for value in dense.values()) * width + scales * SCALE_BITS


def grid(trained: Mapping[int, TrainedAdapter]) -> Iterator[Candidate]:
    """LoRA trained at each rank, at each width."""
    for rank, adapter in trained.items():
        for width in WIDTHS:
            yield grid_of(f"rank {rank}, {width} bits", adapter.factors, adapter.dense, width)


def cuts(trained: Mapping[int, TrainedAdapter]) -> Iterator[Candidate]:
    """LoRA trained at the largest rank, cut by singular values to the smaller ones after training."""
    most = max(trained)
    adapter = trained[most]
    for rank in trained:
        shorter = cut(adapter.factors, RankVector(tuple(min(rank, site.rank) for site in adapter.factors.values())))
        for width in WIDTHS:
            yield grid_of(f"cut to {rank}, {width} bits", shorter, adapter.dense, width)


def blockwise(trained: Mapping[int, TrainedAdapter], binding: Binding, meta: Meta) -> Iterator[Candidate]:
    """Payloads of format 1 at 4 bits, whole: header, hashes and all."""
    for rank, adapter in trained.items():
        payload = encode(adapter.factors, adapter.dense, adapter.ranks.allocation(4), binding, meta)
        found = decode(payload.data, binding)
        yield Candidate(f"rank {rank}", payload.bits, found.factors, found.dense)
