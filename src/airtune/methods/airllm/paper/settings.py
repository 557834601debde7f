"""Settings of `paper` mode, what the paper's reading changes elsewhere, and what contradicts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from airtune.adapters.ranks import Count
from airtune.methods.airllm.encoding import Rule
from airtune.workloads.settings import require, require_between

if TYPE_CHECKING:
    from airtune.methods.airllm.config import AdapterConfig
    from airtune.methods.airllm.policy.settings import PolicyConfig

READING: Mapping[str, Mapping[str, Any]] = {
    "adapter": {"steps": 15_000},
    "codec": {"name": "blockwise", "bits": 32},
    "policy": {"objective": "advantage"},
}
"""Defaults of other groups in `paper` mode: Table II's steps, 32-bit numbers, and Eq. 19 by weighted imitation."""


@dataclass(frozen=True, slots=True)
class PaperConfig:
    method: Literal["airllm", "uniform", "random", "adalora"] = "airllm"
    """Who chooses the ranks of a step: Algorithm 1, r_max everywhere, chance, or AdaLoRA by peft."""
    horizon: int = 15
    """T_env: steps of an episode, after which PPO and the refiner learn; adapter.steps is a multiple of it."""
    evaluate_every: int = 100
    """Steps between two evaluations on calibration."""
    patience: int = 5
    """Evaluations in a row without gain after which a run with a good enough reward stops."""
    min_rank: int = 1
    """Least rank of a site (Eq. 9)."""
    rounding: Rule = "floor"
    """How a latent becomes a rank: `floor` is Eq. 18 as printed, `round` what nested mode does."""
    count: Count = "paper"
    """Numbers that a rank costs in eta: `paper` 2 d_h, `exact` fan_in + fan_out + 1; 32 bits each."""

    def __post_init__(self) -> None:
        require_between("paper.horizon", self.horizon, 2, 1_000_000)  # PPO standardises advantages
        for name in ("evaluate_every", "patience"):
            require_between(f"paper.{name}", getattr(self, name), 1, 1_000_000)
        require_between("paper.min_rank", self.min_rank, 0)


def check_paper(paper: PaperConfig, adapter: AdapterConfig, policy: PolicyConfig) -> None:
    """Refuse settings that `paper` mode cannot follow. Raises `ConfigError`."""
    expected = f"choose at most {adapter.max_rank} (adapter.max_rank)"
    require(paper.min_rank <= adapter.max_rank, "paper.min_rank", paper.min_rank, expected)
    whole = f"choose a multiple of {paper.horizon} (paper.horizon)"
    require(adapter.steps % paper.horizon == 0, "adapter.steps", adapter.steps, whole)
    often = f"choose at most {adapter.steps} (adapter.steps), or nothing is evaluated"
    require(paper.evaluate_every <= adapter.steps, "paper.evaluate_every", paper.evaluate_every, often)
    expected = "mode is 'paper', which trains at the ranks that are chosen; leave it out"
    require(adapter.prefixes == 1, "adapter.prefixes", adapter.prefixes, expected)
    require(adapter.specialise_share == 0, "adapter.specialise_share", adapter.specialise_share, expected)
    require(adapter.draw_per == "step", "adapter.draw_per", adapter.draw_per, expected)
    learns = "it trains its policy with the adapter; leave it out, or choose mode 'nested'"
    require(policy.trained == "", "policy.trained", policy.trained, f"mode is 'paper': {learns}")
    searches = "mode is 'paper', where trying ranks trains the model and no search finds better ones"
    searched = policy.refiner != "none" and policy.objective == "improved"
    require(not searched, "policy.objective", policy.objective, f"{searches}; choose 'advantage' or 'critic'")
