"""One pass of a classifier for many heads: all are given the same. Knows models; not how heads were made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from airtune.models.base import BaseModel
from airtune.models.batches import Items
from airtune.models.score import Score, score, usual_batch


@torch.inference_mode()
def score_heads(base: BaseModel, heads: Sequence[Mapping[str, np.ndarray]], items: Items) -> list[Score]:
    """Score a classifier under each of several heads; no logits are kept, and the last head stays in the model.

    Where the head is one module whose answers are the model's, the model is passed once, and that module for each of
    the others; elsewhere (a head that comes before pooling, a pooler that is trained too) the model for all of them.

    Args:
        heads: Each with all parameters of the head, by name.
    """
    _load(base, heads[0])
    module, at_once = _module_of(base), usual_batch(base.model)
    with _listening(base.model, module) as calls:
        found = [score(base.model, items, batch_size=at_once, keep_logits=0)]
    for head in heads[1:]:
        _load(base, head)
        if module is not None and all(call.answered for call in calls):
            found.append(_scored(module, calls, items, at_once))
        else:
            found.append(score(base.model, items, batch_size=at_once, keep_logits=0))
    return found


@dataclass(slots=True)
class _Call:
    """What the head was given for a batch, what it gave, and whether that was the model's answer."""

    given: tuple[Any, ...]
    gave: torch.Tensor
    answered: bool = False


@contextmanager
def _listening(model: nn.Module, module: nn.Module | None) -> Iterator[list[_Call]]:
    """Every call of the module inside the block."""
    calls: list[_Call] = []

    def hear(_: nn.Module, given: tuple[Any, ...], gave: torch.Tensor) -> None:
        calls.append(_Call(given, gave))

    def end(_: nn.Module, __: tuple[Any, ...], came: Any) -> None:
        calls[-1].answered = bool(calls[-1].given) and came.logits is calls[-1].gave

    handles = [module.register_forward_hook(hear), model.register_forward_hook(end)] if module is not None else []
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _scored(module: nn.Module, calls: Sequence[_Call], items: Items, at_once: int) -> Score:
    losses, hits = np.zeros(len(items)), np.zeros(len(items), dtype=bool)
    for rows, call in zip(items.in_order(at_once), calls, strict=True):
        answers = module(*call.given)
        labels = items.batch(rows).labels.to(answers.device)
        losses[rows] = functional.cross_entropy(answers, labels, reduction="none").double().cpu().numpy()
        hits[rows] = (answers.argmax(-1) == labels).cpu().numpy()
    return Score(losses, hits, np.zeros((0, answers.shape[-1]), np.float32))


def _module_of(base: BaseModel) -> nn.Module | None:
    """The one module that holds the whole head."""
    names = {name.split(".")[0] for name in base.head}
    return base.model.get_submodule(names.pop()) if len(names) == 1 else None


def _load(base: BaseModel, head: Mapping[str, np.ndarray]) -> None:
    for name, value in head.items():
        base.model.get_parameter(name).copy_(torch.from_numpy(np.array(value, np.float32)))
