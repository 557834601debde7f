"""A way to send an adaptation: how many bits, and what the receiver then holds.

Knows how it is scored; not how it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from airtune.adapters import check_update
from airtune.codec import Factors
from airtune.methods.airllm.baselines.training import head_kept
from airtune.models import BaseModel, Items, Score, score, score_heads


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to send.

    Args:
        name: Among those of its family.
        bits: All that is needed beside the base model and what both sides agreed on before.
        factors, dense: The update of every site and the head; or
        change: What is added to weights, by parameter name.
    """

    name: str
    bits: float
    factors: Mapping[str, Factors] = field(default_factory=dict)
    dense: Mapping[str, np.ndarray] = field(default_factory=dict)
    change: Mapping[str, np.ndarray] = field(default_factory=dict)

    def score(self, base: BaseModel, items: Items) -> Score:
        """Score the base model as a receiver of this would use it; no logits are kept. The model is then as before."""
        with self.applied(base):
            return score(base.model, items, keep_logits=0)

    @contextmanager
    def applied(self, base: BaseModel) -> Iterator[None]:
        """Inside the block a base model's weights have the update in them, which is faster than layers beside them.

        Its head is this one, whatever becomes of it there.

        Raises:
            PayloadError: sites, shapes or head do not match this model.
        """
        change = dict(self.change)
        if self.factors:
            check_update(base, self.factors, self.dense)
            for path, site in self.factors.items():
                update = np.asarray(site.p * site.lam, np.float32) @ np.asarray(site.q, np.float32)
                change[f"{path}.weight"] = update.T if base.fan_in_fan_out else update
        with changed(base, change), head_kept(base):
            with torch.no_grad():
                for name, value in self.dense.items():
                    base.model.get_parameter(name).copy_(torch.from_numpy(np.array(value, np.float32)))
            yield


def score_all(candidates: Iterable[Candidate], base: BaseModel, items: Items) -> list[Score]:
    """As `Candidate.score` of each, in their order; those of the same factors, one after the other, share a pass."""
    found = []
    for same in of_same_factors(candidates):
        if len(same) > 1 and same[0].dense:
            with same[0].applied(base):
                found += score_heads(base, [one.dense for one in same], items)
        else:
            found += [one.score(base, items) for one in same]
    return found


def of_same_factors(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """Candidates in runs that share their factors, the very same ones."""
    run: list[Candidate] = []
    for one in candidates:
        if run and one.factors is not run[-1].factors:
            yield run
            run = []
        run.append(one)
    if run:
        yield run


@contextmanager
def changed(base: BaseModel, change: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Add to a base model's weights inside the block."""
    before = {name: base.model.get_parameter(name).detach().clone() for name in change}
    try:
        with torch.no_grad():
            for name, value in change.items():
                base.model.get_parameter(name).add_(torch.from_numpy(np.ascontiguousarray(value, np.float32)))
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                base.model.get_parameter(name).copy_(tensor)
