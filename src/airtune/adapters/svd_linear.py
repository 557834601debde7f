"""One adapted projection: W x + s P diag(lam) Q x, of which only the active prefix of directions is computed (Eq. 2).

Knows one projection; not the model around it. The rank is a run-time choice: it grows and shrinks between steps, and
a low rank under a large r_max costs what a low rank costs. In nested training the items of one batch have ranks of
their own: directions beyond an item's rank are switched off for that item, between Q and P where they are few numbers.
"""

from __future__ import annotations

import math

import torch
from torch import nn


class SvdLinear(nn.Module):
    """A frozen projection plus the first `rank` of its `cap` directions.

    Directions are rows: `p` is P transposed, ``(cap, fan_out)``; `q` is Q, ``(cap, fan_in)``; `lam` is ``(cap,)``.
    Training starts at the base model: P is 0, Q has LoRA's uniform rows, lam is 1.
    """

    def __init__(
        self, base: nn.Module, fan_in: int, fan_out: int, cap: int, *, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        device = next(base.parameters()).device
        self.base = base
        self.scale = scale
        self.rank = cap
        self._active: torch.Tensor | None = None
        bound = 1 / math.sqrt(fan_in)
        rows = torch.rand(cap, fan_in, generator=generator) * 2 * bound - bound
        self.p = nn.Parameter(torch.zeros(cap, fan_out, device=device))
        self.lam = nn.Parameter(torch.ones(cap, device=device))
        self.q = nn.Parameter(rows.to(device))

    @property
    def cap(self) -> int:
        return self.lam.shape[0]

    @property
    def rank(self) -> int:
        """How many directions are computed."""
        return self._rank

    @rank.setter
    def rank(self, rank: int) -> None:
        self._rank, self._active = rank, None

    def set_item_ranks(self, ranks: torch.Tensor) -> None:
        """Give every item of the coming batches a rank of its own, ``(items,)``, until `rank` is set again."""
        self.rank = int(ranks.max())
        self._active = (torch.arange(self.rank, device=ranks.device) < ranks[:, None]).to(self.lam.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(..., fan_in)`` to ``(..., fan_out)``; items are the leading dimension, or are stacked in it."""
        out = self.base(x)
        if self.rank == 0:
            return out
        rank = self.rank
        small = x @ self.q[:rank].T
        if self._active is None:
            weighted = small * (self.scale * self.lam[:rank])
        else:
            items = len(self._active)
            weights = self.scale * self.lam[:rank] * self._active
            weighted = (small.reshape(items, -1, rank) * weights[:, None]).reshape(small.shape)
        return out + weighted @ self.p[:rank]

    def orthogonality(self) -> torch.Tensor:
        """||P'P - I||^2 + ||QQ' - I||^2 over the active directions (Eq. 3)."""
        if self.rank == 0:
            return self.lam.new_zeros(())
        identity = torch.eye(self.rank, device=self.lam.device)
        p, q = self.p[: self.rank], self.q[: self.rank]
        return (p @ p.T - identity).square().sum() + (q @ q.T - identity).square().sum()

    @torch.no_grad()
    def importance(self) -> torch.Tensor:
        """Norm of each direction's update, |s lam_k| |p_k| |q_k|, shape ``(cap,)``."""
        return self.scale * self.lam.abs() * self.p.norm(dim=1) * self.q.norm(dim=1)

    @torch.no_grad()
    def reorder(self, order: torch.Tensor) -> None:
        """Permute the directions; the full-rank update stays the same."""
        for tensor in (self.p, self.lam, self.q):
            tensor.copy_(tensor[order])
