"""The side network: full-width adapters in cascade over the hidden states that were sent, then an output map.

With A_i the hidden states at one pivot, i = 1..K over the layers that are sent:

    S_i  = (1 - mu_i) A_i + mu_i h_(i-1),  mu_i = sigmoid(alpha_i / T)
    h_i  = S_i + gelu(S_i W_down,i) W_up,i
    Dy^  = h_K W_out + b_out

h_0 is not sent: mu_1 is 0. W_up, W_out and b_out start at 0, so that training starts at the backbone's own prediction.
It works row by row, so that no other token matters to a pivot. Knows tensors; not where rows come from.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional

from airtune.errors import TransportError

_NAMES: Final = ("alpha", "down", "up", "out", "bias")


class SideNetwork(nn.Module):
    """Dy^ of rows ``(n, K, d)`` as ``(n, C)``.

    Args:
        layers: K.
        width: d, full width.
        bottleneck: r.
        outputs: C.
        temperature: T of the gates.
        generator: Draws W_down, normal with variance 1 / d.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        bottleneck: int,
        outputs: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.alpha = nn.Parameter(torch.zeros(layers))
        self.down = nn.Parameter(torch.randn(layers, width, bottleneck, generator=generator) / width**0.5)
        self.up = nn.Parameter(torch.zeros(layers, bottleneck, width))
        self.out = nn.Parameter(torch.zeros(width, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        mix = torch.sigmoid(self.alpha / self.temperature)
        state = rows[:, 0]
        for at in range(rows.shape[1]):
            seen = state if at == 0 else torch.lerp(rows[:, at], state, mix[at])
            state = seen + functional.gelu(seen @ self.down[at]) @ self.up[at]
        return state @ self.out + self.bias

    @torch.inference_mode()
    def differences(self, rows: np.ndarray) -> np.ndarray:
        """Dy^ of float32 rows ``(n, K, d)`` as NumPy, without gradients."""
        return self(torch.from_numpy(np.ascontiguousarray(rows, np.float32))).numpy()

    def to_bytes(self) -> bytes:
        """Weights as safetensors, float32; the temperature as metadata."""
        tensors = {name: getattr(self, name).detach().contiguous() for name in _NAMES}
        return save(tensors, metadata={"temperature": repr(self.temperature)})

    @classmethod
    def of_bytes(
        cls, data: bytes, *, layers: int, width: int, outputs: int, bottleneck: int = 0, temperature: float = 1.0
    ) -> SideNetwork:
        """Read weights for these sizes. Raises `TransportError` for anything else, numbers not finite included.

        Args:
            bottleneck: r; 0 takes any from 1.
        """
        try:
            tensors = load(data)
        except (SafetensorError, ValueError) as error:
            raise TransportError(f"the side network that came cannot be read ({error}); ask for it again") from None
        came = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        rank = bottleneck or max(1, came.get("down", (1,))[-1])
        sizes = (layers,), (layers, width, rank), (layers, rank, width), (width, outputs), (outputs,)
        shapes = dict(zip(_NAMES, sizes, strict=True))
        floats = all(
            tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all()) for tensor in tensors.values()
        )
        if came != shapes or not floats:
            raise TransportError(
                f"the side network that came has {str(came)[:300]}; expected finite float32 {shapes}; ask for it again"
            )
        found = cls(layers, width, rank, outputs, temperature=temperature, generator=torch.Generator())
        found.load_state_dict(tensors)
        return found.requires_grad_(False)

    @classmethod
    def blank(cls, like: SideNetwork) -> SideNetwork:
        """One of the same sizes that has learned nothing: its answer is 0."""
        layers, width, bottleneck = like.down.shape
        return cls(layers, width, bottleneck, like.out.shape[1], generator=torch.Generator()).requires_grad_(False)

    @staticmethod
    def size(layers: int, width: int, bottleneck: int, outputs: int) -> int:
        """How many numbers it has: K (2 d r + 1) + (d + 1) C."""
        return layers * (2 * width * bottleneck + 1) + (width + 1) * outputs
