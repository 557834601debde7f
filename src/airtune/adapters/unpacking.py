"""A payload back to a plain PEFT LoRA folder; with the base model at hand, cores too.

Knows payload files, bases and PEFT folders; torch only where a base model is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from airtune.adapters.derived import Bases, lift_cores, path_of
from airtune.adapters.export import export_peft
from airtune.codec import Binding, Factors, decode, read_payload, whole_prefix
from airtune.errors import DataError


def unpack(
    file: str | Path,
    out_dir: str | Path,
    *,
    prefix_bytes: int | None = None,
    since: Sequence[str | Path] = (),
    model: str = "",
) -> Path:
    """Verify and decode a payload file into a new folder as a plain PEFT LoRA adapter; return the folder.

    Args:
        prefix_bytes: Use only the chunks that lie whole within so many bytes, as a receiver does whose link broke off.
        since: For a payload of changes, the payloads that brought the adapter it changes, the oldest first.
        model: The base model, by folder or hub name, which needs the extra `train`: the payload has to be for its
            weights, and cores (`pack` with `core_size`) are made whole by them.

    Raises:
        PayloadError: the file is not a whole payload, not even its header lies within `prefix_bytes`, it changes
            another adapter than that of `since`, or none, is for another model than `model`, or holds cores and no
            model is given.
        DataError: the model is neither a causal language model nor a classifier.
        RunError: the folder exists and is not empty.
    """
    data, held = read_payload(file, since)
    if prefix_bytes is not None:
        data = whole_prefix(data, prefix_bytes)
    decoded = decode(data, None, allow_prefix=prefix_bytes is not None, since=held)
    meta, bases = decoded.meta, dict[str, Bases]()
    kind = str(meta.get("kind", ""))
    if model:
        binding, bases = _receiver(model, kind, decoded.factors)
        binding.check(decoded.binding)
    return export_peft(
        Path(out_dir),
        lift_cores(decoded.factors, bases),
        decoded.dense,
        kind=kind,
        base_model=str(meta.get("base_model", "")),
        fan_in_fan_out=bool(meta.get("fan_in_fan_out", 0)),
        revision=str(meta.get("revision", "")),
    )


def labels_of(kind: str) -> int:
    """Classes of the head to open a base model with for a kind of `TASK_TYPES`, as many as any; 0 for none.

    Raises:
        DataError: neither a causal language model nor a classifier.
    """
    if kind not in (known := {"text": 0, "any": 0, "classify": 2}):
        opened = f"only causal language models and classifiers are opened, and the adapter is for {kind}"
        raise DataError(f"{opened}; leave the model out")
    return known[kind]


def _receiver(model: str, kind: str, factors: Mapping[str, Factors]) -> tuple[Binding, dict[str, Bases]]:
    """Who a receiver with this base model is, and its bases where cores are among the updates."""
    from airtune.adapters.core_adapter import bases_of
    from airtune.models import load_base

    labels = labels_of(kind)
    base = load_base(model, "classify" if labels else "text", labels=labels)
    size = max((min(site.shape) for name, site in factors.items() if path_of(name) != name), default=0)
    return Binding(base.sha256, base.tokenizer_sha256), bases_of(base, size) if size else {}
