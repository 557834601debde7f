"""Read a plain PEFT LoRA folder, so that anybody's adapter can be packed. Needs numpy and safetensors only.

Knows PEFT's names and settings; not codecs or links.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from airtune.adapters.export import TASK_TYPES
from airtune.codec import Factors
from airtune.errors import DataError

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<path>.+)\.lora_(?P<which>[AB])(?:\.[^.]+)?\.weight")
_SAVED = re.compile(r"(?P<module>.+?)(?:\.modules_to_save\.[^.]+)?\.(?P<parameter>[^.]+)")
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_UNREAD = {"use_dora": "DoRA", "use_qalora": "QA-LoRA", "lora_bias": "a bias in LoRA"}


@dataclass(frozen=True, slots=True, eq=False)
class ImportedAdapter:
    """A PEFT LoRA adapter.

    Args:
        factors: Updates by site path, in the order of their names.
        dense: Modules saved whole, by parameter name.
        base_model: What PEFT's record calls the base model.
        kind: `classify` or `text`.
        fan_in_fan_out: True where projections keep their weight as (in, out).
    """

    factors: Mapping[str, Factors]
    dense: Mapping[str, np.ndarray]
    base_model: str
    kind: str
    fan_in_fan_out: bool


def import_peft(folder: Path) -> ImportedAdapter:
    """Read `adapter_config.json` and `adapter_model.safetensors`.

    Ranks come from the tensors; scales from `lora_alpha`, `alpha_pattern`, `use_rslora` (Kalajdzievski 2023).

    Raises:
        DataError: not a LoRA adapter, damaged, or of a kind whose update is not B A (DoRA, embeddings, convolutions).
    """
    config = _read_config(folder / "adapter_config.json")
    tensors = _read_tensors(folder / "adapter_model.safetensors")
    halves: dict[str, dict[str, np.ndarray]] = {}
    dense: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if "lora_" not in name and (saved := _SAVED.fullmatch(name)):
            dense[f"{saved['module']}.{saved['parameter']}"] = tensor
        elif (factor := _FACTOR.fullmatch(name)) and tensor.ndim == 2:
            halves.setdefault(factor["path"], {})[factor["which"]] = tensor
        else:
            raise DataError(f"{folder} holds {name} of shape {tensor.shape}; only LoRA of linear layers can be packed")
    factors = {path: _factors(path, parts, config) for path, parts in halves.items()}
    if not factors:
        raise DataError(f"{folder} holds no lora_A and lora_B; give the folder of a PEFT LoRA adapter")
    kinds = {task: kind for kind, task in TASK_TYPES.items()}
    return ImportedAdapter(
        factors,
        dense,
        str(config.get("base_model_name_or_path") or ""),
        kinds.get(str(config.get("task_type")), "text"),
        bool(config.get("fan_in_fan_out", False)),
    )


def _factors(path: str, parts: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Factors:
    if set(parts) != {"A", "B"} or len(parts["A"]) != parts["B"].shape[1]:
        shapes = {f"lora_{which}": part.shape for which, part in sorted(parts.items())}
        raise DataError(f"{path} has {shapes}; expected lora_A (r, in) and lora_B (out, r)")
    rank = len(parts["A"])
    patterns = config.get("alpha_pattern") or {}
    alpha = next(
        (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", path)), config["lora_alpha"]
    )
    scale = float(alpha) / (rank**0.5 if config.get("use_rslora") else rank) if rank else 0.0
    return Factors(p=parts["B"], lam=np.full(rank, scale, np.float32), q=parts["A"])


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); give the folder of a PEFT LoRA adapter") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA" or "lora_alpha" not in config:
        found = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise DataError(f"{path} is of type {found!r}; expected 'LORA' with lora_alpha")
    for key, what in _UNREAD.items():
        if config.get(key):
            raise DataError(f"{path} says {key}, and {what} is not an update B A; merge it, or train plain LoRA")
    if config.get("bias", "none") != "none":
        raise DataError(f"{path} says bias {config['bias']!r}; only adapters without trained biases can be packed")
    return config


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        entries = deserialize(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({error}); give the folder of a PEFT LoRA adapter") from None
    found = {}
    for name, entry in sorted(entries):
        if entry["dtype"] == "BF16":  # the upper half of a float32
            halves = np.frombuffer(entry["data"], "<u2").astype(np.uint32)
            values = (halves << 16).view(np.float32)
        elif entry["dtype"] in _DTYPES:
            values = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
        else:
            raise DataError(f"{path} holds {name} as {entry['dtype']}; give float16, bfloat16 or float32")
        found[name.removeprefix(_PREFIX)] = values.reshape(entry["shape"])
    return found
