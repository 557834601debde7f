"""Score a model on items: mean loss, metric, and the outcome of every item (paired tests need those)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from airtune.models.batches import IGNORED, Batch, Items

CPU_BATCH, GPU_BATCH = 16, 64
"""Items at a time: on two cores 64 sentences take 1.7 times as long, by padding and cache (docs/log.md)."""


@dataclass(frozen=True)
class Score:
    """What a model does on a set of items.

    Args:
        losses: Mean loss of each item in nat, shape ``(items,)``, in item order.
        hits: Whether each item is classified rightly, shape ``(items,)``; None for next-token prediction.
        logits: Class logits ``(items, classes)``, or next-token logits at each window's end ``(items, vocabulary)``.
    """

    losses: np.ndarray
    hits: np.ndarray | None
    logits: np.ndarray

    @property
    def loss(self) -> float:
        """Mean loss in nat."""
        return float(self.losses.mean())

    @property
    def metric(self) -> float:
        """Accuracy in 0..1, or perplexity, which is infinite where a double cannot hold it."""
        if self.hits is not None:
            return float(self.hits.mean())
        return math.exp(self.loss) if self.loss < 709 else math.inf


@torch.inference_mode()
def score(
    model: PreTrainedModel, items: Items, *, batch_size: int | None = None, keep_logits: int | None = None
) -> Score:
    """Run a model over all items in evaluation mode.

    Args:
        batch_size: Items at a time; as suits the device when None.
        keep_logits: How many items' logits to keep (the first ones); all when None.
    """
    kept = len(items) if keep_logits is None else min(keep_logits, len(items))
    losses = np.zeros(len(items))
    hits = np.zeros(len(items), dtype=bool) if items.classes is not None else None
    logits: np.ndarray | None = None
    model.eval()
    for rows in items.in_order(batch_size or usual_batch(model)):
        batch = items.batch(rows).to(model.device)
        item_losses, answers = item_outcomes(model, batch)
        losses[rows] = item_losses.double().cpu().numpy()
        if hits is not None:
            hits[rows] = (answers.argmax(-1) == batch.labels).cpu().numpy()
        if logits is None:
            logits = np.zeros((kept, answers.shape[-1]), dtype=np.float32)
        chosen = rows < kept
        logits[rows[chosen]] = answers.float().cpu().numpy()[chosen]
    assert logits is not None
    return Score(losses, hits, logits)


def usual_batch(model: PreTrainedModel) -> int:
    """Items at a time that suit the model's device."""
    return CPU_BATCH if model.device.type == "cpu" else GPU_BATCH


def item_outcomes(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of each item ``(n,)`` in nat and its answer logits ``(n, classes or vocabulary)``."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    if batch.labels.ndim == 1:
        return functional.cross_entropy(logits, batch.labels, reduction="none"), logits
    targets = functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORED)  # so that logits are read as they lie
    token_losses = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED
    ).view_as(targets)
    return token_losses.sum(1) / (targets != IGNORED).sum(1).clamp(min=1), logits[:, -1]
