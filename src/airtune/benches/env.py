"""Environment steps per second in nested mode on real losses, and how much of the time is not the language model's.

MiniLM with an untrained adapter, whose forward pass costs what a trained one's does; actions are random. Every step
measures its own rank vector: none is remembered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from airtune.benches.result import Measured, Ratio
from airtune.benches.timing import median
from airtune.methods.airllm.building import new_env, new_trainee, open_links, parts_of
from airtune.methods.airllm.config import load_config
from airtune.methods.airllm.packing import block_packer
from airtune.models import BaseModel
from airtune.records import Measurements, Progress
from airtune.workloads.opening import open_reader

OUTSIDE = 0.10
ITEMS = 64
"""Calibration sentences of the small setting; the preset's own number is the other."""


def bench(repeats: int, progress: Progress) -> Measured:
    """Median step time at two sizes of the calibration set, and the share outside the model's forward passes."""
    config = load_config("default", {"task.test_items": 1})
    with progress.stage("Loading model and task"):
        reader = open_reader(config)
    rows, ratios = [], []
    for items in (ITEMS, config.task.calibration_items):
        sized = load_config("default", {"task.test_items": 1, "task.calibration_items": items})
        with progress.stage(f"Stepping on {items} sentences", total=repeats) as stage, TemporaryDirectory() as folder:
            parts = parts_of(sized, reader)
            trainee = new_trainee(sized, reader, parts, Measurements(Path(folder) / "measurements.jsonl"))
            packer = block_packer(reader.base, trainee.adapter.factors(), trainee.adapter.dense(), 4)
            links, _ = open_links(sized.link, packer, trainee.adapter.caps)
            env = new_env(sized, trainee, packer, trainee.adapter.caps, links, parts)
            rng, whole, inside = np.random.default_rng(0), [], []
            env.reset(seed=0)
            with forward_seconds(reader.base) as spent:
                for _ in range(repeats):
                    spent.clear()
                    begun = time.perf_counter()
                    env.reset()
                    env.step(rng.uniform(-1, 1, len(trainee.adapter.caps)).astype(np.float32))
                    whole.append(time.perf_counter() - begun)
                    inside.append(sum(spent))
                    stage.advance(note=f"{1e3 * whole[-1]:.0f} ms")
            trainee.adapter.detach()
        outside = median([1 - model / step for model, step in zip(inside, whole, strict=True)])
        rows.append(
            {
                "sentences": items,
                "ms per step": 1e3 * median(whole),
                "steps per s": 1 / median(whole),
                "ms outside the model": 1e3 * median([w - m for w, m in zip(whole, inside, strict=True)]),
                "outside, share": outside,
            }
        )
        ratios.append(Ratio(f"time outside the language model, {items} sentences", outside, OUTSIDE, at_least=False))
    return Measured(rows, ratios)


@contextmanager
def forward_seconds(base: BaseModel) -> Iterator[list[float]]:
    """Collect the seconds of every forward pass of the model inside the block."""
    spent: list[float] = []
    original: Callable[..., Any] = base.model.forward

    def timed(*args: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return original(*args, **named)
        finally:
            spent.append(time.perf_counter() - begun)

    base.model.forward = timed
    try:
        yield spent
    finally:
        del base.model.forward  # the class's own again
