"""How the loss bends at every site: what the codec weighs rounding errors with.

Knows models and gradients; not codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from airtune.codec import Curvature
from airtune.errors import ModelError
from airtune.models import BaseModel, Items, item_outcomes
from airtune.models.batches import IGNORED

LARGEST_FULL = 1024
"""Sides of a site up to this have their moments in full; of longer ones only the diagonal is kept."""


def measure_curvature(base: BaseModel, items: Items, *, batch_size: int = 8) -> dict[str, Curvature]:
    """Second moments of every site's inputs and of the loss's gradients at its outputs (K-FAC, empirical Fisher).

    The loss of a small change dW of a site grows by about ``tr(G dW A dW^T) / 2`` beyond its slope, where A is the mean
    of x x^T over positions and G the sum of g g^T over an item's positions, averaged over items, with g the gradient
    of an item's summed token losses over the square root of their number (Martens and Grosse 2015).

    Args:
        base: With the adapter attached at which the loss is bent, loaded with the factors that are to be coded.
        items: Calibration items.

    Raises:
        ModelError: a moment is not finite.
    """
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}
    positions = 0
    base.model.eval()
    for rows in items.in_order(batch_size):
        batch = items.batch(rows).to(base.device)
        with _listening(base) as heard:
            losses, _ = item_outcomes(base.model, batch)
        tokens = (
            (batch.labels[:, 1:] != IGNORED).sum(1).clamp(min=1) if batch.labels.ndim > 1 else torch.ones(len(rows))
        )
        summed = (losses * tokens.to(losses).sqrt()).sum()
        gradients = torch.autograd.grad(summed, [after for _, after in heard.values()])
        seen = batch.attention_mask.reshape(-1).bool()
        positions += int(seen.sum())
        for (path, (before, _)), gradient in zip(heard.items(), gradients, strict=True):
            _add(inputs, path, before.flatten(0, -2)[seen])
            _add(outputs, path, gradient.flatten(0, -2)[seen])
    found = {}
    for path, moment in inputs.items():
        moments = moment / positions, outputs[path] / len(items)
        if not all(torch.isfinite(part).all() for part in moments):
            raise ModelError(f"the curvature at {path} is not finite; check the adapter's training")
        of_inputs, of_outputs = (part.cpu().numpy() for part in moments)
        found[path] = Curvature(of_inputs, of_outputs)
    return found


@contextmanager
def _listening(base: BaseModel) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Inputs and outputs of every site in the coming pass."""
    heard: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def listen(path: str) -> torch.utils.hooks.RemovableHandle:
        def hear(module: nn.Module, given: tuple[torch.Tensor, ...], came: torch.Tensor) -> None:
            heard[path] = given[0].detach(), came

        return base.model.get_submodule(path).register_forward_hook(hear)

    def start(module: nn.Module, given: object, came: torch.Tensor) -> torch.Tensor:
        return came.detach().requires_grad_(True)  # gradients flow from here on, whatever is frozen

    handles = [listen(site.path) for site in base.sites]
    handles.append(base.model.get_input_embeddings().register_forward_hook(start))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _add(moments: dict[str, torch.Tensor], path: str, rows: torch.Tensor) -> None:
    rows = rows.float()
    moment = rows.T @ rows if rows.shape[1] <= LARGEST_FULL else (rows * rows).sum(0)
    moments[path] = moments[path] + moment if path in moments else moment
