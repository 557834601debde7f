"""Labels as groups: which samples share one, from directions of differences alone. A rotation hides none of it.

The attacker knows neither labels nor the backbone, only how many classes there are.
"""

from __future__ import annotations

import numpy as np

from airtune.errors import DataError
from airtune.methods.pae_mobillm.privacy.leak import Leak, majority

_STEPS = 100


def partition(differences: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[Leak, Leak]:
    """Purity and adjusted Rand index of the clusters of differences ``(n, C')`` against labels ``(n,)``."""
    found = clusters(differences, len(np.unique(labels)), rng)
    return (
        Leak("groups: purity", purity(found, labels), majority(labels), len(labels)),
        Leak("groups: adjusted Rand index", adjusted_rand(found, labels), 0.0, len(labels)),
    )


def purity(found: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples whose cluster has mostly their label. One cluster for all has the majority's share."""
    return float(_contingency(found, labels).max(axis=1).sum() / len(labels))


def adjusted_rand(found: np.ndarray, labels: np.ndarray) -> float:
    """Agreement of two partitions over pairs of samples, 0 in the mean of random ones and 1 where equal.

    ``(S - A B / N) / ((A + B) / 2 - A B / N)`` with S, A and B the pairs together in both, in the first and in the
    second, N all pairs (Hubert and Arabie 1985).
    """
    table = _contingency(found, labels)
    both, first, second = (_pairs(counts) for counts in (table, table.sum(axis=1), table.sum(axis=0)))
    expected = first * second / max(_pairs(np.array([len(labels)])), 1)
    most = (first + second) / 2
    return float((both - expected) / (most - expected)) if most != expected else 1.0


def clusters(rows: np.ndarray, count: int, rng: np.random.Generator, *, restarts: int = 10) -> np.ndarray:
    """k-means of the rows' directions, the tightest of several k-means++ starts, as ``(n,)`` of 0..count-1.

    Raises:
        DataError: fewer rows than clusters.
    """
    if len(rows) < count or count < 1:
        raise DataError(f"{len(rows)} samples cannot make {count} clusters; give more samples")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    unit = rows / np.where(norms > 0, norms, 1)
    found = [_k_means(unit, count, rng) for _ in range(restarts)]
    return min(found, key=lambda one: one[0])[1]


def _k_means(rows: np.ndarray, count: int, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Summed squared distance and assignment of one start (Lloyd, from Arthur and Vassilvitskii's seeds)."""
    centres = rows[rng.integers(len(rows), size=1)]
    while len(centres) < count:
        weights = _distances(rows, centres).min(axis=1)
        total = weights.sum()
        chance = weights / total if total > 0 else None  # fewer directions than clusters
        centres = np.concatenate([centres, rows[rng.choice(len(rows), 1, p=chance)]])
    given = np.full(len(rows), -1)
    for _ in range(_STEPS):
        distances = _distances(rows, centres)
        before, given = given, distances.argmin(axis=1)
        if (given == before).all():
            break
        for one in np.unique(given):
            centres[one] = rows[given == one].mean(axis=0)
    return float(distances.min(axis=1).sum()), given


def _distances(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    squares = (rows**2).sum(axis=1)[:, None] - 2 * rows @ centres.T + (centres**2).sum(axis=1)
    return np.maximum(squares, 0)


def _contingency(found: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Samples by cluster and label."""
    row, column = (np.unique_inverse(one).inverse_indices for one in (found, labels))
    table = np.zeros((row.max() + 1, column.max() + 1), np.int64)
    np.add.at(table, (row, column), 1)
    return table


def _pairs(counts: np.ndarray) -> float:
    return float((counts * (counts - 1)).sum() / 2)
