"""A payload back to a plain PEFT LoRA folder, or listed; with the base model at hand, cores and short payloads too.

Knows payload files, receivers and PEFT folders; torch only where a base model is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from airtune.adapters.derived import lift_cores, path_of
from airtune.adapters.export import export_peft
from airtune.adapters.receiver import Receiver, about
from airtune.codec import HeldAdapter, PayloadInfo, decode, left_out_of, read_payload, whole_prefix
from airtune.codec import inspect as inspect_payload
from airtune.errors import ConfigError, PayloadError


def unpack(
    file: str | Path,
    out_dir: str | Path,
    *,
    prefix_bytes: int | None = None,
    since: Sequence[str | Path] = (),
    model: str = "",
    core_size: int = 0,
) -> Path:
    """Verify and decode a payload file into a new folder as a plain PEFT LoRA adapter; return the folder.

    Args:
        prefix_bytes: Use only the chunks that lie whole within so many bytes, as a receiver does whose link broke off.
        since: For a payload of changes, the payloads that brought the adapter it changes, the oldest first.
        model: The base model, by folder or hub name, which needs the extra `train`: the payload has to be for its
            weights; cores are made whole by them, and what a short payload leaves out is derived from them.
        core_size: As a short payload was packed with; others say it themselves.

    Raises:
        ConfigError: another `core_size` than the payload's.
        PayloadError: the file is not a whole payload, not even its header lies within `prefix_bytes`, it changes
            another adapter than that of `since`, or none, is for another model than `model`, or is short or holds
            cores and no model is given.
        DataError: the adapter is for neither a causal language model nor a classifier, and a model is given.
        RunError: the folder exists and is not empty.
    """
    data, held, receiver, static = _opened(file, prefix_bytes, since, model, core_size)
    decoded = decode(data, None, allow_prefix=prefix_bytes is not None, held=static, since=held)
    found = _core_size({name: site.shape for name, site in decoded.factors.items()}, core_size)
    meta = decoded.meta
    kind = str(meta.get("kind", ""))
    if model:
        receiver = receiver or Receiver.of(model, kind, found)
        about(receiver.base)[0].check(decoded.binding)
    return export_peft(
        Path(out_dir),
        lift_cores(decoded.factors, receiver.bases if receiver else {}),
        decoded.dense,
        kind=kind,
        base_model=str(meta.get("base_model", "")),
        fan_in_fan_out=bool(meta.get("fan_in_fan_out", 0)),
        revision=str(meta.get("revision", "")),
    )


def inspect(
    file: str | Path,
    *,
    prefix_bytes: int | None = None,
    since: Sequence[str | Path] = (),
    model: str = "",
    core_size: int = 0,
) -> PayloadInfo:
    """List what a payload file holds, after checking it.

    What updates weigh and what rounding lost is not told of cores, nor shares of updates beside them: that takes the
    base model's weights.

    Args:
        prefix_bytes, since, model, core_size: As `unpack` takes them.

    Raises:
        ConfigError, PayloadError: as `unpack`.
        DataError: the adapter is for neither a causal language model nor a classifier, and a model is given.
    """
    data, held, receiver, static = _opened(file, prefix_bytes, since, model, core_size)
    info = inspect_payload(data, allow_prefix=prefix_bytes is not None, held=static, since=held)
    _core_size({site.name: site.shape for site in info.sites}, core_size)
    if model:
        receiver = receiver or Receiver.of(model, str(info.meta.get("kind", "")))
        about(receiver.base)[0].check(info.binding)
    cores = {site.name for site in info.sites if path_of(site.name) != site.name}
    told = (
        replace(site, update=None if cores else site.update, error=None if site.name in cores else site.error)
        for site in info.sites
    )
    return replace(info, sites=tuple(told))


def _opened(
    file: str | Path, prefix_bytes: int | None, since: Sequence[str | Path], model: str, core_size: int
) -> tuple[bytes, HeldAdapter | None, Receiver | None, dict[bytes, bytes]]:
    """What arrived, the adapter that it changes, and of a short payload its receiver and what that derives."""
    data, held = read_payload(file, since)
    data = data if prefix_bytes is None else whole_prefix(data, prefix_bytes)
    receiver = _receiver_of_short(data, model, core_size)
    return data, held, receiver, receiver.static_parts() if receiver else {}


def _receiver_of_short(data: bytes, model: str, core_size: int) -> Receiver | None:
    """Who derives what a payload leaves out; None where it leaves nothing out."""
    if not (name := left_out_of(data)):
        return None
    if not model:
        raise PayloadError(
            "the payload is short: names and shapes are those of its base model; name it (--model), and how many "
            "singular vectors its cores are between, if it has any (--cores)"
        )
    receiver = Receiver.of(model, "text", core_size)
    if name not in receiver.static_parts():
        what = f"cores between {core_size} singular vectors of {model}" if core_size else f"whole updates of {model}"
        raise PayloadError(
            f"the payload is not of {what}; name the model and the number of vectors that it was packed with, or ask "
            "for one that is not short"
        )
    return receiver


def _core_size(shapes: Mapping[str, tuple[int, int]], asked: int) -> int:
    """Singular vectors of the bases that a payload's cores take, 0 where it has none; `asked` is that or 0."""
    found = max((max(shape) for name, shape in shapes.items() if path_of(name) != name), default=0)
    if asked not in (0, found):
        has = f"cores between {found} singular vectors" if found else "no cores"
        raise ConfigError(f"core_size is {asked}, and the payload has {has}; leave that out (--cores)")
    return found
