"""Fine-tuning of all weights, and its change sent at a few bits a number.

At 1 bit signs and one size a row, as BitDelta (Liu et al. 2402.10193, there one a matrix), then the uniform grid. Knows
weights and bits; not adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from airtune.errors import ModelError
from airtune.methods.airllm.bits.candidate import Candidate, changed
from airtune.methods.airllm.bits.grid import SCALE_BITS, on_grid
from airtune.models import BaseModel, FitPlan, fit, score
from airtune.records import generator
from airtune.workloads.parts import Parts

WIDTHS = (1, 2, 3, 4)
Change = dict[str, np.ndarray]


def train_whole(
    base: BaseModel, parts: Parts, plan: FitPlan, rates: Sequence[float], on_try: Callable[[float, float], None]
) -> Change:
    """Fine-tune every weight at each learning rate, and keep the change of least loss on dev.

    Args:
        base: Bare, and as before afterwards.
        on_try: Called with a rate and its dev loss in nat.

    Raises:
        ModelError: no rate stayed finite.
    """
    best, least = None, np.inf
    for rate in rates:
        try:
            change = _trained(base, parts, replace(plan, learning_rate=rate))
        except ModelError:
            continue
        with changed(base, change):
            loss = score(base.model, parts.dev, keep_logits=0).loss
        on_try(rate, loss)
        if loss < least:
            best, least = change, loss
    if best is None:
        raise ModelError(f"none of the rates {list(rates)} gave a finite loss; try lower ones")
    return best


def _trained(base: BaseModel, parts: Parts, plan: FitPlan) -> Change:
    parameters = dict(base.model.named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    try:
        base.model.requires_grad_(True)
        for _ in fit(base.model, parameters, parts.train, plan, rng=generator(plan.seed, "batches")):
            pass
        return {name: (value.detach() - before[name]).cpu().numpy() for name, value in parameters.items()}
    finally:
        base.model.eval().requires_grad_(False)
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(before[name])


def whole(change: Mapping[str, np.ndarray]) -> Iterator[Candidate]:
    """The change of every weight at each width; a vector is one row."""
    rows = {name: np.atleast_2d(value) for name, value in change.items()}
    scales = SCALE_BITS * sum(map(len, rows.values()))
    numbers = sum(value.size for value in change.values())
    for width in WIDTHS:
        rounded = {name: on_grid(value, width).reshape(change[name].shape) for name, value in rows.items()}
        yield Candidate(f"{width} bits", numbers * width + scales, change=rounded)
