"""The network that predicts noise from (x_tau, tau, condition), and classifier-free guidance (Eq. 15).

Knows shapes, the null token and how two predictions are mixed; does not know schedules, ranks, or what the numbers in
a condition mean. A backbone is any module with `condition_size` and ``forward(x, tau, condition)``; the residual MLP
here is one, the U-Net in `unet` another.
"""

from __future__ import annotations

import math
from typing import TypeVar, final

import torch
from torch import Tensor, nn

from airtune.errors import ConfigError

SLOWEST_PERIOD = 10_000.0
Layer = TypeVar("Layer", bound=nn.Module)


@final
class ResidualMLP(nn.Module):
    """f_psi(Concat[x_tau, e_tau, condition]) of Eq. 15: one layer in, residual blocks, one layer out.

    Args:
        sites: Length of x and of the prediction.
        condition_size: Length of the condition, here (state, coarse latent).
        width: d_latent, the hidden width.
        blocks: Residual blocks, each two layers behind a layer norm.
        time_size: Length of e_tau; even.
        generator: Draws every weight, on the CPU; the same seed gives the same network.

    Raises:
        ConfigError: a size below 1, or an odd time_size.
    """

    def __init__(
        self,
        sites: int,
        condition_size: int,
        *,
        generator: torch.Generator,
        width: int = 256,
        blocks: int = 2,
        time_size: int = 64,
    ) -> None:
        super().__init__()
        sizes = {"sites": sites, "condition_size": condition_size, "width": width, "blocks": blocks}
        for name, size in sizes.items():
            if size < 1:
                raise ConfigError(f"{name} of the denoiser is {size}; give at least 1")
        if time_size < 2 or time_size % 2:
            raise ConfigError(f"time_size of the denoiser is {time_size}; give an even number, at least 2")
        self.condition_size, self.time_size = condition_size, time_size
        self.enter = linear(sites + time_size + condition_size, width, generator)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), linear(width, width, generator), nn.SiLU(), linear(width, width, generator)
            )
            for _ in range(blocks)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), linear(width, sites, generator))

    def forward(self, x: Tensor, tau: Tensor, condition: Tensor) -> Tensor:
        """Prediction ``(batch, sites)`` from x ``(batch, sites)``, tau ``(batch,)``, condition ``(batch, size)``."""
        hidden = self.enter(torch.cat([x, time_embedding(tau, self.time_size).to(x.dtype), condition], dim=1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        prediction: Tensor = self.leave(hidden)
        return prediction


@final
class Denoiser(nn.Module):
    """A backbone with a learned null token: one network for the conditional and the unconditional prediction.

    Args:
        backbone: Module with `condition_size` and ``forward(x, tau, condition)``.
        generator: Draws the null token's start, on the CPU.
    """

    def __init__(self, backbone: nn.Module, *, generator: torch.Generator) -> None:
        super().__init__()
        self.backbone = backbone
        self.null = nn.Parameter(torch.randn(int(backbone.condition_size), generator=generator))  # type: ignore[arg-type]

    def forward(self, x: Tensor, tau: Tensor, condition: Tensor | None) -> Tensor:
        """Prediction ``(batch, sites)``; without a condition, the null token stands in for it (unconditional)."""
        prediction: Tensor = self.backbone(x, tau, self.null.expand(len(x), -1) if condition is None else condition)
        return prediction

    def drop(self, condition: Tensor, share: float, generator: torch.Generator) -> Tensor:
        """Put the null token in place of a random share of the rows, as training for guidance needs.

        Raises:
            ConfigError: share is not in 0..1.
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"share of dropped conditions is {share}; choose 0 to 1 (0.1 is usual)")
        drawn = torch.rand(len(condition), 1, generator=generator, device=generator.device)
        return torch.where(drawn.to(condition.device) < share, self.null, condition)

    def guided(self, x: Tensor, tau: Tensor, condition: Tensor, weight: float) -> Tensor:
        """eps_u + weight (eps_c - eps_u), both rows in one batch (Ho & Salimans 2207.12598).

        Weight 0 is unconditional, 1 conditional (and then runs alone), above 1 leans further towards the condition.
        Their own w counts from the conditional prediction: it is our weight - 1.
        """
        if weight == 1:
            return self(x, tau, condition)
        both = self(torch.cat([x, x]), torch.cat([tau, tau]), torch.cat([self.null.expand_as(condition), condition]))
        unconditional, conditional = both.chunk(2)
        return unconditional + weight * (conditional - unconditional)


def time_embedding(tau: Tensor, size: int) -> Tensor:
    """e_tau: sines, then cosines, of tau at size / 2 frequencies from 1 down to 1/10000, shape ``(batch, size)``."""
    half = size // 2
    exponents = torch.arange(half, device=tau.device, dtype=torch.float32) / max(half - 1, 1)
    angles = tau.unsqueeze(1) * torch.exp(-math.log(SLOWEST_PERIOD) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def linear(fan_in: int, fan_out: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer at torch's usual start, drawn from the generator and nowhere else."""
    return drawn(nn.utils.skip_init(nn.Linear, fan_in, fan_out), fan_in, generator)


def drawn(layer: Layer, fan_in: int, generator: torch.Generator) -> Layer:
    """Fill every parameter of a layer uniformly within 1 / sqrt(fan_in), torch's usual start."""
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
    return layer
