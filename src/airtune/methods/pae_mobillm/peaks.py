"""What a device needs beside the loaded model: peaks of resident memory, each measured in a fresh process.

| way       | what a batch goes through                                                                    |
|-----------|----------------------------------------------------------------------------------------------|
| `plain`   | the backbone, the logits' argmax kept                                                        |
| `reading` | the pivots are read, differences taken, and the batch encoded as it is sent                   |
| `tokens16`, `tokens8` | MobiLLM's: every token of every layer, encoded at these bits as it leaves its block |
| `lora`    | a step of LoRA on the device: forward, backward, AdamW                                       |
| `split`   | the device's part of split learning: the first half of the blocks, forward, backward, AdamW  |

A process tells by how much its peak rose above what it held with the model loaded and one batch of plain inference
done, so that libraries are in and the rise is the batches' own. The allocator gives back what is freed, so that a rise
is not hidden in what was freed before. Linux alone: peaks are read from, and reset in, /proc/self.

    python -m airtune.methods.pae_mobillm.peaks WAY '{"model": "minilm", "labels": 2, ...}'
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import torch

from airtune.errors import RunError
from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.pivots import blocks_of, identity_of, read_pivots
from airtune.methods.pae_mobillm.rivals.lora import adapted
from airtune.methods.pae_mobillm.rivals.split import middle
from airtune.methods.pae_mobillm.wire import Samples, encode_samples
from airtune.models import BaseModel, FitPlan, Items, fit, load_base
from airtune.models.fit import new_optimiser

WAYS: Final = ("plain", "reading", "tokens16", "tokens8", "lora", "split")
CAN_MEASURE: Final = sys.platform == "linux"
_GIVING_BACK: Final = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}

Rows = Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is measured on: so many batches of random tokens, all of one length."""

    model: str
    labels: int
    batches: int
    samples: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Peak:
    """One process's numbers.

    Args:
        loaded_kib: Held with the model loaded.
        rise_kib: By how much the peak rose above that.
        buffer_bytes: Of one batch's hidden states at the pivots, all layers, float32.
    """

    loaded_kib: int
    rise_kib: int
    buffer_bytes: int


def rises(shape: Shape, *, ways: Sequence[str] = WAYS, repeats: int = 1) -> dict[str, list[Peak]]:
    """Every way in processes of its own, in turn, so many times.

    Raises:
        RunError: not on Linux, or a process failed; its last line is told.
    """
    if not CAN_MEASURE:
        raise RunError(f"peaks of memory are read from /proc/self, which {sys.platform} does not have; use Linux")
    found: dict[str, list[Peak]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            command = [sys.executable, "-m", __name__, way, json.dumps(asdict(shape))]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | _GIVING_BACK)
            if done.returncode:
                why = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
                raise RunError(f"memory of {way} on {shape.model} was not measured ({why}); expected a number")
            found[way].append(Peak(**json.loads(done.stdout.splitlines()[-1])))
    return found


def measure(way: str, shape: Shape) -> Peak:
    """One way, in this process."""
    torch.set_num_threads(1)
    base = load_base(shape.model, "classify", labels=shape.labels)
    rng = np.random.default_rng(0)
    words = len(base.tokenizer)
    ids = rng.integers(words // 30, words - 1, (shape.batches * shape.samples, shape.tokens))
    items = Items(tuple(ids), rng.integers(0, shape.labels, len(ids)), base.tokenizer.pad_token_id)
    batches = items.in_order(shape.samples)
    _plain(base, items, batches[:1])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of loading
    loaded = _resident_kib("VmRSS")
    _STEPS[way](base, items, batches)
    buffer = 4 * shape.samples * len(blocks_of(base)) * base.hidden_size
    return Peak(loaded, _resident_kib("VmHWM") - loaded, buffer)


def _resident_kib(name: str) -> int:
    """`VmRSS`, what this process holds now, or `VmHWM`, the most it held, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _plain(base: BaseModel, items: Items, batches: Rows) -> None:
    for rows in batches:
        batch = items.batch(rows)
        with torch.inference_mode():
            base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.argmax(1).numpy()


def _reading(base: BaseModel, items: Items, batches: Rows) -> None:
    layers = range(1, len(blocks_of(base)) + 1)
    identity = identity_of(base, layers, [16] * len(layers), length=int(items.lengths.max()))
    for rows in batches:
        read = read_pivots(base, items, rows, layers)
        differences = prediction_differences(read.logits, read.targets, space="logit", scale=4.0)
        encode_samples(Samples(rows.astype(np.uint64), read.counts, read.activations, differences), identity)


def _tokens(base: BaseModel, items: Items, batches: Rows, bits: int) -> None:
    identity = replace(identity_of(base, [1], [bits], length=int(items.lengths.max())), outputs=1)
    mask, bodies = torch.empty(0), list[bytes]()

    def keep(_: Any, __: Any, output: Any) -> None:
        hidden = (output if isinstance(output, torch.Tensor) else output[0])[mask.bool()].numpy()
        ids, none = np.arange(len(hidden), dtype=np.uint64), np.zeros((len(hidden), 1), np.float32)
        bodies.append(encode_samples(Samples(ids, np.ones(len(ids), np.int64), hidden[:, None], none), identity))

    with ExitStack() as stack:
        for block in blocks_of(base):
            stack.callback(block.register_forward_hook(keep).remove)
        for rows in batches:
            batch = items.batch(rows)
            mask = batch.attention_mask
            bodies.clear()
            with torch.inference_mode():
                base.model(input_ids=batch.input_ids, attention_mask=mask)


def _lora(base: BaseModel, items: Items, batches: Rows) -> None:
    plan = FitPlan(len(batches), batch_size=len(batches[0]))
    with adapted(base, 0) as parameters:
        for _ in fit(base.model, parameters, items, plan, rng=np.random.default_rng(0)):
            pass


class _Cut(Exception):
    """Carries what leaves the device's last block out of the forward pass."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.hidden = hidden


def _split(base: BaseModel, items: Items, batches: Rows) -> None:
    blocks = middle(base)
    held = {site.path for site in base.sites if site.layer < blocks}

    def leave(_: Any, __: Any, output: Any) -> NoReturn:
        raise _Cut(output if isinstance(output, torch.Tensor) else output[0])

    with adapted(base, 0) as parameters, ExitStack() as stack:
        own = [one for name, one in parameters.items() if name.rpartition(".")[0] in held]
        for one in own:
            one.requires_grad_(True)
        optimiser = new_optimiser(own, FitPlan(len(batches)))
        stack.callback(blocks_of(base)[blocks - 1].register_forward_hook(leave).remove)
        for rows in batches:
            batch, hidden = items.batch(rows), None
            base.model.train()
            try:
                base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            except _Cut as cut:
                hidden = cut.hidden
            assert hidden is not None
            sent = hidden.detach().half()
            optimiser.zero_grad(set_to_none=True)
            hidden.backward(torch.full_like(sent, 1e-3).float())
            optimiser.step()


_STEPS: Mapping[str, Callable[[BaseModel, Items, Rows], None]] = {
    "plain": _plain,
    "reading": _reading,
    "tokens16": partial(_tokens, bits=16),
    "tokens8": partial(_tokens, bits=8),
    "lora": _lora,
    "split": _split,
}

if __name__ == "__main__":
    print(json.dumps(asdict(measure(sys.argv[1], Shape(**json.loads(sys.argv[2]))))))
