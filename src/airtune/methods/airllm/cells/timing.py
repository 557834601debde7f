"""The `timing` cell: processor time of deciding and of training, for one variant of the policy, with nothing beside it.

Times depend on the processor, so its name is among the settings. One thread; a warm start is not counted.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from airtune.methods.airllm.allocators import Allocator
from airtune.methods.airllm.cells.opening import opened, policy_settings
from airtune.methods.airllm.cells.policy import env_on
from airtune.methods.airllm.environment import AllocationEnv
from airtune.methods.airllm.policy.priors import CoarseLatent
from airtune.methods.airllm.policy.training import train_policy
from airtune.records.cells import Done, Outcome, Value

ROUNDS = 3
"""Rounds trained; the first, with the warm start before it, is not counted."""
DECISIONS = 15


def processor_name() -> str:
    """The model of the processor, as well as this machine tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def timing_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What times depend on: the policy's settings, and the processor."""
    return {**policy_settings(settings), "processor": processor_name()}


def compute_timing(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values: processor seconds of 1,000 episodes of training, milliseconds of one decision (median)."""
    with opened(settings, work, needs["adapter"]) as found:
        config, ends = found.config, list[float]()
        env = env_on(found, found.links)
        policy = train_policy(
            env,
            CoarseLatent.of(found.trainee.adapter.sites),
            replace(config.policy, rounds=ROUNDS),
            found.greedy.propose,
            seed=config.seed,
            on_round=lambda env_steps, reward, loss, policy: ends.append(time.process_time()),
        )
        round_s = (ends[-1] - ends[0]) / (ROUNDS - 1)
        return Outcome(
            (
                Value("cpu_s_per_1000_episodes", 1000 * round_s / config.policy.env_steps),
                Value("decision_cpu_ms", 1e3 * decision_s(env, policy)),
            )
        )


def decision_s(env: AllocationEnv, policy: Allocator) -> float:
    """Median processor seconds of one decision."""
    env.reset(seed=0)
    times = []
    for _ in range(DECISIONS):
        begun = time.process_time()
        policy.decide(env.state, env.budget_bits)
        times.append(time.process_time() - begun)
    return statistics.median(times)
