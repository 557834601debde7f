"""The other backbone of Eq. 15: a 1-D U-Net over the adapter sites, in their order along the model (Table II).

Knows shapes; does not know schedules, ranks, or what a condition means. Neighbouring sites share kernels; what distant
sites have in common travels through the coarser levels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from airtune.errors import ConfigError
from airtune.methods.airllm.policy.denoiser import drawn, linear, time_embedding

DEPTH, KERNEL = 6, 3
"""Levels and kernel size (Table II). Each level halves the length and doubles the channels."""


@final
class UNet(nn.Module):
    """f_psi as a 1-D U-Net: x is one channel over the sites, e_tau and the condition are added in every block.

    The last site is repeated until the length is a multiple of 2^(depth - 1): 36 sites become 64, 144 become 160.

    Args:
        sites: Length of x and of the prediction.
        condition_size: Length of the condition, here (state, coarse action).
        width: Channels of the deepest level; the first has width / 2^(depth - 1).
        time_size: Length of e_tau; even.
        generator: Draws every weight, on the CPU; the same seed gives the same network.

    Raises:
        ConfigError: width is not a positive multiple of 2^(depth - 1), or another size is out of range.
    """

    def __init__(
        self,
        sites: int,
        condition_size: int,
        *,
        generator: torch.Generator,
        width: int = 128,
        depth: int = DEPTH,
        time_size: int = 64,
    ) -> None:
        super().__init__()
        if depth < 1 or width < 1 or width % 2 ** (depth - 1):
            step = 2 ** max(depth - 1, 0)
            raise ConfigError(f"width of the U-Net is {width} at depth {depth}; choose a positive multiple of {step}")
        if sites < 1 or condition_size < 1 or time_size < 2 or time_size % 2:
            found = f"sites {sites}, condition_size {condition_size}, time_size {time_size}"
            raise ConfigError(f"the U-Net was given {found}; choose at least 1, 1, and an even number of at least 2")
        self.condition_size, self.time_size = condition_size, time_size
        self.padding = -sites % 2 ** (depth - 1)
        channels = [width >> level for level in reversed(range(depth))]
        self.embed = nn.Sequential(linear(time_size + condition_size, width, generator), nn.SiLU())
        self.enter = _conv(1, channels[0], generator)
        self.down = nn.ModuleList(_Block(c, c, width, generator) for c in channels)
        self.narrow = nn.ModuleList(_conv(upper, lower, generator, stride=2) for upper, lower in pairwise(channels))
        self.widen = nn.ModuleList(_conv(lower, upper, generator) for upper, lower in pairwise(channels))
        self.up = nn.ModuleList(_Block(2 * c, c, width, generator) for c in channels[:-1])
        self.leave = nn.Sequential(nn.GroupNorm(1, channels[0]), nn.SiLU(), _conv(channels[0], 1, generator))

    def forward(self, x: Tensor, tau: Tensor, condition: Tensor) -> Tensor:
        """Prediction ``(batch, sites)`` from x ``(batch, sites)``, tau ``(batch,)``, condition ``(batch, size)``."""
        context = self.embed(torch.cat([time_embedding(tau, self.time_size).to(x.dtype), condition], dim=1))
        hidden = self.enter(functional.pad(x.unsqueeze(1), (0, self.padding), mode="replicate"))
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            hidden = block(hidden, context)
            if level < len(self.narrow):
                kept.append(hidden)
                hidden = self.narrow[level](hidden)
        for level in reversed(range(len(self.up))):
            raised = self.widen[level](functional.interpolate(hidden, scale_factor=2, mode="nearest"))
            hidden = self.up[level](torch.cat([raised, kept[level]], dim=1), context)
        prediction: Tensor = self.leave(hidden)[:, 0, : x.shape[1]]
        return prediction


class _Block(nn.Module):
    """Two convolutions around the context, beside a shortcut; ``(batch, fan_in, n)`` to ``(batch, fan_out, n)``."""

    def __init__(self, fan_in: int, fan_out: int, context: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(1, fan_in), nn.SiLU(), _conv(fan_in, fan_out, generator))
        self.context = linear(context, fan_out, generator)
        self.second = nn.Sequential(nn.GroupNorm(1, fan_out), nn.SiLU(), _conv(fan_out, fan_out, generator))
        self.shortcut = nn.Identity() if fan_in == fan_out else _conv(fan_in, fan_out, generator, kernel=1)

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        inner = self.first(hidden) + self.context(context).unsqueeze(2)
        out: Tensor = self.shortcut(hidden) + self.second(inner)
        return out


def _conv(fan_in: int, fan_out: int, generator: torch.Generator, *, kernel: int = KERNEL, stride: int = 1) -> nn.Conv1d:
    layer = nn.utils.skip_init(nn.Conv1d, fan_in, fan_out, kernel, stride=stride, padding=kernel // 2)
    return drawn(layer, fan_in * kernel, generator)
