"""The real round: observe, decide, project, encode, send, score on both sides. One round makes one row of the table.

Knows the cloud's trainee, the packer, the link and the edge; not how any decision was learned.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from airtune.adapters import RankVector
from airtune.codec import Payload
from airtune.ledger import Ledger
from airtune.links import ChannelState, Link
from airtune.methods.airllm.allocation import (
    AllocationState,
    allocation_reward,
    communication_cost,
    decision_budget,
    project,
)
from airtune.methods.airllm.allocators import Allocator
from airtune.methods.airllm.packing import Packer
from airtune.methods.airllm.roles import PROBE_ITEMS, adapter_message, ask_score
from airtune.methods.airllm.search.greedy import Greedy
from airtune.methods.airllm.trainee import Trainee
from airtune.models import Score
from airtune.tasks import Complexity
from airtune.transport import OverTheAir, Transport

Specialise = Callable[[RankVector, int], AbstractContextManager[tuple[RankVector, Packer]]]
"""Ranks and budget -> what is sent and the packer that packs it, of the adapter that is held inside the block."""
COUNTED_BLOCKS = 200
"""Blocks of a fading channel over which late deliveries are counted."""


@dataclass(frozen=True)
class Row:
    """One allocator at one SNR: what it asked for, what was sent, whether in time, and what it was worth."""

    allocator: str
    snr_db: float
    bandwidth_hz: float
    deadline_s: float
    ranks: tuple[int, ...]
    total_rank: int
    parameters: int
    bits_before_projection: int
    """Bits on the air of what the allocator asked for."""
    payload_bits: int
    air_bits: int
    airtime_s: float
    deadline_met: bool
    loss: float
    """Test loss of the decoded payload, in nat."""
    loss_calibration: float
    """U of the reward: calibration loss of the unquantised ranks, in nat."""
    reward: float
    metric: str
    score_trained: float
    """Of the trained adapter cut to these ranks, unquantised, on test."""
    score_cloud: float
    """Of the decoded payload, computed in the cloud."""
    score_edge: float
    """Of the payload as the edge received, decoded and applied it."""
    payload_sha256: str
    max_abs_logit_diff: float
    """Largest difference between the cloud's and the edge's logits over the probe items."""
    blocks: int | None
    """Blocks over which late deliveries were counted; None on a still channel, where all blocks are alike."""
    blocks_late: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ranks": list(self.ranks)}


class Rounds:
    """Runs rounds over one trained adapter. Equal payloads are scored once, on each side.

    Args:
        trainee: Trained; says losses and unquantised scores.
        packer: Packs its prefixes.
        edge: Reaches the device.
        complexity: H and rho of the task, part of every state.
        cost_weight: lambda of Eq. 10.
        run_id: Tells this run's messages from another's to the same edge, which answers a repeated message from memory.
        late_share: Under fading, the share of blocks that may be late; 0 trusts the last block seen.
        soft: Send what is asked for, in time or not, instead of cutting it to the deadline.
        specialise: Trains on at the ranks that were decided; the nested adapter itself is sent without it.
    """

    def __init__(
        self,
        trainee: Trainee,
        packer: Packer,
        edge: Transport,
        ledger: Ledger,
        complexity: Complexity,
        *,
        metric: str,
        deadline_s: float,
        cost_weight: float,
        late_share: float,
        run_id: int,
        soft: bool = False,
        specialise: Specialise | None = None,
    ) -> None:
        self._trainee, self._packer, self._edge, self._ledger = trainee, packer, edge, ledger
        self._complexity, self._metric = complexity, metric
        self._deadline_s, self._cost_weight, self._late_share = deadline_s, cost_weight, late_share
        self._held = RankVector(tuple(cap // 2 for cap in trainee.adapter.caps.ranks))
        self._scored: dict[str, tuple[Score, float, float, np.ndarray]] = {}
        self._trained: dict[tuple[str, RankVector], Score] = {}
        self._specialise = specialise or (lambda ranks, budget: nullcontext((ranks, packer)))
        self._run_id, self._number, self._soft = run_id, 0, soft

    def run(self, allocator: Allocator, link: Link, rng: np.random.Generator) -> tuple[Row, Payload]:
        """One round over `link`; under fading, late deliveries are then counted over further blocks."""
        before, block = link.observe(rng, 2)
        asked, decided, budget = self._decide(allocator, link, before)
        blocks, late = self._count_late(allocator, link, rng) if link.fades else (None, None)
        with self._specialise(decided, budget) as (ranks, packer):
            trial = self._trainee.try_ranks(ranks)
            payload = packer.encode(ranks)
            air = OverTheAir(self._edge, link, self._ledger, "cloud", lambda: block)
            _, sent = air.send(adapter_message(payload, self._name), round=self._number)
            cloud, edge_score, _, edge_logits = self._score(payload, packer)
            trained = self._score_trained(ranks)
        eta = communication_cost(sent.air_bits, link, block, self._deadline_s)
        self._number += 1
        row = Row(
            allocator=allocator.name,
            snr_db=link.snr_db,
            bandwidth_hz=link.bandwidth_hz,
            deadline_s=self._deadline_s,
            ranks=ranks.ranks,
            total_rank=ranks.total,
            parameters=ranks.parameters(self._trainee.adapter.sites),
            bits_before_projection=sent.air_bits if asked == ranks else self._packer.air_bits(asked),
            payload_bits=payload.bits,
            air_bits=sent.air_bits,
            airtime_s=sent.airtime_s,
            deadline_met=sent.airtime_s <= self._deadline_s,
            loss=cloud.loss,
            loss_calibration=trial.loss,
            reward=allocation_reward(trial.loss, eta, self._cost_weight),
            metric=self._metric,
            score_trained=trained.metric,
            score_cloud=cloud.metric,
            score_edge=edge_score,
            payload_sha256=payload.sha256,
            max_abs_logit_diff=float(np.abs(cloud.logits.ravel() - edge_logits).max()),
            blocks=blocks,
            blocks_late=late,
        )
        return row, payload

    def file(self, payload: Payload) -> bytes:
        """What is kept of a payload that was sent."""
        return self._packer.file(payload)

    @property
    def _name(self) -> str:
        """Names this round of this run, to an edge that may have served others."""
        return f"{self._run_id:x}.{self._number}"

    def _decide(
        self, allocator: Allocator, link: Link, seen: ChannelState, *, measure: bool = True
    ) -> tuple[RankVector, RankVector, int]:
        """What an allocator asks for on what it has seen, what is sent: that projected onto the deadline; the budget.

        Without `measure`, greedy stops at its proposal: 200 blocks of different rates would be 200 searches.
        """
        least = self._packer.air_bits(RankVector((0,) * len(self._trainee.adapter.sites)))
        budget = decision_budget(link, seen, self._deadline_s, self._late_share, least_bits=least)
        if isinstance(allocator, Greedy) and not measure:
            asked = allocator.propose(budget)
        else:
            asked = allocator.decide(AllocationState(seen, self._complexity, self._held), budget)
        return asked, asked if self._soft else project(asked, self._packer.air_bits, budget), budget

    def _count_late(self, allocator: Allocator, link: Link, rng: np.random.Generator) -> tuple[int, int]:
        states = link.observe(rng, COUNTED_BLOCKS + 1)
        late = 0
        for seen, realised in itertools.pairwise(states):
            _, ranks, _ = self._decide(allocator, link, seen, measure=False)
            late += link.airtime_s(self._packer.air_bits(ranks), realised) > self._deadline_s
        return COUNTED_BLOCKS, late

    def _score(self, payload: Payload, packer: Packer) -> tuple[Score, float, float, np.ndarray]:
        if payload.sha256 not in self._scored:
            cloud = self._trainee.score_decoded(packer.decode(payload), keep_logits=PROBE_ITEMS)
            probe = cloud.logits[:PROBE_ITEMS].size
            self._scored[payload.sha256] = (cloud, *ask_score(self._edge, payload, self._name, logits=probe))
        return self._scored[payload.sha256]

    def _score_trained(self, ranks: RankVector) -> Score:
        asked = self._trainee.identity, ranks
        if asked not in self._trained:
            self._trained[asked] = self._trainee.score_trained(ranks, self._trainee.parts.test)
        return self._trained[asked]


def notes_on(rows: Sequence[Row]) -> list[str]:
    """What a reader of the table must be told: where the policy loses to random, and who is best where."""
    notes = []
    for snr_db in sorted({row.snr_db for row in rows}):
        at = {row.allocator: row for row in rows if row.snr_db == snr_db}
        policy, random = at.get("airllm"), at.get("random")
        if policy and random and policy.loss > random.loss:
            notes.append(f"At {snr_db:g} dB airllm's loss {policy.loss:.4f} is above random's {random.loss:.4f}.")
    best = [min((r for r in rows if r.snr_db == snr_db), key=lambda r: r.loss) for snr_db in {r.snr_db for r in rows}]
    names = sorted({row.allocator for row in rows})
    counts = ", ".join(f"{name} {sum(row.allocator == name for row in best)}" for name in names)
    notes.append(
        f"Lowest test loss by SNR, of {len(best)} (ties to the first listed): {counts}. "
        "One seed: small differences are noise until repeated."
    )
    return notes + notes_on_late(rows)


def notes_on_late(rows: Sequence[Row]) -> list[str]:
    """Which deliveries missed the deadline, if any did."""
    late = [f"{row.allocator} at {row.snr_db:g} dB" for row in rows if not row.deadline_met]
    return [f"{len(late)} of {len(rows)} deliveries were late: {', '.join(late)}."] if late else []
