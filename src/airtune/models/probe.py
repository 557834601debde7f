"""The head-only probe: what the frozen base model's own features are worth, without any adapter.

The backbone's features are computed once, so a probe trained as long as an adapter costs one pass over the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from airtune.models.base import HEADS, BaseModel
from airtune.models.batches import Items
from airtune.models.fit import FitPlan, new_optimiser
from airtune.models.score import Score, score

MOST_ROWS = 16_384
"""Training rows whose features are computed, at most: many more than a head of a few thousand numbers can use."""
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
"""Tried in turn; dev picks."""


def head_only(
    base: BaseModel, train: Items, dev: Items, test: Items, plan: FitPlan, rng: np.random.Generator
) -> tuple[Score, Score]:
    """Train the head alone for as many steps as the plan has; return its scores on dev and on test.

    The learning rate is the best of `LEARNING_RATES` on dev, so that the probe is not a strawman: on dev it looks a
    little better than it is. The head is put back afterwards.
    """
    head = {name: base.model.get_parameter(name) for name in base.head}
    start = {name: parameter.detach().clone() for name, parameter in head.items()}
    module = _head_module(base.model)
    if len(train) > MOST_ROWS:
        train = train.chosen(np.sort(rng.permutation(len(train))[:MOST_ROWS]))
    schedule = train.schedule(plan.steps, plan.batch_size, rng)
    seen, on_dev = (
        _Features.of(base, module, train, np.unique(np.concatenate(schedule))),
        _Features.of(base, module, dev),
    )
    best: tuple[Score, dict[str, torch.Tensor]] | None = None
    try:
        for rate in LEARNING_RATES:
            _restore(head, start)
            _train(module, head, seen, schedule, rate, plan)
            found = on_dev.score(module)
            if best is None or found.loss < best[0].loss:
                best = found, {name: parameter.detach().clone() for name, parameter in head.items()}
        assert best is not None
        _restore(head, best[1])
        return best[0], score(base.model, test)
    finally:
        _restore(head, start)


@dataclass(frozen=True)
class _Features:
    """What the head sees of some items: of a sequence, the token that the model's own classifier reads."""

    place: np.ndarray
    """Row of `values` for each item; -1 where it was not asked for."""
    values: torch.Tensor
    classes: torch.Tensor

    @classmethod
    @torch.inference_mode()
    def of(
        cls, base: BaseModel, module: nn.Module, items: Items, rows: np.ndarray | None = None, batch_size: int = 64
    ) -> _Features:
        rows = np.arange(len(items)) if rows is None else rows
        order = rows[np.argsort(items.lengths[rows], kind="stable")]
        place = np.full(len(items), -1)
        place[order] = np.arange(len(order))
        seen: list[torch.Tensor] = []
        found = []
        with _listening(module, seen):
            for start in range(0, len(order), batch_size):
                batch = items.batch(order[start : start + batch_size]).to(base.device)
                base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
                found.append(_read_token(base.model, seen.pop(), batch.attention_mask))
        classes = torch.from_numpy(items.classes[order]).to(base.device)  # type: ignore[index]
        return cls(place, torch.cat(found).clone(), classes)

    @torch.inference_mode()
    def score(self, module: nn.Module) -> Score:
        """What the head makes of all items, in item order."""
        logits = module(self.values).flatten(1)[self.place]
        classes = self.classes[self.place]
        losses = functional.cross_entropy(logits, classes, reduction="none").double().cpu().numpy()
        return Score(losses, (logits.argmax(-1) == classes).cpu().numpy(), logits.float().cpu().numpy())


def _read_token(model: PreTrainedModel, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if features.ndim == 2:
        return features
    last = mask.sum(1) - 1
    token = torch.zeros_like(last) if model.config.model_type in ("roberta", "xlm-roberta") else last
    return features[torch.arange(len(features), device=features.device), token][:, None]


def _train(
    module: nn.Module,
    head: dict[str, nn.Parameter],
    features: _Features,
    schedule: list[np.ndarray],
    rate: float,
    plan: FitPlan,
) -> None:
    for parameter in head.values():
        parameter.requires_grad_(True)
    optimiser = new_optimiser(list(head.values()), plan)
    for index, rows in enumerate(schedule):
        for group in optimiser.param_groups:
            group["lr"] = rate * plan.rate_factor(index)
        chosen = torch.from_numpy(features.place[rows])
        logits = module(features.values[chosen]).flatten(1)
        optimiser.zero_grad(set_to_none=True)
        functional.cross_entropy(logits, features.classes[chosen]).backward()
        optimiser.step()
    for parameter in head.values():
        parameter.requires_grad_(False)


@contextmanager
def _listening(module: nn.Module, seen: list[torch.Tensor]) -> Iterator[None]:
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield
    finally:
        hook.remove()


def _head_module(model: PreTrainedModel) -> nn.Module:
    return next(getattr(model, name) for name in HEADS if hasattr(model, name))


@torch.no_grad()
def _restore(head: dict[str, nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    for name, parameter in head.items():
        parameter.copy_(values[name])
