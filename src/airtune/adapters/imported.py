"""Read a plain PEFT LoRA folder, so that it can be packed. Needs numpy and safetensors only.

Knows PEFT's names of tensors; not its settings (`peft_config`), codecs or links.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize

from airtune.adapters.export import TASK_TYPES
from airtune.adapters.peft_config import PeftConfig, read_config
from airtune.codec import Factors
from airtune.errors import DataError

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<path>.+)\.lora_(?P<which>[AB])(?:\.[^.]+)?\.weight")
_SAVED = re.compile(r"(?P<module>.+?)(?:\.modules_to_save\.[^.]+)?\.(?P<parameter>[^.]+)")
_WRAPPED = re.compile(r"(?:.+\.)?(?P<part>base_layer|original_module|token_adapter)(?:\..+)?")
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


@dataclass(frozen=True, slots=True, eq=False)
class ImportedAdapter:
    """A PEFT LoRA adapter.

    Args:
        factors: Updates by site path, in the order of their names.
        dense: Modules saved whole, by parameter name.
        base_model: What PEFT's record calls the base model.
        kind: What its base model is for, a key of `TASK_TYPES`.
        fan_in_fan_out: True where projections keep their weight as (in, out).
        revision: Of the base model, empty where none is recorded.
    """

    factors: Mapping[str, Factors]
    dense: Mapping[str, np.ndarray]
    base_model: str
    kind: str
    fan_in_fan_out: bool
    revision: str = ""


def import_peft(folder: Path) -> ImportedAdapter:
    """Read `adapter_config.json` and `adapter_model.safetensors`.

    Ranks come from the tensors, scales from the settings.

    Raises:
        DataError: not a LoRA adapter, damaged, or more than updates B A of linear layers and modules saved whole.
    """
    config = read_config(folder / "adapter_config.json")
    tensors = _read_tensors(folder / "adapter_model.safetensors")
    halves: dict[str, dict[str, np.ndarray]] = {}
    dense: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if wrapped := _WRAPPED.fullmatch(name):
            raise DataError(
                f"{folder} holds {name}, part of a {wrapped['part']}; expected LoRA of linear layers and modules saved "
                "whole; save with save_embedding_layers=False, or train without single tokens"
            )
        if "lora_" not in name and (saved := _SAVED.fullmatch(name)):
            known, key = dense, f"{saved['module']}.{saved['parameter']}"
        elif (factor := _FACTOR.fullmatch(name)) and tensor.ndim == 2:
            known, key = halves.setdefault(factor["path"], {}), factor["which"]
        else:
            raise DataError(f"{folder} holds {name} of shape {tensor.shape}; only LoRA of linear layers can be packed")
        if key in known:
            raise DataError(f"{folder} holds {name} under a second name too; expected one adapter; save it alone")
        known[key] = tensor
    factors = {path: _factors(path, parts, config) for path, parts in halves.items()}
    if odd := next((path for path in factors if not config.targets.hold(path)), None):
        raise DataError(
            f"{folder} holds an update of {odd}, which PEFT would leave out by the settings beside it (target_modules, "
            "exclude_modules, layers_to_transform); mend them, or save the adapter again"
        )
    if not factors:
        raise DataError(f"{folder} holds no lora_A and lora_B; give the folder of a PEFT LoRA adapter")
    kinds = {task: kind for kind, task in TASK_TYPES.items()}
    if (task := config.task_type or None) not in kinds:
        types = ", ".join(task for task in TASK_TYPES.values() if task)
        raise DataError(f"{folder} is for task_type {task!r}; expected one of {types}, or none")
    revision = "" if config.revision == "main" else config.revision
    return ImportedAdapter(factors, dense, config.base_model, kinds[task], config.fan_in_fan_out, revision)


def _factors(path: str, parts: Mapping[str, np.ndarray], config: PeftConfig) -> Factors:
    if set(parts) != {"A", "B"} or len(parts["A"]) != parts["B"].shape[1]:
        shapes = {f"lora_{which}": part.shape for which, part in sorted(parts.items())}
        raise DataError(f"{path} has {shapes}; expected lora_A (r, in) and lora_B (out, r); save it again")
    rank = len(parts["A"])
    return Factors(p=parts["B"], lam=np.full(rank, config.scale(path, rank), np.float32), q=parts["A"])


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        entries = deserialize(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({error}); give the folder of a PEFT LoRA adapter") from None
    found = {}
    for name, entry in sorted(entries):
        if not name.isprintable():
            raise DataError(f"{path} holds a tensor named {name!r:.80}; expected a printable name; save it again")
        if entry["dtype"] == "BF16":  # the upper half of a float32
            halves = np.frombuffer(entry["data"], "<u2").astype(np.uint32)
            values = (halves << 16).view(np.float32)
        elif entry["dtype"] in _DTYPES:
            values = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
        else:
            raise DataError(f"{path} holds {name} as {entry['dtype']}; give float16, bfloat16 or float32")
        if not np.isfinite(values).all():
            raise DataError(
                f"{path} holds {name} with a value that is not finite; check its training before sending it"
            )
        if not name.startswith(_PREFIX):
            raise DataError(f"{path} holds {name}, which PEFT would leave out; expected {_PREFIX}...; save it again")
        found[name.removeprefix(_PREFIX)] = values.reshape(entry["shape"])
    return found
