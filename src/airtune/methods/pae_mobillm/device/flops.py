"""Floating-point operations of one forward pass, counted from the weights' shapes.

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
    inside = sum(_weights(block) for block in blocks)
    outside = _weights(base.model) - inside
    attention = sum(site.fan_in for site in base.sites if site.module == "out")
    heads = 1 if selector_of(base) == "first" else tokens
    return 2 * samples * (inside * tokens + outside * heads) + 4 * samples * tokens**2 * attention


def side_flops(layers: int, width: int, bottleneck: int, outputs: int, rows: int) -> int:
    """Of the side network on so many pivots: its two projections per layer and its output map."""
    return 2 * rows * width * (2 * layers * bottleneck + outputs)


def _weights(module: nn.Module) -> int:
    return sum(one.weight.numel() for one in module.modules() if isinstance(one, nn.Linear | Conv1D))
