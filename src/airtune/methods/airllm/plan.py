"""What a link will carry of an adapter, before anything is trained: ranks, bits and airtime by SNR (Eqs. 5-7).

Sizes are exact: payloads weigh the same before training as after it. Losses are not known before training; what earlier
runs of the same anatomy measured can stand beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from airtune.adapters import Adapter, RankVector
from airtune.errors import ConfigError, DataError, DeadlineError
from airtune.links import Link
from airtune.methods.airllm.allocation import decision_budget, project
from airtune.methods.airllm.building import open_links, planned_sizes
from airtune.methods.airllm.config import AirLLMConfig
from airtune.methods.airllm.sizes import Sizes
from airtune.models import BaseModel
from airtune.workloads.opening import labels_of, open_base, open_task


@dataclass(frozen=True, slots=True)
class PlanRow:
    """What one link has room for by the deadline; rank fields are None where not even the head arrives in time."""

    snr_db: float
    bandwidth_hz: float
    budget_bits: int
    """Bits on the air that a decision may spend: the block's, or under fading what all but `link.late_share` carry."""
    least_airtime_s: float
    """Airtime of head and container alone."""
    uniform_rank: int | None
    """Largest rank that fits at every site alike."""
    total_rank: int | None
    """Directions that fit when r_max everywhere is projected onto the deadline."""
    air_bits: int | None
    airtime_s: float | None
    loss: float | None = None
    """Lowest test loss that an earlier run sent within this budget, in nat."""
    known_from: str = ""
    """Who measured that: allocator and bits on the air."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows by SNR, and what they stand on."""

    model: str
    sites: int
    full_rank: int
    full_bits: int
    """Bits on the air of r_max everywhere."""
    least_bits: int
    """Bits on the air of head and container alone."""
    bandwidth_reason: str
    rows: tuple[PlanRow, ...]


def plan(config: AirLLMConfig, known: Sequence[Mapping[str, Any]] = ()) -> Plan:
    """Work out what each SNR of the settings has room for.

    Args:
        known: Summaries of earlier runs whose losses may stand beside.

    Raises:
        ConfigError: an earlier run is for another model or other sites.
        ModelError, DataError, LinkError: as for a run.
    """
    running_text = config.task.name == "text"  # has no head to size, so its data need not be at hand
    if config.task.data and not Path(config.task.data).expanduser().exists():
        raise DataError(f"--data is {config.task.data!r}, which does not exist; give a file or folder, or leave it out")
    base = open_base(config, 0 if running_text else labels_of(open_task(config)))
    adapter = Adapter(base, config.adapter.max_rank, generator=torch.Generator().manual_seed(0))
    for summary in known:
        _check_same_sites(base, config, summary)
    packer = planned_sizes(config, adapter)
    links, reason = open_links(config.link, packer, adapter.caps)
    sent = [row for summary in known for row in summary["rows"]]
    return Plan(
        model=config.model.name,
        sites=len(adapter.sites),
        full_rank=adapter.caps.total,
        full_bits=packer.air_bits(adapter.caps),
        least_bits=packer.air_bits(RankVector((0,) * len(adapter.sites))),
        bandwidth_reason=reason,
        rows=tuple(_row(link, config, packer, adapter.caps, sent) for link in links),
    )


def _row(
    link: Link, config: AirLLMConfig, packer: Sizes, caps: RankVector, sent: Sequence[Mapping[str, Any]]
) -> PlanRow:
    budget = decision_budget(link, link.mean_state, config.link.deadline_s, config.link.late_share)
    least = packer.air_bits(RankVector((0,) * len(caps)))
    late_share = config.link.late_share
    rate_bps = link.outage_rate_bps(late_share) if link.fades and late_share else link.rate_bps(link.mean_state)
    try:
        ranks = project(caps, packer.air_bits, budget)
    except DeadlineError:
        return PlanRow(link.snr_db, link.bandwidth_hz, budget, least / rate_bps, None, None, None, None)
    bits = packer.air_bits(ranks)
    within = [row for row in sent if row["air_bits"] <= budget]
    best = min(within, key=lambda row: row["loss"], default=None)
    return PlanRow(
        snr_db=link.snr_db,
        bandwidth_hz=link.bandwidth_hz,
        budget_bits=budget,
        least_airtime_s=least / rate_bps,
        uniform_rank=_uniform_rank(caps, packer, budget),
        total_rank=ranks.total,
        air_bits=bits,
        airtime_s=bits / rate_bps,
        loss=best["loss"] if best else None,
        known_from=f"{best['allocator']}, {best['air_bits'] / 1e3:.1f} kbit" if best else "",
    )


def _uniform_rank(caps: RankVector, packer: Sizes, budget_bits: int) -> int:
    def at_most(rank: int) -> RankVector:
        return RankVector(tuple(min(rank, cap) for cap in caps.ranks))

    fitting = (rank for rank in range(max(caps.ranks), 0, -1) if packer.air_bits(at_most(rank)) <= budget_bits)
    return next(fitting, 0)


def _check_same_sites(base: BaseModel, config: AirLLMConfig, summary: Mapping[str, Any]) -> None:
    mine = [(site.layer, site.module, site.fan_in, site.fan_out) for site in base.sites]
    theirs = [(site["layer"], site["module"], site["in"], site["out"]) for site in summary["sites"]]
    if mine != theirs or summary["task"] != config.task.name:
        raise ConfigError(
            f"the earlier run is of {summary['model']} on {summary['task']} with {len(theirs)} sites, this plan of "
            f"{config.model.name} on {config.task.name} with {len(mine)}; give a run of the same model and task"
        )
