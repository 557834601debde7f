"""Write an adapter as plain PEFT LoRA, so that every runtime loads it right.

lam and the scale are baked into A and B, of like sizes by powers of two, so that half precision holds both. Factors are
zero-padded to the largest kept rank and lora_alpha = r, so the scale is 1: runtimes that ignore `rank_pattern` (vLLM,
LoRAX, SGLang) compute the same update. Where padding would make much of little, ranks stand in that pattern after all.
Sites at rank 0 are dropped. Needs numpy and safetensors only.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from airtune.codec import Factors
from airtune.errors import PayloadError, RunError

TASK_TYPES: Mapping[str, str | None] = {
    "classify": "SEQ_CLS",
    "text": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "classify-tokens": "TOKEN_CLS",
    "answer": "QUESTION_ANS",
    "features": "FEATURE_EXTRACTION",
    "any": None,
}
"""PEFT's task type by kind; `any` where an adapter's record names none."""

PATTERNS = ("rank", "alpha")
PADDED_NUMBERS, PADDED_TIMES = 2**26, 4
"""Padding may make so many numbers of an adapter, or so many times its own; beyond both, ranks stand in a pattern."""


def export_peft(
    folder: Path,
    factors: Mapping[str, Factors],
    dense: Mapping[str, np.ndarray],
    *,
    kind: str,
    base_model: str,
    fan_in_fan_out: bool = False,
    revision: str = "",
) -> Path:
    """Write `adapter_config.json` and `adapter_model.safetensors` into a new folder.

    Args:
        factors: P, lam, Q by site path; a site with no directions is left out.
        dense: The trained head by parameter name; saved as PEFT's `modules_to_save`.
        kind: What the base model is for, a key of `TASK_TYPES`.
        base_model: Name or folder of the base model, for PEFT's own record.
        fan_in_fan_out: True where projections keep their weight as (in, out), as GPT-2's do.
        revision: Of the base model, for PEFT's own record; empty where there is none.

    Raises:
        PayloadError: another kind, no sites, a tensor of the head under a name of a site's, or numbers that float32
            does not hold.
        RunError: the folder exists and holds something, or cannot be written.
    """
    if kind not in TASK_TYPES:
        raise PayloadError(f"the adapter is for a model of kind {kind!r}; one of {', '.join(TASK_TYPES)} expected")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunError(f"{folder} exists and is not empty; expected a new folder; choose another or remove it")
    if not factors:
        raise PayloadError("the adapter has no sites; expected one at least, as PEFT does; send one made for a model")
    kept = {path: site for path, site in factors.items() if len(site.lam)}
    if not kept:  # PEFT wants one target at least: one direction of zeros changes nothing
        path, site = next(iter(factors.items()))
        p, q = np.zeros((site.p.shape[0], 1), np.float32), np.zeros((1, site.q.shape[1]), np.float32)
        kept = {path: Factors(p=p, lam=np.zeros(1, np.float32), q=q)}
    rank = max(len(site.lam) for site in kept.values())
    own = sum(site.rank * sum(site.shape) for site in kept.values())
    padded = rank * sum(sum(site.shape) for site in kept.values()) <= max(PADDED_NUMBERS, PADDED_TIMES * own)
    tensors: dict[str, np.ndarray] = {}
    for path, site in kept.items():
        missing = rank - len(site.lam) if padded else 0
        a, b = _balanced(site)
        tensors[f"base_model.model.{path}.lora_A.weight"] = np.pad(a, ((0, missing), (0, 0)))
        tensors[f"base_model.model.{path}.lora_B.weight"] = np.pad(b, ((0, 0), (0, missing)))
    holders = {part for path in factors for part in _with_parents(path)}
    for name, value in dense.items():
        module = _head_module(name)
        meets = not module or module in holders or any(part in factors for part in _with_parents(module))
        if "lora_" in name or "base_layer" in name or meets:
            line = f"the head has a tensor named {name:.80}, which is no module's or within what has a site"
            raise PayloadError(f"{line}; get the payload again")
        tensors[f"base_model.model.{name}"] = np.asarray(value, np.float32)
    if odd := next((name for name, value in tensors.items() if not np.isfinite(value).all()), None):
        raise PayloadError(f"{odd} holds a number that is not finite in float32; train again at a lower rate")
    config = {
        "peft_type": "LORA",
        "task_type": TASK_TYPES[kind],
        "base_model_name_or_path": base_model,
        "revision": revision or None,
        "r": rank,
        "lora_alpha": rank,
        **(
            {}
            if padded
            else {f"{of}_pattern": {_alone(path): site.rank for path, site in kept.items()} for of in PATTERNS}
        ),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": True,
        "target_modules": sorted(kept),
        "modules_to_save": sorted({_head_module(name) for name in dense}) or None,
    }
    whole = {name: np.ascontiguousarray(value) for name, value in tensors.items()}  # safetensors ignores strides
    files = {
        "adapter_model.safetensors": save(whole, metadata={"format": "pt"}),
        "adapter_config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }
    return _write_folder(folder, files)


def _alone(path: str) -> str:
    """The expression that PEFT matches with this path and no other: without ends it would be the end of a path."""
    return f"^{re.escape(path)}$".replace(r"\-", "-")


def _balanced(site: Factors) -> tuple[np.ndarray, np.ndarray]:
    """A and B in float32, direction by direction of like root mean squares: by powers of two, so nothing is rounded."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        a, b = np.asarray(site.q, np.float32), np.asarray(site.p * site.lam, np.float32)
        sizes = [np.sqrt(np.square(part, dtype=np.float64).mean(axis=axis)) for part, axis in ((a, 1), (b, 0))]
        apart = np.round(np.log2(sizes[1] / sizes[0]) / 2)
    shifts = np.where(np.isfinite(apart), np.clip(apart, -60, 60), 0).astype(int)
    return np.ldexp(a, shifts[:, None]), np.ldexp(b, -shifts)


def _head_module(parameter: str) -> str:
    """The module PEFT saves whole: the classifier where the parameter is one of its own, else its nearest module."""
    top = parameter.split(".")[0]
    return top if top in ("classifier", "score") else parameter.rpartition(".")[0]


def _with_parents(module: str) -> Iterator[str]:
    """A path, and those of all that it lies in: PEFT takes no target within what is saved whole, nor the reverse."""
    parts = module.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder that appears whole or not at all: beside, fsync, rename."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
            staged = Path(beside) / "whole"
            staged.mkdir()
            for name, data in files.items():
                with open(staged / name, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            if folder.exists():
                folder.rmdir()
            staged.rename(folder)
    except OSError as error:
        raise RunError(f"cannot write {folder} ({error}); free space or choose a folder that can be written") from error
    return folder
