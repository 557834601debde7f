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
from airtune.adapters.rounded_values import Codes, HeadRows, Scales
from airtune.adapters.svd_linear import SvdLinear
from airtune.codec import LARGEST_SCALE, SCALE_STEPS, Coded, CodedSite, CodedTensor, scale_values, tables_of
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
        base: Bare; its head is the trained one afterwards, in its codes.
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


class RoundedAdapter:
    """Codes and scales on every site of a base model, and for its head.

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
        self._head = {name: base.model.get_parameter(name) for name in coded.dense if name in base.head}
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
        for name, tensor in coded.dense.items():
            rows = _tensor(tensor.codes, base), _tensor(scale_values(tensor.scales), base)
            parametrize.register_parametrization(*self._place(name), HeadRows(*rows, tensor.shape))

    def detach(self) -> None:
        """Put the bare projections back; the head has what its codes say."""
        self._adapter.detach()
        for name, parameter in self._head.items():
            module, leaf = self._place(name)
            if parametrize.is_parametrized(module, leaf):
                value = getattr(module, leaf).detach()
                parametrize.remove_parametrizations(module, leaf)
                delattr(module, leaf)
                parameter.data.copy_(value)
                module.register_parameter(leaf, parameter)

    def parameters(self) -> dict[str, nn.Parameter]:
        """P^T, Q and scales of every site, in the units of `Codes` and `Scales`; shapes (r, out), (r, in) and (r,).

        Of cores, shapes (r, k), (r, k) and (r,); of the head codes and scales, shapes (rows, numbers) and (rows,).
        """
        own = {f"{path}.{name}": _own(layer, name) for path, layer in self._layers() for name in ("p", "q", "lam")}
        for name in self._coded.dense:
            module, leaf = self._place(name)
            for index, what in enumerate(("codes", "scales")):
                own[f"{name}.{what}"] = _own(module, leaf, index)
        return own

    def bits(self) -> torch.Tensor:
        """What the codes take if each vector is a rounded Gaussian of its variance v: n / 2 log2(2 pi e (v + 1/12))."""
        total = torch.zeros((), device=self._adapter.base.device)
        for codes in self._vectors():
            variance = codes.square().mean(dim=1)
            total = total + codes.shape[1] * 0.5 * torch.log2(2 * math.pi * math.e * (variance + 1 / 12)).sum()
        return total

    def coded(self) -> Coded:
        """Codes and scales as they are now, each vector under the table that suits it."""
        sites = {}
        for path, layer in self._layers():
            before = self._coded.sites[self._names[path]]
            p, q = (_codes(_whole(layer, name)) for name in ("p", "q"))
            scales = _moved(before.scales, _own(layer, "lam")[: before.rank])
            sites[self._names[path]] = CodedSite.of(p, q, scales)
        dense = {}
        for name, tensor in self._coded.dense.items():
            codes = _codes(self._head_codes(name))
            scales = _moved(tensor.scales, _own(*self._place(name), 1))
            dense[name] = CodedTensor(codes, scales, tables_of(codes), tensor.shape)
        return Coded(sites, dense)

    def _vectors(self) -> Iterator[torch.Tensor]:
        """The codes of all directions and of the head, one vector a row."""
        for _, layer in self._layers():
            yield from (_whole(layer, "p"), _whole(layer, "q"))
        yield from map(self._head_codes, self._coded.dense)

    def _head_codes(self, name: str) -> torch.Tensor:
        module, leaf = self._place(name)
        rows = module.get_submodule(f"parametrizations.{leaf}.0")
        assert isinstance(rows, HeadRows)
        return rows.codes.whole(_own(module, leaf, 0))

    def _place(self, name: str) -> tuple[nn.Module, str]:
        """The module that has a parameter of the head, and its name there."""
        path, _, leaf = name.rpartition(".")
        return self._adapter.base.model.get_submodule(path), leaf

    def _layers(self) -> Iterator[tuple[str, SvdLinear]]:
        yield from zip((site.path for site in self._adapter.sites), self._adapter.layers, strict=True)


def _own(module: nn.Module, name: str, index: int | None = None) -> nn.Parameter:
    """What a tensor of a module is made from, the one of several of this index."""
    return module.get_parameter(f"parametrizations.{name}.original{'' if index is None else index}")


def _whole(layer: SvdLinear, name: str) -> torch.Tensor:
    """The codes of the directions in use."""
    codes = layer.get_submodule(f"parametrizations.{name}.0")
    assert isinstance(codes, Codes)
    return codes.whole(_own(layer, name))[: layer.rank]


def _codes(whole: torch.Tensor) -> npt.NDArray[np.int16]:
    found: npt.NDArray[np.int16] = whole.detach().cpu().numpy().clip(-LARGEST_CODE, LARGEST_CODE).astype(np.int16)
    return found


def _moved(scales: npt.NDArray[np.int16], octaves: torch.Tensor) -> npt.NDArray[np.int16]:
    """Scales after so many octaves, on their grid."""
    found = np.clip(scales + np.round(SCALE_STEPS * octaves.detach().cpu().numpy()), -LARGEST_SCALE, LARGEST_SCALE)
    return found.astype(np.int16)


def _padded(codes: npt.NDArray[np.int16], rows: int) -> npt.NDArray[np.int16]:
    return np.vstack([codes, np.zeros((rows - len(codes), codes.shape[1]), np.int16)])


def _tensor(values: npt.NDArray[np.generic], base: BaseModel) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(base.device)
