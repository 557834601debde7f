"""What a PAE MobiLLM device needs beside plain inference: peak memory of two fresh processes over the same batches.

One runs the backbone and keeps the logits' argmax; the other reads the pivots, takes differences and encodes every
batch as it is sent. Each tells by how much its peak of resident memory rose above what it held with the model loaded
and one batch of plain inference done, so that libraries are in and the rise is the batches' own. The allocator gives
back what is freed, so that a rise is not hidden in what was freed before. The claim: at most 10 % above plain inference
and the buffer of K x d numbers per sample. Both run in turn, so many times; the largest rise of each counts. Linux
alone: peaks are read from, and reset in, /proc/self.

    python benchmarks/pae_memory.py [--model minilm] [--batches 8] [--samples 32] [--tokens 64] [--repeats 3]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.pivots import blocks_of, identity_of, read_pivots
from airtune.methods.pae_mobillm.wire import Samples, encode_samples
from airtune.models import BaseModel, Items, load_base

SHARE = 1.1
WAYS = ("plain", "reading")
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}


def resident_kib(name: str) -> int:
    """`VmRSS`, what this process holds now, or `VmHWM`, the most it held, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def plain(base: BaseModel, items: Items, rows: np.ndarray) -> None:
    batch = items.batch(rows)
    with torch.inference_mode():
        base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.argmax(1).numpy()


class Reading:
    """What `Device` does with a batch before it is sent."""

    def __init__(self, base: BaseModel, tokens: int) -> None:
        layers = range(1, len(blocks_of(base)) + 1)
        self.identity = identity_of(base, layers, [16] * len(layers), length=tokens)

    def __call__(self, base: BaseModel, items: Items, rows: np.ndarray) -> None:
        read = read_pivots(base, items, rows, self.identity.layers)
        differences = prediction_differences(read.logits, read.targets, space="logit", scale=4.0)
        encode_samples(Samples(rows.astype(np.uint64), read.counts, read.activations, differences), self.identity)


def measure(way: str, model: str, batches: int, samples: int, tokens: int) -> dict[str, int]:
    """One process's numbers, in KiB and bytes."""
    torch.set_num_threads(1)
    base = load_base(model, "classify")
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, len(base.tokenizer) - 1, (batches * samples, tokens))
    items = Items(tuple(ids), rng.integers(0, 2, len(ids)), base.tokenizer.pad_token_id)
    step = Reading(base, tokens) if way == "reading" else plain
    plain(base, items, items.in_order(samples)[0])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of loading
    loaded = resident_kib("VmRSS")
    for rows in items.in_order(samples):
        step(base, items, rows)
    buffer = 4 * samples * len(blocks_of(base)) * base.hidden_size
    return {"loaded_kib": loaded, "peak_kib": resident_kib("VmHWM"), "buffer_bytes": buffer}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm")
    for name, value in (("batches", 8), ("samples", 32), ("tokens", 64), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--way", choices=WAYS, help="measure this one in this process")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pae_memory.json")
    arguments = parser.parse_args()
    shape = arguments.model, arguments.batches, arguments.samples, arguments.tokens
    if arguments.way:
        print(json.dumps(measure(arguments.way, *shape)))
        return 0
    names = ("model", "batches", "samples", "tokens")
    options = [part for name, value in zip(names, shape, strict=True) for part in (f"--{name}", str(value))]
    runs: dict[str, list[dict[str, int]]] = {way: [] for way in WAYS}
    for _ in range(arguments.repeats):
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, *options]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | GIVING_BACK)
            runs[way].append(json.loads(done.stdout.splitlines()[-1]))
    rises = {way: [run["peak_kib"] - run["loaded_kib"] for run in found] for way, found in runs.items()}
    allowed = SHARE * (max(rises["plain"]) + runs["plain"][0]["buffer_bytes"] / 1024)
    result = {
        **dict(zip(names, shape, strict=True)),
        "loaded_mib": round(max(run["loaded_kib"] for found in runs.values() for run in found) / 1024, 1),
        "rise_mib": {way: [round(rise / 1024, 2) for rise in found] for way, found in rises.items()},
        "buffer_mib": round(runs["plain"][0]["buffer_bytes"] / 2**20, 2),
        "allowed_mib": round(allowed / 1024, 2),
        "holds": max(rises["reading"]) <= allowed,
    }
    print(json.dumps(result, indent=1))
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
