"""Every setting of a run, validated: presets are TOML files, `--set group.key=value` overrides them (Table II).

Configs stop at the door: `method.py` hands plain values to the parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from airtune.errors import ConfigError
from airtune.methods.airllm.paper.settings import READING, PaperConfig, check_paper
from airtune.methods.airllm.policy.settings import PolicyConfig
from airtune.workloads.config import LinkConfig, ModelConfig, TaskConfig
from airtune.workloads.presets import lay_over, preset_values
from airtune.workloads.settings import build, require, require_between, require_positive


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    max_rank: int = 8
    """r_max."""
    scale: float = 1.0
    """Constant factor of every update (LoRA's alpha / r)."""
    steps: int = 800
    batch_size: int = 32
    learning_rate: float = 0.0
    """AdamW's peak rate; 0 takes one that suits the model's width (1e-3 for MiniLM)."""
    clip_norm: float = 0.3
    """Largest norm of a step's gradient."""
    orthogonality: float = 0.001
    """Weight of Eq. 3 in the training loss."""
    full_share: float = 0.5
    """Nested training: share of rank vectors that have all ranks."""
    uniform_share: float = 0.25
    """Nested training: share with one rank everywhere; the rest draws each site's own."""
    off_share: float = 0.0
    """Nested training: share of the vectors with ranks of their own in which some sites are switched off."""
    draw_per: Literal["step", "item"] = "step"
    """Nested training: one rank vector for a step's whole batch, or one for each of its items."""
    prefixes: int = 1
    """Nested training: how many rank vectors each item is trained at in one step, which costs as many passes. 1 draws
    by the shares above; more are r_max, r_max / 2, ... 1 everywhere, and mixed ranks for every further one. 0 takes
    all of these and two mixed."""
    rank_one_weight: float = 2.0
    """Nested training with `prefixes`: weight of rank 1 in a step's loss over r_max's; those between lie between."""
    octaves: bool = False
    """Nested training with `prefixes`: between r_max and 1 each item takes any rank from one halving to the next."""
    specialise_share: float = 0.0
    """Share of the steps that are kept for training on at the ranks decided for a link, for that link alone; 0 sends
    the nested adapter as it is."""

    def __post_init__(self) -> None:
        require_positive("adapter.scale", self.scale)
        require_positive("adapter.rank_one_weight", self.rank_one_weight)
        require_positive("adapter.clip_norm", self.clip_norm)
        for name, most in (("max_rank", 65_536), ("steps", 1_000_000), ("batch_size", 65_536)):
            require_between(f"adapter.{name}", getattr(self, name), 1, most)
        require_between("adapter.learning_rate", self.learning_rate, 0)
        require_between("adapter.orthogonality", self.orthogonality, 0)
        require_between("adapter.full_share", self.full_share, 0, 1)
        require_between("adapter.uniform_share", self.uniform_share, 0, 1)
        require_between("adapter.off_share", self.off_share, 0, 1)
        expected = "choose shares of full and uniform within 1 together"
        require(self.full_share + self.uniform_share <= 1, "adapter.uniform_share", self.uniform_share, expected)
        halvings = self.max_rank.bit_length()
        expected = f"choose 0 or 1, or {halvings} to 64, one at least for each of r_max, r_max / 2, ... 1"
        share, largest = self.specialise_share, 1 - 1 / self.steps
        leaves = f"choose 0 to {largest:g}, which leaves a step before"
        require(0 <= share <= largest, "adapter.specialise_share", share, leaves)
        known = self.prefixes in (0, 1) or halvings <= self.prefixes <= 64
        require(known, "adapter.prefixes", self.prefixes, expected)

    @property
    def specialise_steps(self) -> int:
        """Steps of training on for each link."""
        return round(self.specialise_share * self.steps)

    @property
    def copies(self) -> int:
        """Passes of a batch in one step of nested training."""
        return self.prefixes or self.max_rank.bit_length() + 2


@dataclass(frozen=True, slots=True)
class CodecConfig:
    name: Literal["coded", "blockwise"] = "coded"
    """`coded`: whole numbers, rounded under the loss's curvature and entropy-coded. `blockwise`: fixed widths."""
    bits: float = 3.0
    """Bits per number of a factor: their mean where they are coded; 4, 8, 16 or 32 where they are blockwise."""

    def __post_init__(self) -> None:
        if self.name == "blockwise":
            require(self.bits in (4, 8, 16, 32), "codec.bits", self.bits, "choose 4, 8, 16 or 32 for blockwise")
        require_between("codec.bits", self.bits, 0.5, 32 if self.name == "blockwise" else 10)

    @property
    def coded(self) -> bool:
        return self.name == "coded"


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    url: str = ""
    """Address of a running `airtune edge`; empty starts one in its own process."""


@dataclass(frozen=True, slots=True)
class AirLLMConfig:
    mode: Literal["nested", "paper"] = "nested"
    """`nested`: train one adapter whose every prefix works, then decide per device and channel state. `paper`:
    Algorithm 1, in which adapter and policy learn together."""
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    edge: EdgeConfig = field(default_factory=EdgeConfig)
    paper: PaperConfig = field(default_factory=PaperConfig)
    note: str = ""
    """What stands on the page beside the results."""

    def __post_init__(self) -> None:
        require_between("seed", self.seed, 0)
        if self.mode == "paper":
            check_paper(self.paper, self.adapter, self.policy)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested mapping, ready for TOML."""
        return dataclasses.asdict(self)


def load_config(preset: str, overrides: Mapping[str, object] = {}) -> AirLLMConfig:
    """Read a preset and lay overrides (`group.key` -> value or its text) over it.

    Raises:
        ConfigError: unknown preset, key or a value of the wrong kind (the line lists what there is), or one that the
            mode does not read.
    """
    values = preset_values("airtune.methods.airllm", preset, overrides)
    if values.get("mode") == "paper":
        values = lay_over(READING, values)
    elif unread := [key for key in overrides if key.startswith("paper.")]:
        raise ConfigError(f"{unread[0]} was given, but mode is 'nested', which does not read it; add mode=paper")
    return config_from(values)


def config_from(values: Mapping[str, Any]) -> AirLLMConfig:
    """Validate nested settings, such as a run folder recorded. Raises `ConfigError`."""
    config: AirLLMConfig = build(AirLLMConfig, values)
    return config
