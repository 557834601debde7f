"""Per-site low-rank adapters: ranks, layers, nested training, export to PEFT.

Reading map: `ranks` counts -> `svd_linear` is one projection (Eq. 2) -> `adapter` is all of them, with the head ->
`nested` trains so that every prefix works -> `gains` and `curvature` say what directions are worth -> `core_adapter` is
the second form, cores between bases that `derived` gets from the weights -> `export` writes plain PEFT LoRA, `imported`
reads it once `peft_config` has made sure that it is plain -> `receiver` is who has the base model, `unpacking` makes a
payload an adapter again. Names load when first used, so that a device without torch can still do that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airtune.adapters.adapter import Adapter, check_update
    from airtune.adapters.export import export_peft
    from airtune.adapters.nested import RankSampler
    from airtune.adapters.ranks import RankVector, check_sites, rank_caps
    from airtune.adapters.svd_linear import SvdLinear

_HOMES = {
    "Adapter": "adapter",
    "RankSampler": "nested",
    "RankVector": "ranks",
    "SvdLinear": "svd_linear",
    "check_sites": "ranks",
    "check_update": "adapter",
    "export_peft": "export",
    "rank_caps": "ranks",
}

__all__ = [
    "Adapter",
    "RankSampler",
    "RankVector",
    "SvdLinear",
    "check_sites",
    "check_update",
    "export_peft",
    "rank_caps",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"airtune.adapters.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'airtune.adapters' has no attribute {name!r}")
