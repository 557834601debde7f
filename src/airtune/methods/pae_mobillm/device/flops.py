"""Floating-point operations of a forward pass and of a step of LoRA, counted from the weights' shapes.

Two per multiply-add of every projection (Linear, GPT-2's Conv1D) and of attention's two products, over the whole square
of tokens; norms, activations and softmax are not counted, as torch's own counter does not. Knows models; nothing is
run. Outside the blocks an encoder's classifier works on one token, everything else on all.
"""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D

from airtune.methods.pae_mobillm.device.pivots import blocks_of, selector_of
from airtune.models import BaseModel


def forward_flops(base: BaseModel, samples: int, tokens: int) -> int:
    """Of a batch of `samples` padded to `tokens` tokens each."""
    blocks = blocks_of(base)
    projections, attention = _of_blocks(base, samples, tokens, len(blocks))
    return projections + attention + _of_head(base, samples, tokens)


def step_flops(base: BaseModel, samples: int, tokens: int, rank: int, blocks: int | None = None) -> int:
    """Of a training step of LoRA at every site, forward and backward, over a batch padded to `tokens` tokens.

    Backward, projections cost what they do forward, for the frozen weights need no gradient of their own; LoRA's two
    factors, attention's two products and the head, whose both sides do, cost twice that. What enters the first block
    needs none: its own projections are not passed backward. The optimiser's step is not counted.

    Args:
        blocks: The first so many blocks alone, without the head: a device's part of split learning. All when None.
    """
    held = len(blocks_of(base)) if blocks is None else blocks
    projections, attention = _of_blocks(base, samples, tokens, held)
    sites = [site for site in base.sites if site.layer < held]
    entries = [site for site in sites if site.layer == 0 and site.module in ("query", "key", "value", "qkv")]
    ranks = {site: min(rank, site.cap) for site in sites}
    adapters = 2 * samples * tokens * sum(ranks[site] * (site.fan_in + site.fan_out) for site in sites)
    not_passed = 2 * samples * tokens * sum(site.fan_in * (site.fan_out + ranks[site]) for site in entries)
    head = _of_head(base, samples, tokens) if blocks is None else 0
    return 2 * projections + 3 * (attention + adapters + head) - not_passed


def _of_blocks(base: BaseModel, samples: int, tokens: int, count: int) -> tuple[int, int]:
    """Of the first blocks, forward: projections, and attention's two products."""
    projections = 2 * samples * tokens * sum(_weights(block) for block in blocks_of(base)[:count])
    widths = sum(site.fan_in for site in base.sites if site.module == "out" and site.layer < count)
    return projections, 4 * samples * tokens**2 * widths


def _of_head(base: BaseModel, samples: int, tokens: int) -> int:
    """Of all outside the blocks, forward."""
    outside = _weights(base.model) - sum(_weights(block) for block in blocks_of(base))
    return 2 * samples * outside * (1 if selector_of(base) == "first" else tokens)


def side_flops(layers: int, width: int, bottleneck: int, outputs: int, rows: int) -> int:
    """Of the side network on so many pivots: its two projections per layer and its output map."""
    return 2 * rows * width * (2 * layers * bottleneck + outputs)


def _weights(module: nn.Module) -> int:
    return sum(one.weight.numel() for one in module.modules() if isinstance(one, nn.Linear | Conv1D))
