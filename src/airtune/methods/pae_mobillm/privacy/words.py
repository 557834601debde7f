"""Words from hidden states: a linear reader that the attacker trains on public texts, run through the same backbone.

Ridge regression from one layer's hidden state to which of the most frequent tokens the text has. What it finds is a
lower bound: a reader with more layers or a language model behind it finds more. Knows arrays; no secrets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from airtune.errors import DataError
from airtune.methods.pae_mobillm.privacy.leak import Leak

_PENALTIES = np.logspace(-6, 2, 25)
"""Tried as shares of the mean squared singular value."""
_STILL = 1e-5
"""Coordinates that vary less than this share of their mean are constant up to rounding."""


def frequent_tokens(texts: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The tokens that most of the texts have, at most `count`, the most frequent first; ties by id."""
    having = Counter[int]()
    for text in texts:
        having.update(set(text.tolist()))
    return np.array(sorted(having, key=lambda token: (-having[token], token))[:count], np.int64)


def bag_of_words(texts: Sequence[np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Which of the tokens each text has, bool ``(n, V')``."""
    return np.stack([np.isin(tokens, text) for text in texts])


def words(
    activations: np.ndarray, bags: np.ndarray, public: np.ndarray, public_bags: np.ndarray, layer: int | None = None
) -> Leak:
    """How well samples are ranked by whether they have a word: average precision, its mean over words.

    Chance is the mean over random orders. Words that none of the samples has, or all have, are left out.

    Args:
        activations: Hidden states of one layer as they came, ``(n, d)``.
        bags: Which words the samples have, ``(n, V')``.
        public: Hidden states of the attacker's own texts at that layer, ``(m, d)``, sent in the same way with secrets
            of its own: a reader is trained on what it will see.
        public_bags: Their words, ``(m, V')``.

    Raises:
        DataError: no word is had by some of the samples and not by others.
    """
    asked = np.flatnonzero(bags.any(axis=0) & ~bags.all(axis=0))
    if len(asked) == 0:
        raise DataError("no word tells the samples apart; give more samples, or words that they have")
    scores = _ridge(public, public_bags[:, asked].astype(np.float64), activations)
    reached = [average_precision(scores[:, at], bags[:, word]) for at, word in enumerate(asked)]
    chances = [chance_precision(len(bags), int(bags[:, word].sum())) for word in asked]
    return Leak("words: mean average precision", float(np.mean(reached)), float(np.mean(chances)), len(bags), layer)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean, over the true ones, of the share of true ones among those ranked as high."""
    ranked = truth[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(ranked)[ranked] / (np.flatnonzero(ranked) + 1)).mean())


def chance_precision(count: int, true: int) -> float:
    """Mean average precision of all orders of `count`, of which `true` are: with H the sum of 1 / k for k up to count,
    ``H / n + (r - 1) / (n - 1) (1 - H / n)``."""
    harmonic = (1 / np.arange(1, count + 1)).sum() / count
    return float(harmonic + (true - 1) / max(count - 1, 1) * (1 - harmonic))


def _ridge(inputs: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Predictions for rows, inputs standardised, the penalty by generalised cross-validation over all targets."""
    mean, spread = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0, dtype=np.float64)
    still = spread <= _STILL * np.abs(mean)
    scale = np.where(still, 0, 1 / np.where(still, 1, spread))
    left, values, right = np.linalg.svd((inputs - mean) * scale, full_matrices=False)
    seen = left.T @ (targets - targets.mean(axis=0))
    squares, explained = values**2, (seen**2).sum(axis=1)
    total = ((targets - targets.mean(axis=0)) ** 2).sum()
    penalties = _PENALTIES * max(squares.mean(), np.finfo(np.float64).tiny)
    shares = squares / (squares + penalties[:, None])  # one row per penalty
    left_over = total - (2 * shares - shares**2) @ explained
    free = len(inputs) - 1 - shares.sum(axis=1)
    criterion = np.where(free > 1e-9, left_over / np.maximum(free, 1e-9) ** 2, np.inf)
    chosen = penalties[criterion.argmin()]
    return (rows - mean) * scale @ right.T * (values / (squares + chosen)) @ seen
