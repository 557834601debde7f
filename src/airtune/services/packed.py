"""What became of an adapter that was packed: sizes, what is left of its update, what that is held to cost.

Knows factors before and after; not how they were coded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from airtune.adapters.derived import lift_cores
from airtune.adapters.imported import ImportedAdapter
from airtune.codec import Curvature, Decoded, Factors, Payload, expected_loss
from airtune.services.beside import Opened
from airtune.transport import air_overhead_bits


@dataclass(frozen=True, slots=True)
class PackedSite:
    """What became of one site: directions sent, those it had, and what rounding and leaving out are held to cost.

    Args:
        expected_loss: In nat, by the curvature measured and damped; half of the squared error where none was.
    """

    name: str
    rank: int
    rank_before: int
    expected_loss: float


@dataclass(frozen=True, slots=True)
class Packed:
    """What became of an adapter.

    Args:
        total_rank: Directions that the receiver then has; the adapter has `rank_before`.
        numbers: Numbers of P and Q that it has.
        air_bits: Payload, manifest, message and request.
        kept: Share of the update that arrives: 1 less the squared error over the squared update; every entry counts
            alike, with curvature too.
        loss: On the task's test part, in nat, and `loss_before` of the adapter as it came; None without a task.
        dense_error: Relative error of the tensors that are sent whole; 0 where there are none.
        bound_to: `weights` of the base model, or only its `name`.
    """

    file: Path
    payload_bits: int
    air_bits: int
    budget_bits: int
    total_rank: int
    rank_before: int
    numbers: int
    float32_bits: int
    kept: float
    dense_error: float
    bound_to: str
    loss: float | None
    loss_before: float | None
    sites: tuple[PackedSite, ...]


def overhead_bits() -> int:
    """Bits on the air beside the payload's own."""
    return air_overhead_bits("adapter", {"payload_sha256": "0" * 64})


def packed(
    adapter: ImportedAdapter,
    opened: Opened,
    payload: Payload,
    found: Decoded,
    out: Path,
    budget_bits: int,
    bound_to: str,
) -> Packed:
    """Compare an adapter with what a receiver decodes.

    Args:
        opened: The adapter beside its base model.
        found: As decoded, cores as cores.
        out, budget_bits, bound_to: As `Packed`.
    """
    arrived, plain = lift_cores(found.factors, opened.bases), Curvature()
    pairs = {path: (opened.factors.get(path, Factors.nothing(*site.shape)), site) for path, site in arrived.items()}
    error = 2 * sum(expected_loss(given, site, plain) for given, site in pairs.values())
    whole = 2 * sum(expected_loss(given, Factors.nothing(*given.shape), plain) for given, _ in pairs.values())
    off = sum(float(((value - found.dense[name]) ** 2).sum()) for name, value in adapter.dense.items())
    size = sum(float((np.asarray(value, np.float64) ** 2).sum()) for value in adapter.dense.values())
    before = sum(site.rank * sum(site.shape) for site in adapter.factors.values())
    return Packed(
        file=out,
        payload_bits=payload.bits,
        air_bits=payload.bits + overhead_bits(),
        budget_bits=budget_bits,
        total_rank=sum(found.ranks),
        rank_before=sum(site.rank for site in adapter.factors.values()),
        numbers=sum(site.rank * sum(site.shape) for site in found.factors.values()),
        float32_bits=32 * (before + sum(value.size for value in adapter.dense.values())),
        kept=1 - error / whole if whole else 1.0,
        dense_error=(off / size) ** 0.5 if size else 0.0,
        bound_to=bound_to,
        loss=opened.loss(found, opened.on_task.test) if opened.on_task else None,
        loss_before=opened.on_task.loss(opened.factors, adapter.dense, opened.on_task.test) if opened.on_task else None,
        sites=tuple(
            PackedSite(path, site.rank, given.rank, expected_loss(given, site, opened.curvature.get(path, Curvature())))
            for path, (given, site) in pairs.items()
        ),
    )
