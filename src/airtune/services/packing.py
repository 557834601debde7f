"""Pack an adapter that anybody trained: PEFT folder -> payload that fits a budget.

Knows PEFT folders, budgets and where curvature comes from; not how codes are made, nor methods' training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from airtune.adapters.imported import ImportedAdapter, import_peft
from airtune.codec import (
    Binding,
    Curvature,
    Decoded,
    Factors,
    HeldAdapter,
    Payload,
    Quantiser,
    Refiner,
    decode,
    expected_loss,
    fit_budget,
)
from airtune.codec.contents import Meta
from airtune.errors import ConfigError, DataError, PayloadError
from airtune.records import write_bytes
from airtune.transport import air_overhead_bits

if TYPE_CHECKING:
    from airtune.models import BaseModel


@dataclass(frozen=True, slots=True)
class PackedSite:
    """What became of one site: directions sent, those it had, and what rounding and leaving out are held to cost.

    Args:
        expected_loss: In nat, by the curvature measured; half of the squared error where none was.
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
    bound_to: str
    sites: tuple[PackedSite, ...]


def overhead_bits() -> int:
    """Bits on the air beside the payload's own."""
    return air_overhead_bits("adapter", {"payload_sha256": "0" * 64})


def pack_peft(
    folder: Path,
    out: Path,
    budget_bits: int,
    *,
    model: str = "",
    task: str = "",
    data: str = "",
    since: HeldAdapter | None = None,
) -> Packed:
    """Pack a PEFT LoRA adapter into at most so many bits on the air.

    Args:
        budget_bits: On the air.
        model: The base model, by folder or hub name. Binds the payload to its weights; without it, to its name alone.
        task, data: A task as `run` takes it, whose calibration items measure how the loss bends; needs `model`.
        since: What the receiver holds; the payload then changes that, and opens nowhere else.

    Raises:
        ConfigError: a task without a model.
        DataError: no adapter that can be packed. PayloadError: the budget is too small, or `since` is of another base
            model or other sites.
    """
    adapter = import_peft(folder)
    if task and not model:
        raise ConfigError("a task was given and no model; name the base model too, or leave the task out")
    factors, binding, curvature = adapter.factors, _named(adapter.base_model), dict[str, Curvature]()
    if model:
        factors, binding, curvature = _opened(adapter, model, task, data)
    quantiser: Quantiser | Refiner
    if since is None:
        quantiser = Quantiser(factors, adapter.dense, curvature, canonical=True)
    else:
        since.contents.binding.check(binding)
        quantiser = Refiner(since, factors, adapter.dense, curvature)
    meta: Meta = {"base_model": adapter.base_model, "kind": adapter.kind, "fan_in_fan_out": int(adapter.fan_in_fan_out)}
    if (room := budget_bits - overhead_bits()) <= 0:
        line = f"{budget_bits} bits on the air do not hold the {overhead_bits()} of manifest, message and request"
        raise PayloadError(f"{line}; give more bits, time, bandwidth or SNR")
    payload, _ = fit_budget(quantiser, binding, meta, room)
    write_bytes(out, payload.data)
    found = decode(payload.data, None, since=since)
    sites = tuple(
        PackedSite(
            name,
            found.factors[name].rank,
            site.rank,
            expected_loss(site, found.factors[name], curvature.get(name, Curvature())),
        )
        for name, site in factors.items()
    )
    return _told(adapter, payload, found, out, budget_bits, "weights" if model else "name", sites)


def _told(
    adapter: ImportedAdapter,
    payload: Payload,
    found: Decoded,
    out: Path,
    budget_bits: int,
    bound_to: str,
    sites: tuple[PackedSite, ...],
) -> Packed:
    error = whole = 0.0
    for name, site in adapter.factors.items():
        update = np.asarray(site.p, np.float64) * np.asarray(site.lam, np.float64) @ np.asarray(site.q, np.float64)
        error += float(((update - found.factors[name].update()) ** 2).sum())
        whole += float((update**2).sum())
    sent = sum(site.rank * sum(site.shape) for site in found.factors.values())
    before = sum(site.rank * sum(site.shape) for site in adapter.factors.values())
    return Packed(
        file=out,
        payload_bits=payload.bits,
        air_bits=payload.bits + overhead_bits(),
        budget_bits=budget_bits,
        total_rank=sum(found.ranks),
        rank_before=sum(site.rank for site in adapter.factors.values()),
        numbers=sent,
        float32_bits=32 * (before + sum(value.size for value in adapter.dense.values())),
        kept=1 - error / whole if whole else 1.0,
        bound_to=bound_to,
        sites=sites,
    )


def _named(name: str) -> Binding:
    """What binds a payload to a base model of which only the name is known."""
    digest = sha256(f"base model by name: {name}".encode()).hexdigest()
    return Binding(digest, digest)


def _opened(
    adapter: ImportedAdapter, model: str, task: str, data: str
) -> tuple[Mapping[str, Factors], Binding, dict[str, Curvature]]:
    """The adapter at all of a model's sites, the model's hashes, and the curvature on a task's calibration items."""
    import torch

    from airtune.adapters import Adapter
    from airtune.adapters.curvature import measure_curvature
    from airtune.methods.airllm.building import open_base, open_reader, parts_of
    from airtune.methods.airllm.config import load_config

    overrides: dict[str, object] = {"model.name": model, "task.name": task or "text"}
    if data:
        overrides["task.data"] = data
    config = load_config("default", overrides)
    if not task:
        base = open_base(config, 0 if adapter.kind == "text" else 2)
        return _at_all_sites(adapter, base), Binding(base.sha256, base.tokenizer_sha256), {}
    reader = open_reader(config)
    base, factors = reader.base, _at_all_sites(adapter, reader.base)
    rank = max(site.rank for site in factors.values())
    attached = Adapter(base, rank, generator=torch.Generator().manual_seed(0))
    attached.load(factors, adapter.dense)
    curvature = measure_curvature(base, parts_of(config, reader).calibration)
    return factors, Binding(base.sha256, base.tokenizer_sha256), curvature


def _at_all_sites(adapter: ImportedAdapter, base: BaseModel) -> dict[str, Factors]:
    """The adapter's updates in the order of the model's sites, no directions where it has none."""
    paths = [site.path for site in base.sites]
    if odd := sorted(set(adapter.factors) - set(paths)):
        raise DataError(f"the adapter changes {odd[0]}, which is no site of {base.name}; name the model it is for")
    return {
        site.path: adapter.factors.get(
            site.path,
            Factors(
                np.zeros((site.fan_out, 0), np.float32), np.zeros(0, np.float32), np.zeros((0, site.fan_in), np.float32)
            ),
        )
        for site in base.sites
    }
