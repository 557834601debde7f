"""An adapter in the codes it is sent in, trained on through their rounding: what is trained is what arrives.

Knows codes and gradients; not how codes were found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils import parametrize

from airtune.adapters.adapter import Adapter
from airtune.adapters.derived import Bases, lift_cores, path_of
from airtune.adapters.svd_linear import SvdLinear
from airtune.codec import LARGEST_SCALE, SCALE_STEPS, Coded, CodedSite
from airtune.codec.entropy import LARGEST_CODE
from airtune.errors import ConfigError
from airtune.models import BaseModel, FitPlan, Items, Step, fit

RATE = 0.04
"""Learning rate: codes move by so much of their root mean square in an update, by so many steps where that is above 1,
and scales by so many octaves."""
STEEP = 0.5
"""Loss, in nat, that twice the bits there is room for cost; in between in proportion."""
ROOM = 0.98
"""Of the bits at the start: room for codes, which outgrow it by a little."""


def tune(
    base: BaseModel,
    coded: Coded,
    items: Items,
    plan: FitPlan,
    *,
    rng: np.random.Generator,
    bases: Mapping[str, Bases] | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Coded:
    """Train codes and scales on; codes that need more than `ROOM` of the bits they took at the start pay for it.

    Args:
        base: Bare; its head is the coded one afterwards.
        items: What to train on.
        plan: How long. Its learning rate and weight decay are not read.
        rng: Draws the batches.
        bases: By path, of sites that are cores.

    Returns:
        As many directions as before.
    """
    adapter = RoundedAdapter(base, coded, bases)
    try:
        room = ROOM * adapter.bits().detach()

        def outgrown() -> torch.Tensor:
            return STEEP * torch.relu(adapter.bits() / room - 1)

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
    """Whole numbers from parameters in units of each direction's root mean square, of 1 where that is larger.

    Where most codes are 0 or 1 a rate in steps would move them too fast: half a step is then most of what there is.

    Args:
        codes: Where to start, shape (r, n).
        basis: What they are factors between, shape (n, side of the site); itself where there is none.
    """

    def __init__(self, codes: torch.Tensor, basis: torch.Tensor | None = None) -> None:
        super().__init__()
        spread = codes.square().mean(dim=1, keepdim=True).sqrt()
        self.register_buffer("unit", torch.where(spread > 0, spread, 1.0).clamp(max=1.0), persistent=False)
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


class RoundedAdapter:
    """Codes and scales on every site of a base model; the head stays as it is.

    Args:
        base: The model to adapt; its head becomes the coded one.
        coded: Where to start.
        bases: By path, of sites that are cores.

    Raises:
        ConfigError: no direction in it. PayloadError: not for this model, or of other bases.
    """

    def __init__(self, base: BaseModel, coded: Coded, bases: Mapping[str, Bases] | None = None) -> None:
        if not (rank := max((site.rank for site in coded.sites.values()), default=0)):
            raise ConfigError("the adapter has no directions, so no codes to train; send it at a lower price of a bit")
        self._coded, self._names = coded, {path_of(name): name for name in coded.sites}
        self._adapter = Adapter(base, rank, generator=torch.Generator())
        try:
            factors = lift_cores({name: site.factors() for name, site in coded.sites.items()}, bases or {})
            self._adapter.load(factors, {name: tensor.tensor() for name, tensor in coded.dense.items()})
        except Exception:
            self.detach()
            raise
        for path, layer in self._layers():
            site, own = coded.sites[self._names[path]], (bases or {}).get(path)
            left, right = (None, None) if own is None else (_tensor(own.left.T, base), _tensor(own.right, base))
            start = [_tensor(_padded(codes, layer.cap), base) for codes in (site.p.T, site.q)]
            of = {"p": Codes(start[0], left), "q": Codes(start[1], right), "lam": Scales(layer.lam)}
            for name, module in of.items():
                parametrize.register_parametrization(layer, name, module)

    def detach(self) -> None:
        """Put the bare projections back."""
        self._adapter.detach()

    def parameters(self) -> dict[str, nn.Parameter]:
        """P^T, Q and scales of every site, in the units of `Codes` and `Scales`; shapes (r, out), (r, in) and (r,).

        Of cores, shapes (r, k), (r, k) and (r,).
        """
        return {f"{path}.{name}": _own(layer, name) for path, layer in self._layers() for name in ("p", "q", "lam")}

    def bits(self) -> torch.Tensor:
        """What the codes take if each vector is a rounded Gaussian of its variance v: n / 2 log2(2 pi e (v + 1/12))."""
        total = torch.zeros((), device=self._adapter.base.device)
        for _, layer in self._layers():
            for codes in (_whole(layer, "p"), _whole(layer, "q")):
                variance = codes.square().mean(dim=1)
                total = total + codes.shape[1] * 0.5 * torch.log2(2 * math.pi * math.e * (variance + 1 / 12)).sum()
        return total

    def coded(self) -> Coded:
        """Codes and scales as they are now, each vector under the table that suits it."""
        sites = {}
        for path, layer in self._layers():
            before = self._coded.sites[self._names[path]]
            p, q = (
                _whole(layer, name).detach().cpu().numpy().clip(-LARGEST_CODE, LARGEST_CODE).astype(np.int16)
                for name in ("p", "q")
            )
            octaves = _own(layer, "lam").detach().cpu().numpy()[: before.rank]
            scales = np.clip(before.scales + np.round(SCALE_STEPS * octaves), -LARGEST_SCALE, LARGEST_SCALE)
            sites[self._names[path]] = CodedSite.of(p, q, scales.astype(np.int16))
        return replace(self._coded, sites=sites)

    def _layers(self) -> Iterator[tuple[str, SvdLinear]]:
        yield from zip((site.path for site in self._adapter.sites), self._adapter.layers, strict=True)


def _own(layer: SvdLinear, name: str) -> nn.Parameter:
    """What a factor or the scales of a layer are made from."""
    return layer.get_parameter(f"parametrizations.{name}.original")


def _whole(layer: SvdLinear, name: str) -> torch.Tensor:
    """The codes of the directions in use."""
    codes = layer.get_submodule(f"parametrizations.{name}.0")
    assert isinstance(codes, Codes)
    return codes.whole(_own(layer, name))[: layer.rank]


def _padded(codes: npt.NDArray[np.int16], rows: int) -> npt.NDArray[np.int16]:
    return np.vstack([codes, np.zeros((rows - len(codes), codes.shape[1]), np.int16)])


def _tensor(values: npt.NDArray[np.generic], base: BaseModel) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(base.device)
