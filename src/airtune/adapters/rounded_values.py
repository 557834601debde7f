"""Whole numbers and scales as torch parametrizations: what is computed with is rounded, gradients reach beneath.

Knows codes, scales and gradients; not models.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from airtune.codec import SCALE_STEPS


def rounded(numbers: torch.Tensor) -> torch.Tensor:
    """Whole numbers; gradients pass as if nothing were rounded (straight-through, Bengio et al. 2013)."""
    return numbers + (torch.round(numbers) - numbers).detach()


class Codes(nn.Module):
    """Whole numbers from parameters in units of each direction's root mean square, of `most` where that is larger.

    Where most codes are 0 or 1 a rate in steps would move them too fast: half a step is then most of what there is.

    Args:
        codes: Where to start, shape (r, n).
        basis: What they are factors between, shape (n, side of the site); itself where there is none.
    """

    def __init__(self, codes: torch.Tensor, basis: torch.Tensor | None = None, *, most: float = 1.0) -> None:
        super().__init__()
        spread = codes.square().mean(dim=1, keepdim=True).sqrt()
        self.register_buffer("unit", torch.where(spread > 0, spread, 1.0).clamp(max=most), persistent=False)
        self._start, self._basis = codes, basis

    def whole(self, numbers: torch.Tensor) -> torch.Tensor:
        """The codes, shape (r, n)."""
        return rounded(numbers * self.get_buffer("unit"))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        codes = self.whole(numbers)
        return codes if self._basis is None else codes @ self._basis

    def right_inverse(self, factor: torch.Tensor) -> torch.Tensor:
        """Of where they start, which `factor` is."""
        return self._start / self.get_buffer("unit")


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


class HeadRows(nn.Module):
    """A tensor of the head from parameters: codes in units of each row's root mean square, and scales.

    Args:
        codes, scales: Where to start, shapes (rows, numbers) and (rows,).
        shape: Of the tensor.
    """

    def __init__(self, codes: torch.Tensor, scales: torch.Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.codes, self.scales, self._shape = Codes(codes, most=math.inf), Scales(scales), shape

    def forward(self, numbers: torch.Tensor, octaves: torch.Tensor) -> torch.Tensor:
        return (self.codes(numbers) * self.scales(octaves)[:, None]).reshape(self._shape)

    def right_inverse(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.codes.right_inverse(tensor), self.scales.right_inverse(self.scales.get_buffer("start"))
