"""The `policy` cell: train one variant of the policy on the surrogate of an adapter, then ask it everything at once.

What it decides at each SNR is a value, so the cells above need no network. Rewards here are predicted, and say so in
their names; `rows` measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from airtune.adapters import RankVector
from airtune.links import ChannelState, Link
from airtune.methods.airllm.allocation import AllocationState, decision_budget, project
from airtune.methods.airllm.allocators import Allocator, Random, Uniform, mean_reward
from airtune.methods.airllm.building import new_env, practice_links
from airtune.methods.airllm.cells.opening import Opened, opened
from airtune.methods.airllm.environment import AllocationEnv
from airtune.methods.airllm.learning import learn_policy
from airtune.methods.airllm.method import RIVAL_EPISODES
from airtune.methods.airllm.policy.priors import CoarseLatent
from airtune.records import generator
from airtune.records.cells import Done, Outcome, Value

EPISODES = 16
"""Episodes at each SNR over which the trained policy's predicted reward is averaged."""
STATES = 32
"""States in which each input is shuffled."""
INPUTS = ("SNR", "W", "H", "rho", "ranks")


def compute_policy(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values: reward by step and by SNR, ranks by SNR and site, use of each input."""
    with opened(settings, work, needs["adapter"]) as found:
        greedy = found.greedy  # first: what it measures, the surrogate learns
        env = env_on(found, practice_links(found.links, found.config.policy.bandwidth_factors))
        latent = CoarseLatent.of(found.trainee.adapter.sites)
        policy = learn_policy(found.session, env, latent, greedy)
        values = []
        for rival in (Uniform(env.caps), Random(env.caps, generator(found.config.seed, "random", "reward"))):
            reward = mean_reward(env, rival, episodes=RIVAL_EPISODES, seed=found.config.seed)
            values.append(Value(f"reward_{rival.name}", reward))
        curve = {line["env_steps"]: line for line in found.session.folder.read_metrics("policy")}
        for steps, line in sorted(curve.items()):
            values.append(Value("reward_curve", line["reward_mean"], steps))
            values.append(Value("refiner_loss", line["refiner_loss"], steps))
        for link in found.links:
            alone = env_on(found, [link])
            reward = mean_reward(alone, policy, episodes=EPISODES, seed=found.config.seed)
            values.append(Value("reward_predicted", reward, link.snr_db))
            ranks = decided(found, policy, link)[1]
            values += rank_values(found, ranks, link)
        values += state_use(env, policy, found.config.seed)
        return Outcome(tuple(values))


def env_on(found: Opened, links: Sequence[Link]) -> AllocationEnv:
    """The environment on predicted losses, over some of the links."""
    trainee = found.trainee
    return new_env(found.config, found.surrogate, found.packer, trainee.adapter.caps, links, trainee.parts)


def decided(found: Opened, allocator: Allocator, link: Link) -> tuple[RankVector, RankVector, ChannelState]:
    """What an allocator asks for on a link as a run's rounds ask it, that projected, and the block that it meets."""
    config, trainee, packer = found.config, found.trainee, found.packer
    caps = trainee.adapter.caps
    seen, block = link.observe(generator(config.seed, "channel", f"{link.snr_db:g}"), 2)
    least = packer.air_bits(RankVector((0,) * len(caps)))
    budget = decision_budget(link, seen, config.link.deadline_s, config.link.late_share, least_bits=least)
    held = RankVector(tuple(cap // 2 for cap in caps.ranks))
    asked = allocator.decide(AllocationState(seen, trainee.parts.complexity, held), budget)
    return asked, project(asked, packer.air_bits, budget), block


def rank_values(found: Opened, ranks: RankVector, link: Link, of: str = "") -> list[Value]:
    """The rank of every site, in their order."""
    pairs = zip(found.site_names, ranks.ranks, strict=True)
    return [Value("rank", rank, link.snr_db, of, name) for name, rank in pairs]


def state_use(env: AllocationEnv, policy: Allocator, seed: int) -> list[Value]:
    """Shuffle one input of the state among states; by how much do ranks and predicted reward change?

    `state_ranks`: mean change of a site's rank; `state_reward`: mean change of the reward, negative where the input
    helps. An input that is the same in all states is said to do nothing.
    """
    envs = []
    for index in range(STATES):
        env.reset(seed=None if index else seed)
        envs.append(copy(env))
    states = [found.state for found in envs]
    asked = [policy.decide(found.state, found.budget_bits) for found in envs]
    rewards = [found.execute(ranks).reward for found, ranks in zip(envs, asked, strict=True)]
    values = []
    for name in INPUTS:
        order = generator(seed, "shuffle", name).permutation(STATES)
        mixed = [_with(state, name, states[other]) for state, other in zip(states, order, strict=True)]
        answers = [policy.decide(state, found.budget_bits) for state, found in zip(mixed, envs, strict=True)]
        change = [np.abs(np.subtract(a.ranks, b.ranks)).mean() for a, b in zip(answers, asked, strict=True)]
        after = [found.execute(ranks).reward for found, ranks in zip(envs, answers, strict=True)]
        values.append(Value("state_ranks", float(np.mean(change)), at=name))
        values.append(Value("state_reward", float(np.mean(np.subtract(after, rewards))), at=name))
    return values


def _with(state: AllocationState, name: str, other: AllocationState) -> AllocationState:
    """A state with one input taken from another."""
    match name:
        case "SNR":
            return replace(state, channel=replace(state.channel, snr_db=other.channel.snr_db))
        case "W":
            return replace(state, channel=replace(state.channel, bandwidth_hz=other.channel.bandwidth_hz))
        case "H":
            return replace(state, complexity=replace(state.complexity, entropy_bits=other.complexity.entropy_bits))
        case "rho":
            return replace(state, complexity=replace(state.complexity, oov_rate=other.complexity.oov_rate))
        case _:
            return replace(state, ranks=other.ranks)
