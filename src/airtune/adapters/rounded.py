"""An adapter in the codes it is sent in, trained on through their rounding: what is trained is what arrives.

Knows codes and gradients; not how codes were found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from airtune.adapters.adapter import Adapter
from airtune.codec import Coded, CodedSite
from airtune.codec.entropy import LARGEST_CODE
from airtune.errors import ConfigError
from airtune.models import BaseModel, FitPlan, Items, Step, fit

RATE = 0.04
"""Learning rate, in steps of the codes: they move by a step or two in a hundred updates."""


def tune(
    base: BaseModel,
    coded: Coded,
    items: Items,
    plan: FitPlan,
    *,
    price: float,
    rng: np.random.Generator,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Coded:
    """Train codes on, with a price on what they take; as many directions and the same scales come back.

    Args:
        base: Bare; its head is the coded one afterwards.
        items: What to train on.
        plan: How long. Its learning rate and weight decay are not read.
        price: Loss that a bit is worth, in nat.
        rng: Draws the batches.
    """
    adapter = RoundedAdapter(base, coded)
    try:
        plan = replace(plan, learning_rate=RATE, weight_decay=0.0)
        parameters = adapter.parameters()
        for step in fit(base.model, parameters, items, plan, rng=rng, penalty=lambda: price * adapter.bits()):
            on_step(step)
        return adapter.coded()
    finally:
        adapter.detach()


class Rounded(nn.Module):
    """Whole numbers going forward; gradients pass as if nothing were rounded (straight-through, Bengio et al. 2013)."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers + (torch.round(numbers) - numbers).detach()


class RoundedAdapter:
    """Codes on every site of a base model; scales and head stay as they are.

    Parameters are in steps of the codes, and so is a learning rate.

    Args:
        base: The model to adapt; its head becomes the coded one.
        coded: Where to start.

    Raises:
        ConfigError: no direction in it. PayloadError: not for this model.
    """

    def __init__(self, base: BaseModel, coded: Coded) -> None:
        if not (rank := max((site.rank for site in coded.sites.values()), default=0)):
            raise ConfigError("the adapter has no directions, so no codes to train; send it at a lower price of a bit")
        self._coded = coded
        self._adapter = Adapter(base, rank, generator=torch.Generator())
        try:
            factors = {name: site.factors() for name, site in coded.sites.items()}
            self._adapter.load(factors, {name: tensor.tensor() for name, tensor in coded.dense.items()})
        except Exception:
            self.detach()
            raise
        for layer in self._adapter.layers:
            for name in ("p", "q"):
                parametrize.register_parametrization(layer, name, Rounded())

    def detach(self) -> None:
        """Put the bare projections back."""
        self._adapter.detach()

    def parameters(self) -> dict[str, nn.Parameter]:
        """P^T and Q of every site, in steps, shapes (r, out) and (r, in)."""
        return {
            f"{site.path}.{name}": layer.get_parameter(f"parametrizations.{name}.original")
            for site, layer in zip(self._adapter.sites, self._adapter.layers, strict=True)
            for name in ("p", "q")
        }

    def bits(self) -> torch.Tensor:
        """What the codes take if each vector is a rounded Gaussian of its variance v: n / 2 log2(2 pi e (v + 1/12))."""
        total = torch.zeros((), device=self._adapter.base.device)
        for name, numbers in self.parameters().items():
            sent = numbers[: self._coded.sites[name.rpartition(".")[0]].rank]
            variance = sent.square().mean(dim=1)
            total = total + sent.shape[1] * 0.5 * torch.log2(2 * math.pi * math.e * (variance + 1 / 12)).sum()
        return total

    def coded(self) -> Coded:
        """The codes as they are now, each vector under the table that suits it."""
        sites = {}
        for site, layer in zip(self._adapter.sites, self._adapter.layers, strict=True):
            before = self._coded.sites[site.path]
            p, q = (
                part.detach().cpu().numpy()[: before.rank].clip(-LARGEST_CODE, LARGEST_CODE).astype(np.int16)
                for part in (layer.p, layer.q)
            )
            sites[site.path] = CodedSite.of(p, q, before.scales)
        return replace(self._coded, sites=sites)
