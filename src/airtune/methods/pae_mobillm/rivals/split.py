"""Split learning: the device runs the first blocks, the server the rest; every step crosses the link both ways.

| direction | what crosses in a step                                                         | bytes             |
|-----------|--------------------------------------------------------------------------------|-------------------|
| up        | hidden states of every token behind the cut, at 16 bits; labels; a norm        | 2 t d + 4 n + 4   |
| down      | the loss's gradient by them, at 16 bits; the norm over both halves             | 2 t d + 4         |

with n samples of t tokens together, padding not counted, and d numbers each. Norms are those that gradients are clipped
by. Gradients are multiplied by 1,024 before they are rounded and divided afterwards, so that small ones survive. Both
sides run here, in one process; what crosses is rounded as it would be on the wire, and counted (Vepakomma et al.,
arXiv:1812.00564; with LoRA in both halves). Evaluation is not counted: the server's half of LoRA and head travels back
once (`half_bytes`), and the device then infers alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from airtune.methods.pae_mobillm.device.pivots import blocks_of
from airtune.methods.pae_mobillm.rivals.lora import Parameters
from airtune.models import BaseModel

LABEL_BYTES = NORM_BYTES = 4
GRADIENT_SCALE = 1024.0


@dataclass(slots=True)
class Traffic:
    """Bytes that have crossed so far."""

    up: int = 0
    down: int = 0


def middle(base: BaseModel) -> int:
    """How many blocks the device holds: the first half, one at least."""
    return max(1, len(blocks_of(base)) // 2)


@contextmanager
def cut_behind(base: BaseModel, blocks: int, *, bits: int = 16) -> Iterator[Traffic]:
    """Let what leaves so many blocks cross a link in training, and its gradient come back over it.

    Args:
        bits: 16, or 32, which changes no number.
    """
    traffic, masks = Traffic(), list[torch.Tensor]()

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        if base.model.training:
            masks[:] = [given["attention_mask"]]

    def cross(block: torch.nn.Module, _: Any, output: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return output
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        received = _Crossing.apply(hidden, masks[0], traffic, bits)
        return received if isinstance(output, torch.Tensor) else (received, *output[1:])

    hooks = (
        base.model.register_forward_pre_hook(note, with_kwargs=True),
        blocks_of(base)[blocks - 1].register_forward_hook(cross),
    )
    try:
        yield traffic
    finally:
        for hook in hooks:
            hook.remove()


def half_bytes(base: BaseModel, parameters: Parameters, blocks: int) -> int:
    """Bytes of what the server has trained, LoRA behind the cut and the head, as float32."""
    own = {site.path for site in base.sites if site.layer < blocks}
    return 4 * sum(one.numel() for name, one in parameters.items() if name.rpartition(".")[0] not in own)


class _Crossing(torch.autograd.Function):
    """Hidden states one way, their gradient the other, each rounded and counted; padding does not cross."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, mask: torch.Tensor, traffic: Traffic, bits: int) -> torch.Tensor:
        ctx.mask, ctx.traffic, ctx.bits = mask, traffic, bits
        traffic.up += _size(hidden, mask, bits) + LABEL_BYTES * len(hidden) + NORM_BYTES
        return _rounded(hidden, mask, bits, 1.0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        ctx.traffic.down += _size(gradient, ctx.mask, ctx.bits) + NORM_BYTES
        return _rounded(gradient, ctx.mask, ctx.bits, GRADIENT_SCALE), None, None, None


def _size(values: torch.Tensor, mask: torch.Tensor, bits: int) -> int:
    return int(mask.sum()) * values.shape[-1] * bits // 8


def _rounded(values: torch.Tensor, mask: torch.Tensor, bits: int, scale: float) -> torch.Tensor:
    kept = values * mask[..., None].to(values.dtype)
    return kept if bits == 32 else (kept * scale).half().float() / scale
