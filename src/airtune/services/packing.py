"""Pack an adapter that any tool trained as plain LoRA: PEFT folder -> payload that fits a budget.

Knows PEFT folders and budgets; not how codes are made, nor methods' training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from airtune.adapters.imported import ImportedAdapter, import_peft
from airtune.codec import (
    Binding,
    Contents,
    Decoded,
    Draft,
    Factors,
    Fit,
    HeldAdapter,
    Limits,
    Quantiser,
    Refiner,
    decode,
    fit_budget,
    fit_measured,
    held_static,
    quantisers_of,
    read_held,
)
from airtune.codec.contents import Meta
from airtune.errors import ConfigError, ModelError, PayloadError
from airtune.links import Link
from airtune.records import Progress, Silent, write_bytes
from airtune.services.beside import OnTask, Opened, alone, open_beside
from airtune.services.packed import Packed, overhead_bits, packed


def pack(
    peft_folder: str | Path,
    out: str | Path,
    *,
    budget_bits: int | None = None,
    snr_db: float | None = None,
    bandwidth_hz: float | None = None,
    deadline_s: float = 1.0,
    model: str = "",
    task: str = "",
    data: str = "",
    since: Sequence[str | Path] = (),
    tune_steps: int = 0,
    core_size: int = 0,
    short: bool | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Pack a plain PEFT LoRA adapter, trained by whatever tool, into a payload that fits a budget or a link.

    Plain is B A of linear layers on the base model's own weights; DoRA, PiSSA and their like are refused. What is held
    small is the squared error of the update, or with a task the loss.

    Args:
        out: The payload's file (.atn).
        budget_bits: The most it may take on the air; or give `snr_db` and `bandwidth_hz` of a still channel.
        deadline_s: By when it is to arrive there.
        model: Its base model, by folder or hub name: binds the payload to the weights instead of the name alone.
        task, data: A task as `run` takes it. How its loss bends is measured on its calibration items, what payloads
            lose on its dev part: fewer bits for the same loss. Needs `model` and the extra `train`. Reported is test.
        since: Payloads that brought the adapter which the receiver holds, the oldest first, all of them whole and of
            format 2: only what changed is packed, and only that receiver can open it.
        tune_steps: Train on through the rounding for so many steps of the task: less loss for the same bits, for the
            time of as many training steps; taken if the loss on dev is then lower. Codes of a
            root mean square u stay where they are for some 25 / u steps; before that scales alone move.
        core_size: Send no more than a core between so many singular vectors of each of the base model's weights, from
            which the receiver (`unpack` with its model) makes the update again: for adapters that `train` has trained
            so. Needs `model`.
        short: Leave out names and shapes, 3 to 6 kbit for a small model, which `unpack` derives from its base model and
            `core_size`. For language models without modules saved whole; by default for their cores alone.
        progress: Whoever watches the training; nobody by default.

    Raises:
        ConfigError: a task without a model; data without a task; training on without a task, or of changes; cores
            without a model, or of changes; a short payload of what cannot be one; not one budget; `out` is
            a folder, or among what is read.
        DataError: no adapter that can be packed. PayloadError: the budget is too small, `since` is of another base
            model or other sites, or the payload is beyond the `Limits` that receivers keep.
    """
    peft_folder, out = Path(peft_folder), Path(out)
    if out.resolve() in {Path(file).resolve() for file in (*since, *peft_folder.glob("adapter_*"))}:
        raise ConfigError(f"{out} is among what is read; give another file for the payload")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; give a file for the payload, {out / 'adapter.atn'} for instance")
    budget_bits = _budget(budget_bits, snr_db, bandwidth_hz, deadline_s)
    held, adapter = read_held(since), import_peft(peft_folder)
    _check_options(model, task, data, held, tune_steps, core_size)
    opened = open_beside(adapter, model, task, data, core_size) if model else alone(adapter)
    if short is None:
        short = core_size > 0 and _shortened(adapter, model, held)
    elif short and not _shortened(adapter, model, held):
        raise ConfigError(
            "a short payload was asked for; it takes the base model, a causal one, an adapter without modules saved "
            "whole, and nothing that is held"
        )
    binding, (factors, curvature) = opened.binding, opened.sent()
    meta = _notes(adapter)
    shapes = {name: site.shape for name, site in factors.items()}
    contents = Contents.of(shapes, {name: value.shape for name, value in adapter.dense.items()}, binding, meta)
    contents.check(Limits())
    if held is not None:
        held.contents.binding.check(binding)
        _check_notes(held, meta)
    if budget_bits <= overhead_bits():
        line = f"{budget_bits} bits on the air do not hold the {overhead_bits()} of manifest, message and request"
        raise PayloadError(f"{line}; give more bits, time, bandwidth or SNR")
    asked = _Asked(binding, meta, budget_bits, short)
    if held is None and opened.on_task is not None:
        quantisers = quantisers_of(factors, adapter.dense, curvature)
        fit = _fit_on_task(asked, opened, opened.on_task, factors, quantisers, progress or Silent())
        if tune_steps:
            fit = _tuned(asked, opened, opened.on_task, fit, tune_steps, progress or Silent())
        payload = fit.payload
    else:
        quantiser: Quantiser | Refiner
        if held is None:
            quantiser = Quantiser(factors, adapter.dense, curvature, canonical=True)
        else:
            quantiser = Refiner(held, factors, adapter.dense, curvature)
        payload = fit_budget(quantiser, binding, meta, budget_bits, named=short, overhead_bits=overhead_bits())[0]
    found = decode(payload.data, None, held=held_static(contents), since=held)  # refuses what no receiver would take
    write_bytes(out, payload.data)
    return packed(adapter, opened, payload, found, out, budget_bits, "weights" if model else "name")


