"""The second form of adapter: a small trained core between bases derived from each site's own weight.

LoRA-XS (arXiv:2405.17604) trains every entry of a core R of shape (k, k). Here R is P Q of rank r, at most k: few bits
are served better by more singular vectors and a low rank between them (docs/log.md). Knows sites, layers and bases; not
how cores are trained, rounded or sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from airtune.adapters.derived import Bases, derive
from airtune.codec import Factors
from airtune.models import BaseModel


class CoreLinear(nn.Module):
    """W x + s U_k S_k P Q V_k^T x, of which P and Q are trained; they start as LoRA's do, so at the base model.

    Args:
        base: The projection, frozen.
        rank: r, columns of P and rows of Q; k where that is smaller.
        scale: s.
        generator: Draws Q's start.
    """

    def __init__(
        self, base: nn.Module, bases: Bases, rank: int, *, scale: float = 1.0, generator: torch.Generator
    ) -> None:
        super().__init__()
        device, size = next(base.parameters()).device, bases.size
        self.base, self.bases, self.scale = base, bases, scale
        self.left = torch.from_numpy(bases.left).to(device)
        self.right = torch.from_numpy(bases.right).to(device)
        bound = 1 / math.sqrt(size)
        rows = torch.rand(min(rank, size), size, generator=generator) * 2 * bound - bound
        self.p = nn.Parameter(torch.zeros(size, len(rows), device=device))
        self.q = nn.Parameter(rows.to(device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(..., fan_in)`` to ``(..., fan_out)``."""
        out: torch.Tensor = self.base(x)
        return out + self.scale * (x @ self.right.T @ self.q.T) @ self.p.T @ self.left.T

    def factors(self) -> Factors:
        """The update of the whole site, the scale in lam."""
        p, q = (part.detach().cpu().double().numpy() for part in (self.p, self.q))
        return self.bases.lift(Factors(p, np.full(len(q), self.scale), q))


class CoreAdapter:
    """Cores on every site of a base model; `detach` puts the projections back.

    Args:
        base: The model to adapt. Its weights stay frozen; its head may be trained beside.
        bases: By site path, as `bases_of` derives them.
        rank, scale, generator: As `CoreLinear`.
    """

    def __init__(
        self,
        base: BaseModel,
        bases: Mapping[str, Bases],
        rank: int,
        *,
        scale: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        self.base = base
        self.layers = {
            site.path: CoreLinear(
                base.model.get_submodule(site.path), bases[site.path], rank, scale=scale, generator=generator
            )
            for site in base.sites
        }
        for path, layer in self.layers.items():
            base.model.set_submodule(path, layer)

    def detach(self) -> None:
        """Put the bare projections back; the base model is as it was."""
        for path, layer in self.layers.items():
            self.base.model.set_submodule(path, layer.base)

    def parameters(self) -> dict[str, nn.Parameter]:
        """P and Q of every site by name; a head is the base model's."""
        return {f"{path}.{name}": getattr(layer, name) for path, layer in self.layers.items() for name in ("p", "q")}

    def factors(self) -> dict[str, Factors]:
        """The updates of whole sites by path."""
        return {path: layer.factors() for path, layer in self.layers.items()}


def bases_of(base: BaseModel, size: int) -> dict[str, Bases]:
    """Bases of every site, of `size` singular vectors, or min(out, in) where that is smaller."""
    found = {}
    for site in base.sites:
        weight = base.model.get_parameter(f"{site.path}.weight").detach().cpu().double().numpy()
        found[site.path] = derive(weight.T if base.fan_in_fan_out else weight, size)
    return found
