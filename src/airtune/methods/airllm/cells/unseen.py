"""The `curve` and `unseen` cells: a policy while it learns, and where it never was.

Both train the policy of their settings, as its own cell does: networks are not kept there. Rewards are predicted and
say so in the study; losses are measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import AllocationState
from airtune.methods.airllm.allocators import AirLLM, Allocator, Random, Uniform
from airtune.methods.airllm.building import practice_links
from airtune.methods.airllm.cells.opening import Opened, Settings, opened
from airtune.methods.airllm.cells.policy import env_on
from airtune.methods.airllm.cells.rows import Measurer
from airtune.methods.airllm.encoding import decode
from airtune.methods.airllm.environment import AllocationEnv
from airtune.methods.airllm.learning import learn_policy
from airtune.methods.airllm.policy.priors import CoarseLatent
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.greedy import Greedy
from airtune.methods.airllm.search.lookup import LookupTable, RandomSearch
from airtune.records import generator
from airtune.records.cells import Done, Outcome, Value

STATES = 64
"""Fixed states in which the policy acts, without exploring, after every round."""
SEEDS = 5
"""Another adapter is that of the next seed, in rounds of so many: each adapter is another one once."""


def compute_curve(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values: `reward_still`, mean predicted reward over the same states after each round; `floor_still`, random's."""
    with opened(settings, work, needs["adapter"]) as found:
        seed, envs, values = found.config.seed, list[AllocationEnv](), list[Value]()

        def watch(env_steps: int, policy: AirLLM) -> None:
            states = np.stack([env.state.vector(env.caps) for env in envs])
            actions = policy.policy.act(states, generator(seed, "decide"))
            ranks = decode(actions, np.array(envs[0].caps.ranks))
            values.append(Value("reward_still", mean_of(envs, ranks), env_steps))

        _ = found.greedy  # first: what it measures, the surrogate learns
        env = practice(found)
        for index in range(STATES):
            env.reset(seed=None if index else seed)
            envs.append(copy(env))
        random = Random(env.caps, generator(seed, "random", "still"))
        drawn = [random.decide(one.state, one.budget_bits).ranks for one in envs]
        values.append(Value("floor_still", mean_of(envs, drawn)))
        trained(found, watch=watch)
        return Outcome(tuple(values))


def mean_of(envs: Sequence[AllocationEnv], ranks: Sequence[Sequence[int]] | np.ndarray) -> float:
    """Mean reward of one decision in each environment."""
    rewards = [env.execute(RankVector.of(one)).reward for env, one in zip(envs, ranks, strict=True)]
    return float(np.mean(rewards))


def practice(found: Opened) -> AllocationEnv:
    """The environment that the policy learns on."""
    return env_on(found, practice_links(found.links, found.config.policy.bandwidth_factors))


def trained(found: Opened, **more: Any) -> AirLLM:
    """The policy of the settings."""
    latent = CoarseLatent.of(found.trainee.adapter.sites)
    return learn_policy(found.session, practice(found), latent, found.greedy, **more)


def another_adapter(settings: Settings) -> Mapping[str, Settings]:
    """The adapter of the next seed."""
    seed: int = settings["seed"]
    following = seed + 1 if (seed + 1) % SEEDS else seed + 1 - SEEDS
    return {"adapter other": {**settings, "seed": following}}


def compute_unseen(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """What `rows` measures, halfway between the SNRs the policy knows, and (`other`) on an adapter that it never saw.

    | of              | losses it measures for this                                              |
    |-----------------|--------------------------------------------------------------------------|
    | `policy`        | none                                                                     |
    | `lookup`        | none: the table of the lower SNR, or of the first adapter at the same SNR |
    | `lookup-above`  | none: the table of the higher SNR, cut to the link                        |
    | `proposal`      | none: what the search proposes on the adapter's own surrogate             |
    | `greedy`        | six for each SNR                                                          |
    | `random-search` | at each SNR as many as the surrogate learned from and greedy added        |
    """
    with opened(settings, work, needs["adapter"]) as found:
        weight = found.config.policy.cost_weight
        greedy, policy = found.greedy, trained(found)
        budgets = {link.snr_db: found.budget(link) for link in found.links}
        lookup = LookupTable(found.archive, budgets, cost_weight=weight)
        snrs_db = [link.snr_db for link in found.links]
        between = [replace(found.links[0], snr_db=(a + b) / 2) for a, b in itertools.pairwise(snrs_db)]
        measurer, search = Measurer(found), random_search(found, found.losses_each)
        asked: dict[str, Allocator] = {
            "policy": policy,
            "lookup": lookup,
            "lookup-above": LookupTable(found.archive, budgets, cost_weight=weight, above=True),
            "random-search": search,
            "uniform": Uniform(found.trainee.adapter.caps),
            "proposal": Proposes(greedy),
            "greedy": greedy,  # last: what it measures, the surrogate learns
        }
        for name, one in asked.items():
            measurer.decide(one, name, between)
        values, items = list(measurer.values), dict(measurer.items)
    (other,) = another_adapter(settings).values()
    with opened(other, work / "other", needs["adapter other"]) as found:
        measurer, search = Measurer(found), random_search(found, found.losses_each)
        asked = {
            "policy": policy,
            "lookup": lookup,
            "random-search": search,
            "uniform": Uniform(found.trainee.adapter.caps),
            "greedy": found.greedy,
        }
        for name, one in asked.items():
            measurer.decide(one, name)
        values += [replace(value, measure=f"{value.measure}_other") for value in measurer.values]
        items |= dict(_renamed(measurer))
    return Outcome(tuple(values), items=items)


def _renamed(measurer: Measurer) -> Iterator[tuple[str, np.ndarray]]:
    for value in measurer.values:
        if (item := measurer.items.get(value.item_name)) is not None:
            yield replace(value, measure=f"{value.measure}_other").item_name, item


class Proposes:
    """What the search proposes by predictions alone, where greedy would measure."""

    name = "proposal"

    def __init__(self, greedy: Greedy) -> None:
        self._greedy = greedy

    def decide(self, state: AllocationState, budget_bits: int) -> RankVector:
        return self._greedy.propose(budget_bits)


def random_search(found: Opened, evaluations: int) -> RandomSearch:
    """With an archive of its own."""
    space, drawn = found.space, generator(found.config.seed, "random-search", "unseen")
    archive = Archive(found.trainee, space.air_bits)
    return RandomSearch(space, archive, drawn, evaluations=evaluations, cost_weight=found.config.policy.cost_weight)
