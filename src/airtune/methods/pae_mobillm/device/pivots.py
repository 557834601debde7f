"""What a device reads of its frozen backbone: hidden states and logits at the pivot tokens, and nothing beyond.

Pivots are the tokens that the loss uses (the token selector of the paper's second version):

| backbone                         | selector | pivots of a sample                                          |
|----------------------------------|----------|-------------------------------------------------------------|
| encoder with a classifier        | `first`  | its first token, which the classifier reads                 |
| decoder with a classifier        | `last`   | its last token that is no padding, which the head reads     |
| decoder that predicts next tokens| `every`  | every token whose next one is known: all but a window's last |

Hidden state 0 is what enters the first block, i what leaves block i (from 1). Where a family ends in a norm (OPT,
GPT-2, Llama, Mistral, Qwen), the last one is taken before it; Hugging Face's own `hidden_states[-1]` is behind it.

Hooks keep the pivots' rows alone, so that the peak is that of plain inference and one buffer of K x d numbers per pivot
(with running text also the logits, once more). Everything happens in inference mode: no gradient can exist. Knows no
labels' meaning, no wire.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from airtune.errors import DataError, ModelError
from airtune.methods.pae_mobillm.identity import Identity
from airtune.models import FAMILIES, BaseModel, Batch, Items, weights_hash
from airtune.models.base import ENCODERS
from airtune.models.batches import IGNORED

Selector = Literal["first", "last", "every"]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Some samples, read.

    Args:
        counts: How many pivots each has, ``(n,)``; their rows follow each other.
        activations: float32 ``(rows, K, d)``.
        logits: The backbone's, float32 ``(rows, C)``.
        targets: Class or next token of each row, int64 ``(rows,)``.
    """

    counts: np.ndarray
    activations: np.ndarray
    logits: np.ndarray
    targets: np.ndarray


def selector_of(base: BaseModel) -> Selector:
    """Which tokens are this backbone's pivots."""
    if base.kind == "text":
        return "every"
    return "first" if base.model.config.model_type in ENCODERS else "last"


def outputs_of(base: BaseModel) -> int:
    """C: classes, or tokens that may come next."""
    model: Any = base.model
    return int(model.config.num_labels if base.kind == "classify" else model.get_output_embeddings().weight.shape[0])


def blocks_of(base: BaseModel) -> list[nn.Module]:
    """The backbone's blocks, first to last."""
    modules = FAMILIES[base.model.config.model_type].modules
    paths = dict.fromkeys(site.path.removesuffix(f".{modules[site.module]}") for site in base.sites)
    return [base.model.get_submodule(path) for path in paths]


def identity_of(
    base: BaseModel,
    layers: Sequence[int],
    bits: Sequence[int],
    *,
    length: int,
    space: str = "logit",
    outputs: int | None = None,
    shaping: tuple[tuple[str, str], ...] = (),
) -> Identity:
    """What a server must share with this backbone.

    Args:
        length: Longest sentence, or window, in tokens.
        outputs: Numbers of a difference as sent, where that is not C.
        shaping: See `Identity`.

    Raises:
        ModelError: a layer that the backbone does not have. TransportError: no way to send.
    """
    _check_layers(base, layers)
    template = hashlib.sha256(json.dumps([base.kind, selector_of(base), length]).encode()).hexdigest()
    return Identity(
        backbone=weights_hash(base.model),
        tokenizer=base.tokenizer_sha256,
        template=template,
        width=base.hidden_size,
        layers=tuple(layers),
        bits=tuple(bits),
        outputs=outputs_of(base) if outputs is None else outputs,
        space=space,
        shaping=shaping,
    )


@torch.inference_mode()
def read_pivots(base: BaseModel, items: Items, rows: np.ndarray, layers: Sequence[int]) -> Reading:
    """Run the frozen backbone over some items, as one batch, and keep what its pivots hold.

    Args:
        rows: Which items.
        layers: Which hidden states, in the order of `Reading.activations`.

    Raises:
        ModelError: a layer that the backbone does not have.
        DataError: items of another kind than the backbone's, or an item without a pivot.
    """
    _check_layers(base, layers)
    _check_items(base, items, rows)
    batch = items.batch(rows).to(base.device)
    samples, tokens = _pivots(base, batch)
    buffer = torch.empty(len(samples), len(layers), base.hidden_size, device=base.device)
    base.model.eval()
    with _keeping(base, layers, samples, tokens, buffer):
        logits = base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    if batch.labels.ndim == 2:
        logits, targets = logits[samples, tokens], batch.labels[samples, tokens + 1]
    else:
        targets = batch.labels
    counts = torch.bincount(samples, minlength=len(rows))
    return Reading(*(found.cpu().numpy() for found in (counts, buffer, logits.float(), targets)))


def _pivots(base: BaseModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample and token of every pivot, sample by sample."""
    selector, ids = selector_of(base), batch.input_ids
    if selector == "every":
        samples, tokens = torch.nonzero(batch.labels[:, 1:] != IGNORED, as_tuple=True)
        return samples, tokens
    samples = torch.arange(len(ids), device=ids.device)
    if selector == "first":
        return samples, torch.zeros_like(samples)
    places = torch.arange(ids.shape[1], device=ids.device)
    return samples, (places * (ids != base.model.config.pad_token_id)).argmax(1)


@contextmanager
def _keeping(
    base: BaseModel, layers: Sequence[int], samples: torch.Tensor, tokens: torch.Tensor, buffer: torch.Tensor
) -> Iterator[None]:
    """Let the chosen blocks write their pivots' rows into the buffer; nothing stays on the model afterwards."""
    blocks = blocks_of(base)

    def keep(at: int, hidden: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        buffer[:, at] = (hidden if isinstance(hidden, torch.Tensor) else hidden[0])[samples, tokens]

    with ExitStack() as hooks:
        for at, layer in enumerate(layers):
            if layer == 0:
                hook = blocks[0].register_forward_pre_hook(lambda _, inputs, at=at: keep(at, inputs))
            else:
                hook = blocks[layer - 1].register_forward_hook(lambda _, __, output, at=at: keep(at, output))
            hooks.callback(hook.remove)
        yield


def _check_layers(base: BaseModel, layers: Sequence[int]) -> None:
    most = len(blocks_of(base))
    if not layers or not all(0 <= layer <= most for layer in layers):
        raise ModelError(
            f"layers are {list(layers)}, {base.name} has hidden states 0 (what enters its first block) to {most}; "
            "choose among these"
        )


def _check_items(base: BaseModel, items: Items, rows: np.ndarray) -> None:
    if (base.kind == "text") != (items.classes is None):
        found = "windows of a text" if items.classes is None else "sentences with classes"
        raise DataError(f"the items are {found}, {base.name} was loaded to {base.kind}; load both for the same task")
    least = 2 if base.kind == "text" else 1
    if short := [int(row) for row in rows if len(items.ids[row]) < least]:
        raise DataError(
            f"item {short[0]} has {len(items.ids[short[0]])} tokens, at least {least} expected; leave it out"
        )