@dataclass(frozen=True, slots=True)
class _Asked:
    """Payloads that are asked for; arguments as `Draft` and `fit_budget`."""

    binding: Binding
    meta: Meta
    budget_bits: int
    named: bool


def _fit_on_task(
    asked: _Asked,
    opened: Opened,
    on_task: OnTask,
    factors: Mapping[str, Factors],
    quantisers: Sequence[Quantiser],
    progress: Progress,
) -> Fit:
    """The payload of least loss on the task's dev part."""
    with progress.stage(f"Measuring payloads on {len(on_task.dev)} items") as stage:

        def loss(found: Decoded) -> float:
            measured = opened.loss(found, on_task.dev)
            stage.advance(note=f"loss {measured:.4f}")
            return measured

        return fit_measured(
            factors,
            quantisers,
            asked.binding,
            asked.meta,
            asked.budget_bits,
            loss,
            named=asked.named,
            overhead_bits=overhead_bits(),
        )


def _tuned(asked: _Asked, opened: Opened, on_task: OnTask, fit: Fit, steps: int, progress: Progress) -> Fit:
    """Trained on through the rounding, if that lowers the loss on dev; as it was, if not or if it holds nothing."""
    if not any(fit.decoded.ranks):
        return fit
    try:
        coded = on_task.tune(fit.quantised.coded, steps, opened.bases, progress)
        draft = Draft(replace(fit.quantised, coded=coded), asked.binding, asked.meta, named=asked.named)
        payload = draft.ladder(asked.budget_bits - overhead_bits())
    except (ModelError, PayloadError) as error:
        progress.say(f"Training on through the rounding broke off, the payload is sent as it was: {error}")
        return fit
    decoded = decode(payload.data, asked.binding, held=draft.held)
    loss = opened.loss(decoded, on_task.dev)
    return replace(fit, payload=payload, decoded=decoded, loss=loss) if loss < fit.loss else fit


def _budget(budget_bits: int | None, snr_db: float | None, bandwidth_hz: float | None, deadline_s: float) -> int:
    if snr_db is not None and bandwidth_hz is not None and budget_bits is None:
        link = Link(bandwidth_hz, snr_db)
        return link.budget_bits(deadline_s, link.mean_state)
    if budget_bits is None or snr_db is not None or bandwidth_hz is not None:
        raise ConfigError("give either budget_bits, or snr_db and bandwidth_hz of the link")
    if type(budget_bits) is not int:
        raise ConfigError(f"budget_bits is {budget_bits!r}; give a whole number of bits")
    return budget_bits


def _check_options(model: str, task: str, data: str, held: HeldAdapter | None, tune_steps: int, core_size: int) -> None:
    if task and not model:
        raise ConfigError("a task was given and no model; name the base model too, or leave the task out")
    if data and not task:
        raise ConfigError("data were given and no task; name the task too, or leave the data out")
    if tune_steps < 0 or (tune_steps and (held is not None or not task)):
        asked = f"{tune_steps} steps of training on were asked for"
        raise ConfigError(f"{asked}; give 0 or more, a model and a task to train on, and nothing that is held")
    if core_size < 0 or (core_size and (not model or held is not None)):
        asked = f"cores between {core_size} singular vectors were asked for"
        raise ConfigError(f"{asked}; give 0 or more, the model whose they are, and nothing that is held")


def _shortened(adapter: ImportedAdapter, model: str, held: HeldAdapter | None) -> bool:
    """Whether a receiver can derive what a short payload leaves out."""
    return bool(model) and adapter.kind in ("text", "any") and not adapter.dense and held is None


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
