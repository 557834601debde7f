"""In which order directions are sent, and how they fall into chunks. Knows gains and bits; not codes or bytes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from airtune.codec.coded.bodies import Direction

CHUNKS = 8
"""Chunks of a payload, about, unless they would be too small or too large."""
LEAST_CHUNK, LARGEST_CHUNK = 2048, 65536
"""Bytes: a smaller chunk would be all hashes, a larger one loses much when it is damaged."""

Floats = npt.NDArray[np.float64]


def by_level(ranks: Sequence[int]) -> list[Direction]:
    """First directions of all sites, then second ones, and so on."""
    there = np.arange(max(ranks, default=0))[:, None] < np.array(ranks, np.int64)
    levels, sites = np.nonzero(there)
    return list(zip(sites.tolist(), levels.tolist(), strict=True))


def by_value(gains: Sequence[Floats], bits: Sequence[Floats]) -> list[Direction]:
    """Directions by gain per bit, the most valuable first, each after those before it at its site.

    A direction that follows better ones waits for none of them: a weak direction before a strong one counts with it.
    """
    rates = [rates_of(gain, cost) for gain, cost in zip(gains, bits, strict=True)]
    heap = [(-rate[0], site, 0) for site, rate in enumerate(rates) if len(rate)]
    heapq.heapify(heap)
    order = []
    while heap:
        _, site, at = heapq.heappop(heap)
        order.append((site, at))
        if at + 1 < len(rates[site]):
            heapq.heappush(heap, (-rates[site][at + 1], site, at + 1))
    return order


def rates_of(gains: Floats, bits: Floats) -> list[float]:
    """Gain per bit of each direction, pooled with those after it while that makes it better (isotonic)."""
    pools: list[list[float]] = []  # gain, bits, directions
    for gain, cost in zip(gains.tolist(), bits.tolist(), strict=True):
        pools.append([gain, max(cost, 1.0), 1])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] < pools[-1][0] * pools[-2][1]:
            last = pools.pop()
            pools[-1] = [before + after for before, after in zip(pools[-1], last, strict=True)]
    return [gain / cost for gain, cost, count in pools for _ in range(int(count))]


def chunk_of(bits: Floats) -> npt.NDArray[np.int64]:
    """The chunk of each direction, from what they cost in the order they are sent in; chunks are roughly equal."""
    before, total = np.cumsum(bits) - bits, float(bits.sum())
    size = min(max(total / 8 / CHUNKS, LEAST_CHUNK), LARGEST_CHUNK)
    count = max(1, round(total / 8 / size))
    return np.minimum((before / max(total, 1.0) * count).astype(np.int64), count - 1)
