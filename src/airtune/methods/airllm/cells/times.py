"""The `times` cell: how long the parts of a decision take as each size grows, and the exponent that follows.

Weights are random. Processor time of one thread, medians; the exponent is the slope of log time over log size, where
the sizes are large enough that arithmetic, not the calling of it, takes the time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from airtune.methods.airllm.cells.timing import processor_name
from airtune.methods.airllm.policy.denoiser import Denoiser, ResidualMLP
from airtune.methods.airllm.policy.diffusion import Schedule
from airtune.methods.airllm.policy.fast_sampling import fast_sample
from airtune.methods.airllm.policy.unet import UNet
from airtune.records.cells import Done, Outcome, Value

REPEATS, BATCH = 7, 32
PER_LAYER = 6
"""Sites of a layer."""
STEPS, LAYERS, WIDTHS = (10, 20, 40, 80), (24, 96, 384, 1536), (256, 512, 1024, 2048)
UNET_LAYERS, UNET_WIDTHS, CAPS = (24, 96, 384), (256, 512, 1024), (16, 64, 256, 1024)


def times_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Times depend on the processor; a seed repeats them, and the sizes are the cell's own."""
    return {"seed": settings["seed"], "processor": processor_name()}


def compute_times(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values: `ms` by size (x), and `exponent`, of each axis."""
    torch.set_num_threads(1)
    seed = int(settings["seed"])
    axes: dict[str, tuple[tuple[int, ...], Callable[[int], Callable[[], object]]]] = {
        "MLP, T_diff": (STEPS, lambda n: _decision(_mlp(24, 256, seed), 24, n, seed)),
        "MLP, layers L": (LAYERS, lambda n: _decision(_mlp(n, 256, seed), n, 5, seed)),
        "MLP, width d": (WIDTHS, lambda n: _decision(_mlp(24, n, seed), 24, 5, seed)),
        "U-Net, layers L": (UNET_LAYERS, lambda n: _decision(_unet(n, 256, seed), n, 2, seed)),
        "U-Net, channels C": (UNET_WIDTHS, lambda n: _decision(_unet(24, n, seed), 24, 2, seed)),
        "softmax over r_max + 1 ranks": (CAPS, lambda n: _softmax(24, n, seed)),
    }
    values = []
    for of, (sizes, make) in axes.items():
        times = [1e3 * _median_s(make(size)) for size in sizes]
        values += [Value("ms", ms, size, of) for size, ms in zip(sizes, times, strict=True)]
        slope = np.polyfit(np.log(sizes), np.log(times), 1)[0]
        values.append(Value("exponent", float(slope), of=of))
    return Outcome(tuple(values))


def _mlp(layers: int, width: int, seed: int) -> Denoiser:
    draw, sites = torch.Generator().manual_seed(seed), PER_LAYER * layers
    return Denoiser(ResidualMLP(sites, 64, width=width, blocks=2, generator=draw), generator=draw)


def _unet(layers: int, width: int, seed: int) -> Denoiser:
    draw = torch.Generator().manual_seed(seed)
    return Denoiser(UNet(PER_LAYER * layers, 64, width=width, generator=draw), generator=draw)


def _decision(denoiser: Denoiser, layers: int, steps: int, seed: int) -> Callable[[], object]:
    draw, schedule = torch.Generator().manual_seed(seed), Schedule("scaled_linear", 1000)
    start, condition = torch.randn(BATCH, PER_LAYER * layers, generator=draw), torch.randn(BATCH, 64, generator=draw)
    return lambda: fast_sample(denoiser, start, condition, schedule, steps, target="sample")


def _softmax(layers: int, cap: int, seed: int) -> Callable[[], object]:
    """What the paper saves by a continuous latent: a softmax over every rank of every site."""
    logits = torch.randn(BATCH, PER_LAYER * layers, cap + 1, generator=torch.Generator().manual_seed(seed))
    return lambda: logits.softmax(dim=-1)


def _median_s(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        call()
        times.append(time.process_time() - begun)
    return statistics.median(times)
