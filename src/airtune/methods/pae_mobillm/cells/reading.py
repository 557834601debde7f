"""The `reading` cell: what a device reads of its samples, once for all seeds and ways to train.

The backbone's new head and the samples are those of seed 0, so that seeds redraw the side network and the order of its
training alone; the study says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from airtune.methods.pae_mobillm.building import samples_of
from airtune.methods.pae_mobillm.config import PAEConfig, config_from
from airtune.methods.pae_mobillm.device.flops import forward_flops
from airtune.methods.pae_mobillm.device.pivots import blocks_of, read_pivots
from airtune.models import BaseModel, Items
from airtune.records import write_bytes
from airtune.records.cells import Done, Outcome, Value
from airtune.workloads.content import content, model_content, software
from airtune.workloads.opening import open_reader
from airtune.workloads.parts import Reader

READ = "read.safetensors"
PARTS = ("train", "dev", "test")
Settings = Mapping[str, Any]


def reading_settings(settings: Settings) -> Settings:
    """What is read: the model and the samples, no seed."""
    model, task, device = settings["model"], settings["task"], settings["device"]
    return {
        "model": {**model, "name": model_content(model["name"])},
        "task": {**task, "data": content(task["data"])},
        "device": {name: device[name] for name in ("train_items", "batch_size")},
        "software": software(),
    }


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A part, read: hidden states ``(n, L, d)``, logits ``(n, C)``, classes ``(n,)``."""

    states: np.ndarray
    logits: np.ndarray
    targets: np.ndarray


def compute_reading(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values: `tokens`, `longest` in tokens, `flops` and `cpu_s` of train, `classes`; `samples` of each part (at)."""
    config = config_of(settings)
    reader = open_reader(config)
    parts = {part: items_of(config, reader, part) for part in PARTS}
    start = time.process_time()
    tensors, flops = _read(reader.base, parts["train"], config.device.batch_size)
    values = [
        Value("tokens", float(parts["train"].lengths.sum())),
        Value("flops", float(flops)),
        Value("cpu_s", time.process_time() - start),
        Value("longest", float(parts["train"].lengths.max())),
        Value("classes", float(tensors["logits"].shape[1])),
        *(Value("samples", float(len(items)), at=part) for part, items in parts.items()),
    ]
    found = {f"train.{name}": value for name, value in tensors.items()}
    for part in PARTS[1:]:
        read, _ = _read(reader.base, parts[part], config.device.batch_size)
        found |= {f"{part}.{name}": value for name, value in read.items()}
    write_bytes(work / READ, save(found))
    return Outcome(tuple(values), files=(READ,))


def config_of(settings: Settings) -> PAEConfig:
    """The settings under which the backbone, its new head and the samples are those of every seed."""
    return config_from({**settings, "seed": 0})


def items_of(config: PAEConfig, reader: Reader, part: str) -> Items:
    """A part as it is read, under `config_of`."""
    if part == "train":
        return samples_of(config, reader)
    return reader.spread(part, config.task.dev_items if part == "dev" else config.task.test_items)


def base_of(settings: Settings) -> BaseModel:
    """The backbone that has read."""
    return open_reader(config_of(settings)).base


def open_reading(done: Done) -> dict[str, Read]:
    """What a finished cell has read, by part."""
    tensors = load_file(done.work / READ)
    return {part: Read(*(tensors[f"{part}.{name}"] for name in ("states", "logits", "targets"))) for part in PARTS}


def _read(base: BaseModel, items: Items, batch_size: int) -> tuple[dict[str, np.ndarray], int]:
    """All blocks' hidden states at the pivots, in item order, and the flops that took."""
    layers = range(1, len(blocks_of(base)) + 1)
    states = np.empty((len(items), len(layers), base.hidden_size), np.float32)
    logits, targets, flops = [], np.empty(len(items), np.int64), 0
    order = items.in_order(batch_size)
    for rows in order:
        read = read_pivots(base, items, rows, layers)
        states[rows], targets[rows] = read.activations, read.targets
        logits.append(read.logits)
        flops += forward_flops(base, len(rows), int(items.lengths[rows].max()))
    back = np.argsort(np.concatenate(order))
    return {"states": states, "logits": np.concatenate(logits)[back], "targets": targets}, flops
