"""Per-site low-rank adapters: ranks, layers, nested training, export to PEFT.

Reading map: `ranks` counts -> `svd_linear` is one projection (Eq. 2) -> `adapter` is all of them, with the head ->
`nested` trains so that every prefix works -> `export` writes plain PEFT LoRA.
"""

from airtune.adapters.adapter import Adapter, check_update
from airtune.adapters.export import export_peft
from airtune.adapters.nested import RankSampler
from airtune.adapters.ranks import RankVector, check_sites, rank_caps
from airtune.adapters.svd_linear import SvdLinear

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
