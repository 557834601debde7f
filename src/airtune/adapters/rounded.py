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
from airtune.codec import LARGEST_SCALE, SCALE_STEPS, Coded, CodedSite
from airtune.codec.entropy import LARGEST_CODE
from airtune.errors import ConfigError
from airtune.models import BaseModel, FitPlan, Items, Step, fit

RATE = 0.04
"""Learning rate: codes move by so much of their root mean square in an update, by so many steps where that is above 1,
and scales by so many octaves."""
STEEP = 20.0
"""What a bit beyond those at the start costs, over its price."""


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
    """Train codes and scales on; codes that outgrow the bits they took at the start pay for it.

    Args:
        base: Bare; its head is the coded one afterwards.
        items: What to train on.
        plan: How long. Its learning rate and weight decay are not read.
        price: Loss that a bit is worth, in nat.
        rng: Draws the batches.

    Returns:
        As many directions as before.
    """
    adapter = RoundedAdapter(base, coded)
    try:
        room = adapter.bits().detach()

        def outgrown() -> torch.Tensor:
            return STEEP * price * torch.relu(adapter.bits() - room)

        plan = replace(plan, learning_rate=RATE, weight_decay=0.0)
        parameters = adapter.parameters()
        for step in fit(base.model, parameters, items, plan, rng=rng, penalty=outgrown):
            on_step(step)
        return adapter.coded()
    finally:
        adapter.detach()


def rounded(numbers: torch.Tensor) -> torch.Tensor:
    """Whole numbers; gradients pass as if nothing were rounded (straight-through, Bengio et al. 2013)."""
    return numbers + (torch.round(numbers) - numbers).detach()


class Codes(nn.Module):
    """Whole numbers from parameters in units of the codes' root mean square, of 1 where that is larger.

    Where most codes are 0 or 1 a rate in steps would move them too fast: half a step is then most of what there is.
    """

    def __init__(self, codes: torch.Tensor) -> None:
        super().__init__()
        sent = codes[codes.any(dim=1)]
        self.unit = min(1.0, float(sent.square().mean().sqrt())) if len(sent) else 1.0

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return rounded(numbers * self.unit)

    def right_inverse(self, codes: torch.Tensor) -> torch.Tensor:
        return codes / self.unit


class Scales(nn.Module):
    """Scales on their grid, from parameters in octaves over what they were at the start."""

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone(), persistent=False)

    def forward(self, octaves: torch.Tensor) -> torch.Tensor:
        start: torch.Tensor = self.get_buffer("start")
        return start * torch.exp2(rounded(SCALE_STEPS * octaves) / SCALE_STEPS)

    def right_inverse(self, scales: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(scales)


class RoundedAdapter:
    """Codes and scales on every site of a base model; the head stays as it is.

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
            for name, of in (("p", Codes(layer.p)), ("q", Codes(layer.q)), ("lam", Scales(layer.lam))):
                parametrize.register_parametrization(layer, name, of)

    def detach(self) -> None:
        """Put the bare projections back."""
        self._adapter.detach()

    def parameters(self) -> dict[str, nn.Parameter]:
        """P^T, Q and scales of every site, in the units of `Codes` and `Scales`; shapes (r, out), (r, in) and (r,)."""
        return {
            f"{site.path}.{name}": layer.get_parameter(f"parametrizations.{name}.original")
            for site, layer in zip(self._adapter.sites, self._adapter.layers, strict=True)
            for name in ("p", "q", "lam")
        }

    def bits(self) -> torch.Tensor:
        """What the codes take if each vector is a rounded Gaussian of its variance v: n / 2 log2(2 pi e (v + 1/12))."""
        total = torch.zeros((), device=self._adapter.base.device)
        for site, layer in zip(self._adapter.sites, self._adapter.layers, strict=True):
            rank = self._coded.sites[site.path].rank
            for codes in (layer.p[:rank], layer.q[:rank]):
                variance = codes.square().mean(dim=1)
                total = total + codes.shape[1] * 0.5 * torch.log2(2 * math.pi * math.e * (variance + 1 / 12)).sum()
        return total

    def coded(self) -> Coded:
        """Codes and scales as they are now, each vector under the table that suits it."""
        sites = {}
        for site, layer in zip(self._adapter.sites, self._adapter.layers, strict=True):
            before = self._coded.sites[site.path]
            p, q = (
                part.detach().cpu().numpy()[: before.rank].clip(-LARGEST_CODE, LARGEST_CODE).astype(np.int16)
                for part in (layer.p, layer.q)
            )
            octaves = layer.get_parameter("parametrizations.lam.original").detach().cpu().numpy()[: before.rank]
            scales = np.clip(before.scales + np.round(SCALE_STEPS * octaves), -LARGEST_SCALE, LARGEST_SCALE)
            sites[site.path] = CodedSite.of(p, q, scales.astype(np.int16))
        return replace(self._coded, sites=sites)
