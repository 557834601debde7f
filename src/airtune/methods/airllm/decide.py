"""One decision by a saved policy: observe the channel, decide, project onto the deadline, say what it weighs."""

from __future__ import annotations

from dataclasses import dataclass

from airtune.adapters import RankVector
from airtune.links import Link
from airtune.methods.airllm.allocation import AllocationState, project
from airtune.methods.airllm.saved_policy import SavedPolicy
from airtune.tasks import Complexity


@dataclass(frozen=True, slots=True)
class Decision:
    """Ranks for one channel state, and what they weigh."""

    ranks: RankVector
    """After projection onto the deadline, in the order of the policy's sites."""
    asked_air_bits: int
    """Bits on the air of what the policy asked for, before projection."""
    payload_bits: int
    air_bits: int
    budget_bits: int
    """Bits that the link carries by the deadline."""
    airtime_s: float
    deadline_s: float


def decide(
    saved: SavedPolicy,
    link: Link,
    *,
    deadline_s: float | None = None,
    complexity: Complexity | None = None,
    ranks: RankVector | None = None,
) -> Decision:
    """Decide for a block at the link's mean SNR.

    Args:
        deadline_s: T_max; the policy's own where none is given.
        complexity: H and rho of the data; those of the task it was trained on where none is given.
        ranks: Ranks in force; half of every cap where none are given.

    Raises:
        DeadlineError: not even head and container arrive by the deadline.
        LinkError: a value out of range.
        ConfigError: the policy is damaged.
    """
    seconds, channel = deadline_s or saved.deadline_s, link.mean_state
    budget = link.budget_bits(seconds, channel)
    held = ranks or RankVector(tuple(cap // 2 for cap in saved.caps.ranks))
    asked = saved.allocator().decide(AllocationState(channel, complexity or saved.complexity, held), budget)
    chosen = project(asked, saved.sizes.air_bits, budget)
    bits = saved.sizes.air_bits(chosen)
    return Decision(
        ranks=chosen,
        asked_air_bits=saved.sizes.air_bits(asked),
        payload_bits=saved.sizes.payload_bits(chosen),
        air_bits=bits,
        budget_bits=budget,
        airtime_s=link.airtime_s(bits, channel),
        deadline_s=seconds,
    )
