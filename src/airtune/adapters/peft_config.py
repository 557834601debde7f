"""Read PEFT's record of a LoRA adapter, and refuse all that leaves more than updates B A on the base model's weights.

PEFT has many kinds of LoRA, and saves most of them under the same tensor names. So a setting passes only where it is
known to leave plain LoRA, or is empty. Knows PEFT's settings; not tensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from airtune.adapters.peft_targets import Targets, read_targets
from airtune.codec.contents import shown
from airtune.errors import DataError

_FREE = frozenset(
    (
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision"),
        *("task_type", "fan_in_fan_out", "r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
        *("init_lora_weights", "eva_config", "corda_config", "loftq_config", "lora_ga_config"),
        *("lora_dropout", "merge_weights", "megatron_core", "qalora_group_size", "runtime_config"),
    )
)
"""Settings of any value: what is recorded, read here or seen in the tensors, and what rules training alone."""

_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights` that leave the base model's weights as they are."""

_KEY = re.compile(r"(?P<whole>\^?)(?P<name>(?:[\w-]|\.\*?|\\\.)+)\$?")
_GLOB = {r"\.": ".", ".*": "*", ".": "?"}


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """What of `adapter_config.json` an update depends on.

    Args:
        alpha: `lora_alpha` where no pattern holds.
        alphas: (glob, alpha) of `alpha_pattern`, the first that holds counts.
        use_rslora: Scale by alpha over the rank's root instead of the rank (Kalajdzievski 2023).
        base_model, revision, task_type: As recorded, empty where they are not.
        targets: Modules that PEFT loads updates of.
    """

    alpha: float
    alphas: tuple[tuple[str, float], ...]
    use_rslora: bool
    fan_in_fan_out: bool
    base_model: str
    revision: str
    task_type: str
    targets: Targets

    def scale(self, path: str, rank: int) -> float:
        """What B A is multiplied with at a site."""
        alpha = next((alpha for glob, alpha in self.alphas if fnmatchcase(f".{path}", glob)), self.alpha)
        return alpha / (rank**0.5 if self.use_rslora else rank) if rank else 0.0


def read_config(path: Path) -> PeftConfig:
    """Read `adapter_config.json`.

    Raises:
        DataError: no record of a LoRA adapter, a setting that leaves more than plain LoRA, or a value of a wrong kind.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); give the folder of a PEFT LoRA adapter") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA" or "lora_alpha" not in config:
        found = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise DataError(f"{path} is of type {shown(found)}; expected 'LORA' with lora_alpha; give a PEFT LoRA adapter")
    _check_plain(path, config)
    patterns = {name: _object(path, name, config.get(name)) for name in ("alpha_pattern", "rank_pattern")}
    for key, value in patterns["rank_pattern"].items():
        _number(path, f"rank_pattern of {key!r:.80}", value)
    return PeftConfig(
        alpha=_number(path, "lora_alpha", config["lora_alpha"]),
        alphas=tuple(
            (_glob(path, key), _number(path, f"alpha_pattern of {key!r:.80}", value))
            for key, value in patterns["alpha_pattern"].items()
        ),
        use_rslora=_flag(path, "use_rslora", config),
        fan_in_fan_out=_flag(path, "fan_in_fan_out", config),
        base_model=_line(path, "base_model_name_or_path", config),
        revision=_line(path, "revision", config),
        task_type=_line(path, "task_type", config),
        targets=read_targets(path, config),
    )


def _check_plain(path: Path, config: Mapping[str, Any]) -> None:
    start = config.get("init_lora_weights")
    if not any(start is plain or (isinstance(plain, str) and start == plain) for plain in _PLAIN_STARTS):
        raise DataError(
            f"{path} says init_lora_weights {shown(start)}, which may have changed the base model's weights; expected "
            "one that does not; save with peft's path_initial_model_for_weight_conversion, or train plain LoRA"
        )
    if config.get("bias") not in (None, "none"):
        raise DataError(f"{path} says bias {shown(config['bias'])}; expected 'none'; train without biases")
    for name in sorted(config.keys() - _FREE - {"bias"}):
        if config[name] not in (None, False, "", [], {}):
            raise DataError(
                f"{path} says {name!r:.80} {shown(config[name])}; expected plain LoRA, whose update is B A on the base "
                "model's weights; train without it"
            )


def _glob(path: Path, key: str) -> str:
    """A key of `alpha_pattern`, which PEFT matches as a regular expression with the end of a dotted path, as a glob.

    The glob matches the path with a dot before it, in a time that no key can make long.
    """
    if not (parts := _KEY.fullmatch(key)):
        raise DataError(
            f"{path} has alpha_pattern of {key!r:.80}; expected a module's name or its end, in which of all regular "
            "expressions only ^ $ . .* are read; write one key for each module"
        )
    return ("." if parts["whole"] else "*.") + re.sub(r"\\\.|\.\*|\.", lambda found: _GLOB[found[0]], parts["name"])


def _object(path: Path, name: str, value: Any) -> dict[str, Any]:
    if not (value is None or isinstance(value, dict)):
        raise DataError(f"{path} has {name} {shown(value)}; expected numbers by module name; mend the file")
    return value or {}


def _number(path: Path, what: str, value: Any) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e30
    if not fits:
        raise DataError(f"{path} has {what} {shown(value)}; expected a finite number; mend the file")
    return float(value)


def _flag(path: Path, name: str, config: Mapping[str, Any]) -> bool:
    value = config.get(name, False)
    if not isinstance(value, bool):
        raise DataError(f"{path} has {name} {shown(value)}; expected true or false; mend the file")
    return value


def _line(path: Path, name: str, config: Mapping[str, Any]) -> str:
    value = config.get(name)
    if not (value is None or (isinstance(value, str) and value.isprintable())):
        raise DataError(f"{path} has {name} {shown(value)}; expected a line of text; mend the file")
    return value or ""
