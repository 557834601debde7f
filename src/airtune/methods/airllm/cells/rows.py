"""The `rows`, `rivals` and `specialised` cells: real losses and scores of decisions at each SNR, as a run has them.

The payload is encoded, decoded and scored here; nothing is sent, so no edge is needed. Test items stand behind every
`loss`, one by one, for paired comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from airtune.adapters import RankVector
from airtune.links import ChannelState, Link
from airtune.methods.airllm.allocation import allocation_reward, communication_cost
from airtune.methods.airllm.allocators import Allocator, Random, Uniform
from airtune.methods.airllm.building import specialiser
from airtune.methods.airllm.cells.opening import Opened, opened
from airtune.methods.airllm.cells.policy import decided, rank_values
from airtune.models import Score
from airtune.records import generator
from airtune.records.cells import Done, Outcome, Value


class Measurer:
    """Measures allocations of one adapter; equal ranks are scored once."""

    def __init__(self, found: Opened) -> None:
        self._found, self.packer = found, found.packer
        self._scored: dict[tuple[str, RankVector], tuple[Score, int]] = {}
        self.values: list[Value] = []
        self.items: dict[str, np.ndarray] = {}

    def measure(self, ranks: RankVector, link: Link, block: ChannelState, of: str) -> None:
        """Keep loss and score of the decoded payload on test, U and reward on calibration, bits and airtime."""
        found, snr_db = self._found, link.snr_db
        config = found.config
        scored, bits = self._score(ranks)
        eta = communication_cost(bits, link, block, config.link.deadline_s)
        weight = config.policy.cost_weight
        loss = found.trainee.try_ranks(ranks).loss
        numbers = {
            "loss": scored.loss,
            "score": scored.metric,
            "loss_calibration": loss,
            "reward": allocation_reward(loss, eta, weight),
            "reward_test": allocation_reward(scored.loss, eta, weight),
            "air_bits": bits,
            "airtime_s": link.airtime_s(bits, block),
        }
        self.values += [Value(name, float(number), snr_db, of) for name, number in numbers.items()]
        self.items[Value("loss", 0.0, snr_db, of).item_name] = scored.losses
        if scored.hits is not None:
            self.items[Value("score", 0.0, snr_db, of).item_name] = scored.hits.astype(float)

    def _score(self, ranks: RankVector) -> tuple[Score, int]:
        """The decoded payload's score on test, and its bits on the air."""
        trainee = self._found.trainee
        if (asked := (trainee.identity, ranks)) not in self._scored:
            payload = self.packer.encode(ranks)
            scored = trainee.score_decoded(self.packer.decode(payload), keep_logits=0)
            self._scored[asked] = scored, self.packer.sent_bits(payload)
        return self._scored[asked]

    def decide(self, allocator: Allocator, of: str, links: Sequence[Link] = ()) -> None:
        """Ask an allocator on every link, of these or of all that there are, and measure its answers."""
        for link in links or self._found.links:
            _, ranks, block = decided(self._found, allocator, link)
            self.values += rank_values(self._found, ranks, link, of)
            self.measure(ranks, link, block, of)

    @property
    def outcome(self) -> Outcome:
        return Outcome(tuple(self.values), items=self.items)


class Decided:
    """A policy whose decisions are known already: its cell holds them by SNR."""

    name = "policy"

    def __init__(self, policy: Done) -> None:
        self._ranks: dict[float | None, list[int]] = {}
        for value in policy.values:
            if value.measure == "rank":
                self._ranks.setdefault(value.x, []).append(round(value.value))

    def ranks(self, link: Link) -> RankVector:
        """In the order of the sites, as they were written."""
        return RankVector(tuple(self._ranks[link.snr_db]))


def compute_rows(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """The policy's decisions, measured."""
    with opened(settings, work, needs["adapter"]) as found:
        policy, measurer = Decided(needs["policy"]), Measurer(found)
        for link in found.links:
            block = link.observe(generator(found.config.seed, "channel", f"{link.snr_db:g}"), 2)[1]
            measurer.measure(policy.ranks(link), link, block, "policy")
        return measurer.outcome


def compute_specialised(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """The policy's decisions and uniform's, trained on for their links, measured."""
    with opened(settings, work, needs["adapter"]) as found:
        policy, measurer = Decided(needs["policy"]), Measurer(found)
        nested, uniform = measurer.packer, Uniform(found.trainee.adapter.caps)
        specialise = specialiser(found.config, found.trainee, nested, work)
        for link in found.links:
            _, even, block = decided(found, uniform, link)
            for name, ranks in (("policy", policy.ranks(link)), ("uniform", even)):
                with specialise(ranks, found.budget(link)) as (sent, measurer.packer):
                    measurer.measure(sent, link, block, name)
        return measurer.outcome


def compute_rivals(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Uniform, random and greedy, measured."""
    with opened(settings, work, needs["adapter"]) as found:
        caps, measurer = found.trainee.adapter.caps, Measurer(found)
        rivals: dict[str, Allocator] = {
            "uniform": Uniform(caps),
            "random": Random(caps, generator(found.config.seed, "random")),
            "greedy": found.greedy,
        }
        for name, allocator in rivals.items():
            measurer.decide(allocator, name)
        return measurer.outcome


def compute_uniform(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Uniform alone, where a search at a large r_max would take longer than all the rest."""
    with opened(settings, work, needs["adapter"]) as found:
        measurer = Measurer(found)
        measurer.decide(Uniform(found.trainee.adapter.caps), "uniform")
        return measurer.outcome
