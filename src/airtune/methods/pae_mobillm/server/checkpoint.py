"""What was trained, on disk: after every epoch whole, or that of the epoch before.

`side.json` names the epoch, the history and the file of tensors with its SHA-256; it is renamed into place last, so the
tensors it names are there. No pickle. Knows files and tensors; not training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from airtune.errors import RunError
from airtune.records import write_bytes, write_text
from airtune.records.plain import json_text

_RECORD: Final = "side.json"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over all that was cached when it began.

    Args:
        epoch: From 1.
        loss: Mean over rows and outputs, each batch before its step.
        samples: How many were used.
        rows: How many pivots these have.
    """

    epoch: int
    loss: float
    samples: int
    rows: int


def checkpoint_bytes(numbers: int) -> int:
    """Of a network of so many numbers, AdamW's two moments of each, and 64 kB for names, a record and blocks."""
    return 3 * 4 * numbers + 65_536


def save_checkpoint(folder: Path, tensors: Mapping[str, torch.Tensor], history: tuple[Epoch, ...]) -> None:
    """Write the state after the last epoch of `history`. Raises `RunError`; the one before it then stands."""
    data = save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})
    name = f"side-{len(history):06}.safetensors"
    write_bytes(folder / name, data)
    record = {"tensors": name, "sha256": hashlib.sha256(data).hexdigest(), "history": [asdict(one) for one in history]}
    write_text(folder / _RECORD, json_text(record))
    for old in folder.glob("side-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], tuple[Epoch, ...]] | None:
    """What was saved last; None where nothing was. Raises `RunError` for files that are not what was written."""
    path = folder / _RECORD
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_bytes())
        data = (folder / record["tensors"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != record["sha256"]:
            raise ValueError(f"{record['tensors']} does not match its SHA-256")
        return load(data), tuple(Epoch(**one) for one in record["history"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(f"checkpoint {path} is damaged ({error}); delete it to train again from the start") from None
