"""Pack an adapter that any tool trained as plain LoRA: PEFT folder -> payload that fits a budget.

Knows PEFT folders and budgets; not how codes are made, nor methods' training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from airtune.adapters.imported import ImportedAdapter, import_peft
from airtune.codec import (
    Curvature,
    Decoded,
    Draft,
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
from airtune.errors import ConfigError, PayloadError
from airtune.records import Progress, Silent, write_bytes
from airtune.services.beside import alone, open_beside
from airtune.transport import air_overhead_bits


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
    tune_steps: int = 0,
    progress: Progress | None = None,
) -> Packed:
    """Pack a PEFT LoRA adapter into at most so many bits on the air.

    Args:
        budget_bits: On the air.
        model: The base model, by folder or hub name. Binds the payload to its weights; without it, to its name alone.
        task, data: A task as `run` takes it, whose calibration items measure how the loss bends; needs `model`.
        since: What the receiver holds; the payload then changes that, and opens nowhere else.
        tune_steps: Steps of training on through the rounding, on the task's training items.
        progress: Whoever watches the training.

    Raises:
        ConfigError: a task without a model; data without a task; training on without a task, or of changes.
        DataError: no adapter that can be packed. PayloadError: the budget is too small, or `since` is of another base
            model or other sites.
    """
    adapter = import_peft(folder)
    if task and not model:
        raise ConfigError("a task was given and no model; name the base model too, or leave the task out")
    if data and not task:
        raise ConfigError("data were given and no task; name the task too, or leave the data out")
    if tune_steps < 0 or (tune_steps and (since is not None or not task)):
        asked = f"{tune_steps} steps of training on were asked for"
        raise ConfigError(f"{asked}; give 0 or more, a model and a task to train on, and nothing that is held")
    opened = open_beside(adapter, model, task, data) if model else alone(adapter)
    factors, binding, curvature = opened.factors, opened.binding, opened.curvature
    quantiser: Quantiser | Refiner
    if since is None:
        quantiser = Quantiser(factors, adapter.dense, curvature, canonical=True)
    else:
        since.contents.binding.check(binding)
        quantiser = Refiner(since, factors, adapter.dense, curvature)
    meta = _notes(adapter)
    if since is not None:
        _check_notes(since, meta)
    if (room := budget_bits - overhead_bits()) <= 0:
        line = f"{budget_bits} bits on the air do not hold the {overhead_bits()} of manifest, message and request"
        raise PayloadError(f"{line}; give more bits, time, bandwidth or SNR")
    payload, slope = fit_budget(quantiser, binding, meta, budget_bits, overhead_bits=overhead_bits())
    if tune_steps and opened.tuning is not None:
        quantised = quantiser.at(slope).first(decode(payload.data, None).ranks)
        coded = opened.tuning.tune(quantised.coded, slope, tune_steps, progress or Silent())
        payload = Draft(replace(quantised, coded=coded), binding, meta).ladder(room)
    write_bytes(out, payload.data)
    found = decode(payload.data, None, since=since)
    pairs = {name: (factors.get(name, _nothing(site)), site) for name, site in found.factors.items()}
    sites = tuple(
        PackedSite(name, site.rank, given.rank, expected_loss(given, site, curvature.get(name, Curvature())))
        for name, (given, site) in pairs.items()
    )
    return _told(adapter, pairs, payload, found, out, budget_bits, "weights" if model else "name", sites)


def _notes(adapter: ImportedAdapter) -> Meta:
    """What `unpack` has to know beside the numbers."""
    notes: Meta = {
        "base_model": adapter.base_model,
        "kind": adapter.kind,
        "fan_in_fan_out": int(adapter.fan_in_fan_out),
    }
    return {**notes, "revision": adapter.revision} if adapter.revision else notes


def _check_notes(since: HeldAdapter, notes: Meta) -> None:
    """Refuse another adapter's notes, for changes have none of their own. Raises `PayloadError`."""
    for name in ("kind", "fan_in_fan_out", "revision"):
        if (held := since.contents.meta.get(name)) != (new := notes.get(name)):
            raise PayloadError(f"the held adapter's {name} is {held!r}, this one's {new!r}; send it without since")


def _nothing(site: Factors) -> Factors:
    """No directions at a site: what an adapter has that the new one lacks."""
    out, into = site.shape
    return Factors(np.zeros((out, 0), np.float32), np.zeros(0, np.float32), np.zeros((0, into), np.float32))


def _told(
    adapter: ImportedAdapter,
    pairs: Mapping[str, tuple[Factors, Factors]],
    payload: Payload,
    found: Decoded,
    out: Path,
    budget_bits: int,
    bound_to: str,
    sites: tuple[PackedSite, ...],
) -> Packed:
    plain = Curvature()
    error = 2 * sum(expected_loss(given, site, plain) for given, site in pairs.values())
    whole = 2 * sum(expected_loss(given, _nothing(given), plain) for given, _ in pairs.values())
    off = sum(float(((value - found.dense[name]) ** 2).sum()) for name, value in adapter.dense.items())
    size = sum(float((np.asarray(value, np.float64) ** 2).sum()) for value in adapter.dense.values())
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
        dense_error=(off / size) ** 0.5 if size else 0.0,
        bound_to=bound_to,
        sites=sites,
    )
