"""Turns settings into parts. Configs stop here: parts take plain values, so a test can build them without one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from airtune.adapters import Adapter, RankSampler, RankVector
from airtune.adapters.curvature import measure_curvature
from airtune.codec import DAMPINGS, damped
from airtune.errors import ConfigError, DeadlineError, LinkError, ModelError
from airtune.links import Link
from airtune.methods.airllm.allocation import TryRanks, decision_budget, project
from airtune.methods.airllm.allocators import AirLLM
from airtune.methods.airllm.config import AirLLMConfig
from airtune.methods.airllm.environment import AllocationEnv
from airtune.methods.airllm.packing import (
    CodedAdapter,
    Packer,
    block_packer,
    coded_packer,
    fitting_bandwidth,
    sizes_of,
)
from airtune.methods.airllm.policy.saved import load_policy
from airtune.methods.airllm.roles import EdgeRole
from airtune.methods.airllm.rounds import Specialise
from airtune.methods.airllm.sizes import Sizes
from airtune.methods.airllm.trainee import Trainee
from airtune.models import FitPlan
from airtune.records import Measurements, seed_for
from airtune.workloads.config import LinkConfig
from airtune.workloads.opening import links_at, open_reader
from airtune.workloads.parts import Parts, Reader, read_parts

RATE_TIMES_WIDTH = 0.384
"""Adam's best rate falls as 1 / width (Yang et al. 2203.03466): 1e-3 at MiniLM's 384, 1.9e-4 at OPT-1.3B's 2048."""
SPECIALISE_RATE = 1 / 2
"""Over the rate of fine-tuning (docs/log.md)."""
GPU_GB = 24
"""Rough need of OPT-1.3B in float32 at batch 32: the cloud's weights and the edge's (5.3 GB each), activations."""


def check_machine(config: AirLLMConfig) -> None:
    """Refuse `paper` mode on a GPU where there is none, before anything is started. Raises `ConfigError`."""
    name, task = config.model.name, config.task.name
    if config.mode == "paper" and config.model.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"mode 'paper' with {name} on {config.model.device} needs a CUDA GPU (OPT-1.3B: one with about "
            f"{GPU_GB} GB of memory), the model {name} and the data of {task}; this machine has no CUDA GPU; "
            "run it on one that has, or take --preset cpu or cpu-paper here"
        )


def edge_role(config: AirLLMConfig) -> EdgeRole:
    """The edge's side: its own copy of the base model, and the test set."""
    reader = open_reader(config)
    return EdgeRole(reader.base, reader.spread("test", config.task.test_items))


def parts_of(config: AirLLMConfig, reader: Reader) -> Parts:
    """Tokenise every part of the task."""
    task = config.task
    return read_parts(
        reader,
        batch_size=config.adapter.batch_size,
        calibration_items=task.calibration_items,
        dev_items=task.dev_items,
        test_items=task.test_items,
        seed=config.seed,
    )


def new_trainee(config: AirLLMConfig, reader: Reader, parts: Parts, measurements: Measurements) -> Trainee:
    """Attach a fresh nested adapter to the base model."""
    draw = torch.Generator().manual_seed(seed_for(config.seed, "adapter"))
    adapter = Adapter(reader.base, config.adapter.max_rank, scale=config.adapter.scale, generator=draw)
    return Trainee(adapter, parts, measurements)


def fit_plan(config: AirLLMConfig, hidden_size: int) -> FitPlan:
    """How long and how fast to fine-tune; a rate of 0 asks for one that suits the width."""
    adapter = config.adapter
    return FitPlan(
        steps=adapter.steps - adapter.specialise_steps,
        batch_size=adapter.batch_size,
        learning_rate=adapter.learning_rate or suited_rate(hidden_size),
        clip_norm=adapter.clip_norm,
        seed=config.seed,
    )


def suited_rate(hidden_size: int) -> float:
    """A learning rate that suits a width, where none is asked for."""
    return RATE_TIMES_WIDTH / hidden_size


def rank_sampler(config: AirLLMConfig) -> RankSampler:
    """How nested training draws its ranks."""
    adapter = config.adapter
    return RankSampler(
        full=adapter.full_share,
        uniform=adapter.uniform_share,
        per_item=adapter.draw_per == "item",
        prefixes=adapter.copies,
        rank_one_weight=adapter.rank_one_weight,
        off=adapter.off_share,
        octaves=adapter.octaves,
    )


