"""The second form of adapter: a small trained core between bases derived from each site's own weight (LoRA-XS).

Knows sites, layers and bases; not how cores are trained, rounded or sent.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from airtune.adapters.derived import Bases, derive
from airtune.codec import Factors
from airtune.models import BaseModel


class CoreLinear(nn.Module):
    """W x + s U_k S_k R V_k^T x, of which only R is trained; it starts at 0, so at the base model."""

    def __init__(self, base: nn.Module, bases: Bases, scale: float = 1.0) -> None:
        super().__init__()
        device = next(base.parameters()).device
        self.base, self.bases, self.scale = base, bases, scale
        self.left = torch.from_numpy(bases.left).to(device)
        self.right = torch.from_numpy(bases.right).to(device)
        self.core = nn.Parameter(torch.zeros(bases.size, bases.size, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(..., fan_in)`` to ``(..., fan_out)``."""
        out: torch.Tensor = self.base(x)
        return out + (self.scale * (x @ self.right.T)) @ self.core.T @ self.left.T


class CoreAdapter:
    """Cores on every site of a base model; `detach` puts the projections back.

    Args:
        base: The model to adapt. Its weights stay frozen; its head may be trained beside.
        bases: By site path, as `bases_of` derives them.
        scale: s, the constant in front of every update.
    """

    def __init__(self, base: BaseModel, bases: Mapping[str, Bases], *, scale: float = 1.0) -> None:
        self.base = base
        self.layers = {
            site.path: CoreLinear(base.model.get_submodule(site.path), bases[site.path], scale) for site in base.sites
        }
        for path, layer in self.layers.items():
            base.model.set_submodule(path, layer)

    def detach(self) -> None:
        """Put the bare projections back; the base model is as it was."""
        for path, layer in self.layers.items():
            self.base.model.set_submodule(path, layer.base)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The cores by name; a head is the base model's."""
        return {f"{path}.core": layer.core for path, layer in self.layers.items()}

    def factors(self) -> dict[str, Factors]:
        """The updates of whole sites by path, k directions each; the scale in lam."""
        found = {}
        for path, layer in self.layers.items():
            core = layer.core.detach().cpu().double().numpy()
            found[path] = layer.bases.lift(Factors(core, np.full(len(core), layer.scale), np.eye(len(core))))
        return found


def bases_of(base: BaseModel, size: int) -> dict[str, Bases]:
    """Bases of every site, of `size` singular vectors, or min(out, in) where that is smaller."""
    found = {}
    for site in base.sites:
        weight = base.model.get_submodule(site.path).weight.detach().cpu().double().numpy()
        found[site.path] = derive(weight.T if base.fan_in_fan_out else weight, size)
    return found
