"""How much better than chance an attack is. Knows numbers; not what they are about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from airtune.errors import DataError


@dataclass(frozen=True, slots=True)
class Leak:
    """What one attack found.

    Args:
        measure: In words.
        value: What the attack reached: a share, an area or a mean precision.
        chance: The same for an attacker who has not seen what was sent.
        count: Over how many.
        layer: Of the hidden states attacked; None where that is not the question.
    """

    measure: str
    value: float
    chance: float
    count: int
    layer: int | None = None


def share_right(measure: str, found: np.ndarray, labels: np.ndarray) -> Leak:
    """Share of labels found ``(n,)``; chance is always saying the most frequent one."""
    _some(len(labels), "samples with labels")
    return Leak(measure, float((found == labels).mean()), majority(labels), len(labels))


def majority(labels: np.ndarray) -> float:
    """Share of the most frequent label."""
    return float(np.unique_counts(labels).counts.max() / len(labels))


def area_under_curve(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Probability that a positive's score is above a negative's, ties counted half: Mann and Whitney's U over n m.

    Raises:
        DataError: no positives, or no negatives.
    """
    _some(min(len(positives), len(negatives)), "scores of both kinds")
    ranks = rankdata(np.concatenate([positives, negatives]))[: len(positives)]
    beaten = ranks.sum() - len(positives) * (len(positives) + 1) / 2
    return float(beaten / (len(positives) * len(negatives)))


def hit_rate(positives: np.ndarray, negatives: np.ndarray, false_alarms: float) -> float:
    """Share of positives above the lowest threshold that at most a share `false_alarms` of negatives passes."""
    _some(min(len(positives), len(negatives)), "scores of both kinds")
    allowed = int(false_alarms * len(negatives) + 1e-9)
    threshold = np.sort(negatives)[::-1][allowed] if allowed < len(negatives) else -np.inf
    return float((positives > threshold).mean())


def _some(count: int, what: str) -> None:
    if count < 1:
        raise DataError(f"there are no {what} to measure an attack on; give at least one")
