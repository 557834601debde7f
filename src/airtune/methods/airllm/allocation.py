"""The decision problem: state, cost, reward, projection onto the deadline (Eqs. 7-10).

Knows what a rank vector costs and earns; does not know who decides. The environment and the real round make the same
three calls: try the ranks, `communication_cost`, `allocation_reward`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from airtune.adapters import RankVector
from airtune.errors import DeadlineError
from airtune.links import ChannelState, Link
from airtune.tasks import Complexity

GOLDEN = 0.6180339887498949
"""Multiples of the golden ratio, modulo 1, spread evenly whatever their number."""
OBSERVED = 5.0
"""Largest magnitude of an observation."""
BitsOf = Callable[[RankVector], int]
"""Bits on the air of a rank vector, everything included; never falls when a rank grows."""


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
