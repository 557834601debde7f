"""One decision by a saved policy: observe the channel, decide, project onto the deadline, say what it weighs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from airtune.adapters import RankVector
from airtune.links import Link
from airtune.methods.airllm.allocation import AllocationState, project
from airtune.methods.airllm.policy.saved import POLICY, SavedPolicy, TrainedOn, load_policy, shipped_policy
from airtune.tasks import Complexity
from airtune.workloads.settings import require_between

EMBEDDED = "minilm"
"""Name of the base model whose policy comes with airtune."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Ranks for one channel state, and what they weigh."""

    modules: tuple[tuple[int, str], ...]
    """Layer and kind of module of every site."""
    ranks: RankVector
    """One rank per site, after projection onto the deadline."""
    asked_air_bits: int
    """Bits on the air of what the policy asked for, before projection."""
    payload_bits: int
    air_bits: int
    budget_bits: int
    """Bits that the link carries by the deadline."""
    airtime_s: float
    deadline_s: float
    trained_on: TrainedOn
    """Where the policy may be trusted."""


def open_policy(where: str | Path) -> SavedPolicy:
    """The policy in a folder of its own or in a run folder; for "", the one that comes with airtune, for `minilm`.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    if not str(where):
        return shipped_policy(EMBEDDED)
    folder = Path(where).expanduser()
    return load_policy(folder / POLICY if (folder / POLICY).is_dir() else folder)


def decide(
    saved: SavedPolicy,
    link: Link,
    *,
    deadline_s: float | None = None,
    entropy_bits: float | None = None,
    oov_rate: float | None = None,
) -> Decision:
    """Decide for a block at the link's mean SNR, with half of every cap as the ranks in force.

    Args:
        deadline_s: T_max; the policy's own where none is given.
        entropy_bits, oov_rate: H and rho of the data; those of the task it was trained on where none are given.

    Raises:
        DeadlineError: not even head and container arrive by the deadline.
        LinkError, ConfigError: a value out of range.
    """
    known = saved.complexity
    entropy = known.entropy_bits if entropy_bits is None else entropy_bits
    rate = known.oov_rate if oov_rate is None else oov_rate
    require_between("entropy (H)", entropy, 0, 64)
    require_between("out-of-vocabulary rate (rho)", rate, 0, 1)
    seconds, channel = saved.deadline_s if deadline_s is None else deadline_s, link.mean_state
    held = RankVector(tuple(cap // 2 for cap in saved.caps.ranks))
    state = AllocationState(channel, Complexity(entropy, rate, known.words), held)
    budget = link.budget_bits(seconds, channel)
    asked = saved.allocator().decide(state, budget)
    ranks = project(asked, saved.sizes.air_bits, budget)
    bits = saved.sizes.air_bits(ranks)
    return Decision(
        modules=saved.modules,
        ranks=ranks,
        asked_air_bits=saved.sizes.air_bits(asked),
        payload_bits=saved.sizes.payload_bits(ranks),
        air_bits=bits,
        budget_bits=budget,
        airtime_s=link.airtime_s(bits, channel),
        deadline_s=seconds,
        trained_on=saved.trained_on,
    )
