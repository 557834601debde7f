"""What each direction of a nested adapter lowers the loss by, from a few gradients.

Knows gradients of losses; not bits, budgets or searches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from airtune.adapters.adapter import Adapter
from airtune.adapters.ranks import RankVector
from airtune.errors import ModelError
from airtune.models import Items, item_outcomes

FIRST_POINTS, POINTS = 3, 1
"""Points at which gradients are taken between rank 0 and 1, where most is gained, and between any two ranks after."""
EVERY = 2
"""One batch of so many is looked at."""


def losses_worth(caps: RankVector) -> int:
    """How many losses of all items are about the work of `measure_gains`: a gradient takes three times a loss's."""
    return math.ceil(3 * sum(points for _, _, points in _stretches(max(caps.ranks))) / EVERY)


def measure_gains(adapter: Adapter, items: Items, *, batch_size: int = 16) -> list[np.ndarray]:
    """Integrated gradients (Sundararajan et al. 2017) along uniform ranks: from 0 to 1, 2, 4, ... r_max everywhere.

    On each stretch the gates of the directions that it adds rise together from 0 to 1; a direction's gain is the mean
    of minus the gradient at its gate (midpoint rule). So all gains sum up to what the full adapter lowers the loss by,
    but for the rule's error, and a site's first ones to what it is worth among few directions elsewhere.

    Args:
        adapter: Attached and loaded; left with all its directions.
        items: Calibration items.

    Returns:
        In nat, by site, shape ``(cap,)``.

    Raises:
        ModelError: a gradient is not finite.
    """
    caps = adapter.caps
    layers: list[Any] = [adapter.base.model.get_submodule(site.path) for site in adapter.sites]
    weights = [layer.lam.detach().clone() for layer in layers]
    gains = [np.zeros(cap) for cap in caps.ranks]
    learned = [layer.lam.requires_grad for layer in layers]
    adapter.base.model.eval()
    try:
        for layer in layers:
            layer.lam.requires_grad_(True)
        for low, high, points in _stretches(max(caps.ranks)):
            adapter.set_ranks(RankVector(tuple(min(cap, high) for cap in caps.ranks)))
            for point in range(points):
                gate = (point + 0.5) / points
                with torch.no_grad():
                    for layer, weight in zip(layers, weights, strict=True):
                        layer.lam.copy_(weight)
                        layer.lam[low:high] *= gate
                slopes = _slopes(adapter, [layer.lam for layer in layers], items, batch_size)
                for gain, slope, weight in zip(gains, slopes, weights, strict=True):
                    gain[low:high] -= (slope * weight)[low:high].double().cpu().numpy() / points
    finally:
        with torch.no_grad():
            for layer, weight, flag in zip(layers, weights, learned, strict=True):
                layer.lam.copy_(weight)
                layer.lam.requires_grad_(flag)
        adapter.set_ranks(caps)
    if not all(np.isfinite(gain).all() for gain in gains):
        raise ModelError("a direction's gain is not finite; train with a lower learning rate")
    return gains


def _stretches(top: int) -> Iterator[tuple[int, int, int]]:
    """Rank at the start, rank at the end, points between them."""
    ends = [0, *(2**power for power in range(math.ceil(math.log2(top)))), top] if top > 1 else [0, 1]
    for low, high in pairwise(ends):
        yield low, high, POINTS if low else FIRST_POINTS


def _slopes(adapter: Adapter, lams: list[torch.Tensor], items: Items, batch_size: int) -> list[torch.Tensor]:
    """Gradient of the mean loss by every lam, over the batches that are looked at."""
    model, sums, count = adapter.base.model, [torch.zeros_like(lam) for lam in lams], 0
    for index, rows in enumerate(items.in_order(batch_size)):
        if index % EVERY:
            continue
        losses, _ = item_outcomes(model, items.batch(rows).to(adapter.base.device))
        for total, slope in zip(sums, torch.autograd.grad(losses.sum(), lams), strict=True):
            total += slope
        count += len(rows)
    return [total / count for total in sums]
