"""The decision problem as a Gymnasium environment: an action is a rank for every site, a step executes it.

Knows states, links and rewards; not who decides, nor how losses are found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np

from airtune.adapters import RankVector
from airtune.links import Link
from airtune.methods.airllm.allocation import (
    OBSERVED,
    AllocationState,
    BitsOf,
    Trial,
    TryRanks,
    allocation_reward,
    communication_cost,
    decision_budget,
    project,
)
from airtune.methods.airllm.encoding import decode
from airtune.tasks import Complexity

REMEMBERED = 4096
"""Projections that an environment remembers: uniform ranks are cut to the same few budgets over and over."""
Decoder = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Normalised ranks and caps, each ``(sites,)``, to ranks (Eq. 18)."""


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
