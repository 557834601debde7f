"""The decision problem: state, cost, reward, projection onto the deadline (Eqs. 7-10), as a Gymnasium environment.

Knows what a rank vector costs and earns; does not know who decides. `AllocationEnv.step` and the real round make the
same three calls: try the ranks, `communication_cost`, `allocation_reward`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import gymnasium
import numpy as np

from airtune.adapters import RankVector
from airtune.errors import DeadlineError
from airtune.links import ChannelState, Link
from airtune.methods.airllm.encoding import decode
from airtune.tasks import Complexity

GOLDEN = 0.6180339887498949
"""Multiples of the golden ratio, modulo 1, spread evenly whatever their number."""
OBSERVED = 5.0
"""Largest magnitude of an observation."""
REMEMBERED = 4096
"""Projections that an environment remembers: uniform ranks are cut to the same few budgets over and over."""
BitsOf = Callable[[RankVector], int]
"""Bits on the air of a rank vector, everything included; never falls when a rank grows."""
Decoder = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Normalised ranks and caps, each ``(sites,)``, to ranks (Eq. 18)."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One rank vector tried: its loss U (nat), and whether a real model measured it or a surrogate predicted it."""

    ranks: RankVector
    loss: float
    measured: bool = True


class TryRanks(Protocol):
    """Whoever can say what loss a rank vector leads to: the trainee itself, or a surrogate of it."""

    def try_ranks(self, ranks: RankVector) -> Trial: ...


@dataclass(frozen=True, slots=True)
class AllocationState:
    """s_t = {SNR_t, W_t, H_t, rho_t, r_t}: what the policy sees before it decides (section IV-A)."""

    channel: ChannelState
    complexity: Complexity
    ranks: RankVector

    def vector(self, caps: RankVector) -> np.ndarray:
        """The observation of `AllocationEnv`, shape ``(4 + sites,)``; its table gives the scales."""
        head = (
            (self.channel.snr_db - 5) / 10,
            np.log10(self.channel.bandwidth_hz / 1e6) / 2,
            (self.complexity.entropy_bits - 8) / 4,
            self.complexity.oov_rate,
        )
        share = np.array(self.ranks.ranks) / np.maximum(1, caps.ranks)
        return np.clip(np.concatenate([head, share]), -OBSERVED, OBSERVED).astype(np.float32)


def communication_cost(air_bits: int, link: Link, channel: ChannelState, deadline_s: float) -> float:
    """eta: the airtime as a share of the deadline (Eq. 8, on bits really sent); at most 1 in time (Eq. 7)."""
    return link.airtime_s(air_bits, channel) / deadline_s


def allocation_reward(loss: float, eta: float, weight: float) -> float:
    """R = -U - lambda eta (Eq. 10)."""
    return -loss - weight * eta


def decision_budget(
    link: Link, seen: ChannelState, deadline_s: float, late_share: float, *, least_bits: int = 0
) -> int:
    """Bits on the air that a decision may spend (Eq. 7).

    On a still channel, what the block carries by the deadline. Under fading the coming block is not known: what all but
    `late_share` of blocks carry (the epsilon-outage rate), or with `late_share` 0 what the block last seen carries, and
    `least_bits` (of rank 0 everywhere) where it carries less: the coming block may be better.
    """
    if link.fades and late_share > 0:
        return int(link.outage_rate_bps(late_share) * deadline_s)
    budget = link.budget_bits(deadline_s, seen)
    return max(budget, least_bits) if link.fades else budget


def project(ranks: RankVector, air_bits: BitsOf, budget_bits: int) -> RankVector:
    """Cut a rank vector down to a budget without looking at losses: scale, floor, refill by largest remainder.

    Returns the ranks unchanged when they fit. No rank grows.

    Raises:
        DeadlineError: not even rank 0 everywhere fits.
    """
    if air_bits(ranks) <= budget_bits:
        return ranks
    wanted = np.array(ranks.ranks)
    least = air_bits(RankVector.of(np.zeros_like(wanted)))
    if least > budget_bits:
        raise DeadlineError(
            f"the link carries {budget_bits} bits by the deadline, head and container alone need {least}; "
            "allow a longer deadline, more bandwidth, or fewer bits per number"
        )
    low, high = 0.0, 1.0  # air_bits(floor(low * wanted)) fits, air_bits(floor(high * wanted)) does not
    for _ in range(16):
        middle = (low + high) / 2
        fits = air_bits(RankVector.of(np.floor(middle * wanted))) <= budget_bits
        low, high = (middle, high) if fits else (low, middle)
    kept = np.floor(low * wanted).astype(int)
    remainders = np.round(low * wanted - kept, 9)
    spread = np.arange(len(wanted)) * GOLDEN % 1.0  # equal remainders are served all over the model, not from its start
    for site in np.lexsort((spread, -remainders)):
        if kept[site] < wanted[site]:
            kept[site] += 1
            if air_bits(RankVector.of(kept)) > budget_bits:
                kept[site] -= 1
    return RankVector.of(kept)


@dataclass(frozen=True, slots=True)
class Executed:
    """What one environment step did: asked and executed ranks, bits asked and sent, loss, eta, reward."""

    asked: RankVector
    ranks: RankVector
    bits_asked: int
    air_bits: int
    trial: Trial
    eta: float
    reward: float


class AllocationEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Choose a rank for every adapter site.

    | index | observation       | scaled as         | range of the value |
    |-------|-------------------|-------------------|--------------------|
    | 0     | SNR_t, realised   | (dB - 5) / 10     | -45 to 55 dB       |
    | 1     | W_t               | log10(MHz) / 2    | 1e-4 Hz to 1e16 Hz |
    | 2     | H_t               | (bits - 8) / 4    | 0 to 28 bits       |
    | 3     | rho_t             | as it is          | 0 to 1             |
    | 4...  | r_t, one per site | r / cap           | 0 to cap           |

    The paper's SNRs, -5 to 15 dB, fill [-1, 1]: on a narrower scale the learners cannot tell channel states apart.

    Action: one value in [-1, 1] per site, decoded to a rank by Eq. 18 and projected onto the deadline (Eq. 7).
    Reward: -U(r) - lambda eta(r) (Eq. 10). With a soft deadline nothing is projected, eta is of the mean rate (Eqs. 5
    and 8), and every step draws its link anew: the paper's reading. An episode ends after `horizon` steps. Several
    steps are a cut out of an endless task: truncated, so that the learner bootstraps. A single one is the whole
    decision: terminated.

    Args:
        trainee: Says what loss a rank vector leads to.
        caps: Largest rank of each site.
        air_bits: Bits on the air of a rank vector.
        links: One is drawn per episode, or per step with `soft`; its block is drawn per step.
        complexities: One is drawn per step: the batches the task is made of.
        deadline_s: T_max in seconds.
        cost_weight: lambda of Eq. 10.
        late_share: As in `decision_budget`.
        horizon: T_env; 1 in nested mode.
        soft: The deadline counts through eta alone.
        decoder: Actions to ranks.
        on_executed: Hears every step.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        trainee: TryRanks,
        caps: RankVector,
        air_bits: BitsOf,
        links: Sequence[Link],
        complexities: Sequence[Complexity],
        *,
        deadline_s: float,
        cost_weight: float,
        late_share: float = 0.0,
        horizon: int = 1,
        soft: bool = False,
        decoder: Decoder = decode,
        on_executed: Callable[[Executed], None] = lambda executed: None,
    ) -> None:
        self.trainee, self.caps, self.air_bits = trainee, caps, air_bits
        self.links, self.complexities = tuple(links), tuple(complexities)
        self.deadline_s, self.cost_weight, self.late_share = deadline_s, cost_weight, late_share
        self.horizon, self.soft = horizon, soft
        self._decoder, self._on_executed = decoder, on_executed
        sites = len(caps)
        self._least_bits = air_bits(RankVector((0,) * sites))
        self.project = lru_cache(REMEMBERED)(lambda ranks, budget_bits: project(ranks, air_bits, budget_bits))
        self.observation_space = gymnasium.spaces.Box(-OBSERVED, OBSERVED, (4 + sites,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (sites,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Draw a link and a first state, with half of every cap as the current ranks."""
        super().reset(seed=seed)
        self._steps = 0
        self._draw_link()
        self._observe(RankVector(tuple(cap // 2 for cap in self.caps.ranks)))
        return self.state.vector(self.caps), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Execute an action; `info["executed"]` says what came of it."""
        executed = self.advance(self.asked(action))
        over, single = self._steps >= self.horizon, self.horizon == 1
        ends = over and single, over and not single  # terminated, truncated
        return self.state.vector(self.caps), executed.reward, *ends, {"executed": executed}

    def advance(self, asked: RankVector) -> Executed:
        """Execute asked ranks and observe the next state."""
        executed = self.execute(asked)
        self._steps += 1
        self._observe(executed.ranks)
        self._on_executed(executed)
        return executed

    def asked(self, action: np.ndarray) -> RankVector:
        """The ranks an action asks for (Eq. 18)."""
        return RankVector.of(self._decoder(action, np.array(self.caps.ranks)))

    @property
    def budget_bits(self) -> int:
        """Bits on the air that a decision may spend now."""
        seen, least = self.state.channel, self._least_bits
        return decision_budget(self._link, seen, self.deadline_s, self.late_share, least_bits=least)

    def execute(self, asked: RankVector) -> Executed:
        """Project asked ranks onto the deadline of the current block, try them, and pay for those that were tried."""
        trial = self.trainee.try_ranks(asked if self.soft else self.project(asked, self.budget_bits))
        bits = self.air_bits(trial.ranks)
        if self.soft:
            eta = bits / (self._link.ergodic_rate_bps() * self.deadline_s)
        else:
            eta = communication_cost(bits, self._link, self._block, self.deadline_s)
        reward = allocation_reward(trial.loss, eta, self.cost_weight)
        return Executed(asked, trial.ranks, self.air_bits(asked), bits, trial, eta, reward)

    def _draw_link(self) -> None:
        self._link = self.links[self.np_random.integers(len(self.links))]

    def _observe(self, ranks: RankVector) -> None:
        if self.soft and self._steps:
            self._draw_link()
        channel, self._block = self._link.observe(self.np_random, 2)  # seen before deciding; met when sending
        complexity = self.complexities[self.np_random.integers(len(self.complexities))]
        self.state = AllocationState(channel, complexity, ranks)