def open_links(config: LinkConfig, sizes: Sizes, caps: RankVector) -> tuple[list[Link], str]:
    """One link per SNR, slowest first, and why its bandwidth is what it is.

    Raises:
        ConfigError: `trace` fading without a file.
        LinkError: a value that is not physical, or as `DeadlineError` a deadline that no bandwidth meets.
    """
    if config.bandwidth_hz > 0:
        return links_at(config, config.bandwidth_hz), "as asked"
    nominal = links_at(config, 1e6)
    least = RankVector((0,) * len(caps))
    bandwidth_hz, reason = fitting_bandwidth(
        sizes.air_bits(caps), sizes.air_bits(least), nominal[0], nominal[-1], config.deadline_s, config.late_share
    )
    try:
        return links_at(config, bandwidth_hz), reason
    except LinkError:
        asked = f"head and container would need {bandwidth_hz:.3g} Hz to arrive in {config.deadline_s:g} s"
        line = f"at {nominal[0].snr_db:g} dB {asked}, which no link has; allow a longer deadline or a higher SNR"
        raise DeadlineError(line) from None


def practice_links(links: Sequence[Link], factors: Sequence[float]) -> list[Link]:
    """The links that a policy trains on: those given, at every multiple of their bandwidth."""
    return [replace(link, bandwidth_hz=link.bandwidth_hz * factor) for factor in factors for link in links]


def given_policy(config: AirLLMConfig, adapter: Adapter) -> AirLLM | None:
    """The saved policy to decide by, if the settings name one. Raises `ConfigError` where it is for another model."""
    if not config.policy.trained:
        return None
    saved = load_policy(Path(config.policy.trained).expanduser())
    saved.check_anatomy(adapter.sites, adapter.caps)
    return saved.allocator()


def check_links(config: AirLLMConfig, trainee: Trainee) -> None:
    """Refuse links that cannot carry so much as the head by the deadline, before anything is trained.

    Payloads weigh the same before training as after it. Raises `ConfigError`, `LinkError` or `DeadlineError`.
    """
    adapter, link = trainee.adapter, config.link
    sizes = planned_sizes(config, adapter)
    links = open_links(link, sizes, adapter.caps)[0]
    for opened in [*links, *practice_links(links, config.policy.bandwidth_factors)]:
        budget = decision_budget(opened, opened.mean_state, link.deadline_s, link.late_share)
        project(RankVector((0,) * len(adapter.sites)), sizes.air_bits, budget)


def planned_sizes(config: AirLLMConfig, adapter: Adapter) -> Sizes:
    """What payloads of an adapter will weigh, before it is trained."""
    codec = config.codec
    return sizes_of(adapter.base, adapter.factors(), adapter.dense(), codec.bits, coded=codec.coded)


def new_packer(config: AirLLMConfig, trainee: Trainee) -> Packer:
    """Packs the trained adapter. Where it is coded, the trainee then holds what receivers will: losses are of that.

    How far the curvature is trusted is left to the calibration loss at all ranks.
    """
    codec, base = config.codec, trainee.adapter.base
    if not codec.coded:
        return block_packer(base, trainee.factors, trainee.dense, round(codec.bits))
    factors, dense, ranks = trainee.factors, trainee.dense, RankVector(tuple(s.rank for s in trainee.factors.values()))
    trainee.adapter.set_ranks(ranks)
    curvature = measure_curvature(base, trainee.parts.calibration)
    tried = [coded_packer(base, factors, dense, codec.bits, damped(curvature, damping)) for damping in DAMPINGS]

    def loss(coded: CodedAdapter) -> float:
        trainee.hold(coded.factors, coded.dense, rounded=True)
        try:
            return trainee.try_ranks(ranks).loss
        except ModelError:  # not finite
            return math.inf

    best = min(tried, key=loss)
    trainee.hold(best.factors, best.dense, rounded=True)
    return best.packer


def specialiser(config: AirLLMConfig, trainee: Trainee, packer: Packer, folder: Path) -> Specialise:
    """What is sent instead of the nested adapter at some ranks: the same, trained on at them; or itself, for 0 steps.

    Args:
        folder: Takes a checkpoint for every rank vector.
    """

    @contextmanager
    def specialise(ranks: RankVector, budget: int) -> Iterator[tuple[RankVector, Packer]]:
        if not (steps := config.adapter.specialise_steps) or not ranks.total:
            yield ranks, packer
            return
        plan = fit_plan(config, trainee.adapter.base.hidden_size)
        plan = replace(plan, steps=steps, learning_rate=SPECIALISE_RATE * plan.learning_rate)
        name = hashlib.sha256(str((trainee.identity, ranks.ranks)).encode()).hexdigest()[:16]
        with trainee.specialised(ranks, plan, folder / f"specialised-{name}.safetensors"):
            own = new_packer(config, trainee)
            yield project(ranks, own.air_bits, budget), own  # coded sizes are not known before

    return specialise


def new_env(
    config: AirLLMConfig, losses: TryRanks, packer: Packer, caps: RankVector, links: Sequence[Link], parts: Parts
) -> AllocationEnv:
    """The environment the policy learns on: nested mode decides once per episode."""
    return AllocationEnv(
        losses,
        caps,
        packer.air_bits,
        links,
        parts.complexities,
        deadline_s=config.link.deadline_s,
        cost_weight=config.policy.cost_weight,
        late_share=config.link.late_share,
        horizon=1,
    )
