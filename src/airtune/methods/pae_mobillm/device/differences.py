"""Target less prediction, and the way back from a difference to what is predicted.

With y the class (or next token) and z the backbone's logits, C of them:

| space         | difference Dy                                   | scores with a predicted Dy^ |
|---------------|-------------------------------------------------|-----------------------------|
| `logit`       | s (onehot(y) - 1 / C) - (z - mean z)            | z + Dy^                     |
| `probability` | onehot(y) - softmax(z)                          | softmax(z) + Dy^            |

Either way Dy^ = 0 is exactly the backbone's own prediction. The space and s are our choice; the paper leaves both open.
A plain difference names its class: it is the one component of a probability difference above 0. Knows arrays; no
models, no wire.
"""

from __future__ import annotations

import numpy as np

from airtune.errors import ConfigError, DataError
from airtune.models import Score


def prediction_differences(logits: np.ndarray, targets: np.ndarray, *, space: str, scale: float) -> np.ndarray:
    """Dy of each row, float32 ``(rows, C)``; each row sums to 0.

    Args:
        logits: The backbone's, ``(rows, C)``.
        targets: Class or next token, ``(rows,)``.
        space: `logit` or `probability`.
        scale: s, in logit space.

    Raises:
        DataError: a target that is none of the C.
    """
    outputs = logits.shape[1]
    if len(targets) and not 0 <= targets.min() <= targets.max() < outputs:
        raise DataError(
            f"targets run from {targets.min()} to {targets.max()}, the model tells 0 to {outputs - 1} apart"
        )
    if space == "logit":
        found, step = logits.mean(1, keepdims=True) - logits - np.float32(scale / outputs), scale
    else:
        found, step = -_softmax(logits), 1.0
    found[np.arange(len(targets)), targets] += step
    return found.astype(np.float32, copy=False)


def corrected(logits: np.ndarray, predicted: np.ndarray, *, space: str) -> np.ndarray:
    """Scores of each class with predicted differences ``(rows, C)`` added; the largest is the answer."""
    return (logits if space == "logit" else _softmax(logits)) + predicted


def outcomes(scores: np.ndarray, targets: np.ndarray, counts: np.ndarray, *, space: str, text: bool) -> Score:
    """What corrected scores are worth, sample by sample.

    Args:
        scores: ``(rows, C)``.
        counts: How many rows each sample has, ``(n,)``.
        text: Next tokens: a sample's loss is the mean over its rows, and the metric perplexity instead of accuracy.

    Returns:
        Score: cross-entropy in nat. In probability space scores need not be probabilities: losses are NaN there. For
        text its logits are those of each window's last row.

    Raises:
        ConfigError: text in probability space, where perplexity is not defined.
    """
    if text and space != "logit":
        raise ConfigError(f"perplexity is not defined in {space} space; set device.space to logit for running text")
    if space == "logit":
        largest = scores.max(1)
        spread = np.exp(scores - largest[:, None]).sum(1, dtype=np.float64)
        losses = np.log(spread) + largest - scores[np.arange(len(targets)), targets]
    else:
        losses = np.full(len(targets), np.nan)
    if not text:
        return Score(losses, scores.argmax(1) == targets, scores)
    ends = np.cumsum(counts)
    return Score(np.add.reduceat(losses, ends - counts) / counts, None, scores[ends - 1])


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
