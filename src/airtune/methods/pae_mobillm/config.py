"""Every setting of a PAE MobiLLM run, validated. Configs stop at the door: parts take plain values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from airtune.errors import ConfigError
from airtune.workloads.config import LinkConfig, ModelConfig, TaskConfig
from airtune.workloads.presets import preset_values
from airtune.workloads.settings import build, require, require_between, require_positive

MAX_EPOCHS = 10_000
"""In all; the losses of so many fit into the header of a server's answer."""


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    train_items: int = 4000
    """Samples of train that are sent, at most."""
    batch_size: int = 32
    """Samples per forward pass and per message."""
    layers: str = "all"
    """Which hidden states are sent: `all`; `uniform`, `layer_count` evenly over depth; `greedy`, the most valuable per
    bit, by `value_items` samples, as the uplink has room by the deadline; or a list from 1 on, as `1,2,5`, in which
    a layer may have bits of its own, as `1:8,2:8,5`."""
    layer_count: int = 3
    """For `uniform`."""
    bits: int = 16
    """Bits per number sent, 8, 16 or 32; `greedy` chooses between 8 and 16 for each layer."""
    value_items: int = 512
    """Samples that `greedy` measures layers on."""
    space: Literal["logit", "probability"] = "logit"
    """Where differences are taken."""
    target_scale: float = 4.0
    """s: the target in logit space is s (onehot - 1 / C)."""
    secret: str = ""
    """What ids and defences are drawn from, with the seed. Empty, whoever knows the seed can work them out: give one
    outside of experiments."""

    def __post_init__(self) -> None:
        for name in ("train_items", "batch_size", "layer_count", "value_items"):
            require_between(f"device.{name}", getattr(self, name), 1)
        named = self.layers in ("all", "uniform", "greedy")
        listed = all(re.fullmatch(r"[1-9]\d{0,5}(:(8|16|32))?", one) for one in self.layers.split(","))
        advice = "choose all, uniform, greedy or a list as 1,2,5 or, with 8, 16 or 32 bits of their own, 1:8,2:8,5"
        require(named or listed, "device.layers", self.layers, advice)
        require(self.bits in (8, 16, 32), "device.bits", self.bits, "choose 8, 16 or 32")
        require_positive("device.target_scale", self.target_scale)


@dataclass(frozen=True, slots=True)
class SideConfig:
    bottleneck: int = 64
    """r."""
    temperature: float = 1.0
    """T of the gates sigmoid(alpha / T)."""
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    loss: Literal["mse", "huber"] = "mse"

    def __post_init__(self) -> None:
        for name, most in (("bottleneck", 1_000_000), ("epochs", MAX_EPOCHS), ("batch_size", 1_000_000)):
            require_between(f"side.{name}", getattr(self, name), 1, most)
        require_positive("side.temperature", self.temperature)
        require_positive("side.learning_rate", self.learning_rate)
        require_between("side.weight_decay", self.weight_decay, 0)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    url: str = ""
    """Address of a running `airtune cloud`; empty starts one in its own process."""
    store: str = ""
    """Folder of its cache and checkpoints; empty puts them into the run folder."""
    memory_mb: float = 256.0
    """Cached activations kept in memory; all are on disk."""
    disk_mb: float = 0.0
    """The most that the cache may take on disk; 0 for no limit of ours."""
    keep_s: float = 0.0
    """Samples are forgotten this long after they came, when the next message comes or the server starts; 0 keeps
    them."""
    again: bool = False
    """Have it keep samples again that it was asked to forget; the device leaves them out otherwise."""

    def __post_init__(self) -> None:
        for name in ("memory_mb", "disk_mb", "keep_s"):
            require_between(f"server.{name}", getattr(self, name), 0)


@dataclass(frozen=True, slots=True)
class PrivacyConfig:
    rotate_to: int = 0
    """K: differences are sent through a secret rotation into so many dimensions; 0 sends them plain."""
    epsilon: float = 0.0
    """Clipping and Gaussian noise of this epsilon (per sample, local); 0 adds none."""
    delta: float = 1e-5
    clip_activations: float = 0.0
    """Norm to which the hidden states of a sample are clipped with noise; 0 takes their median norm."""
    clip_differences: float = 0.0
    """The same of differences."""

    def __post_init__(self) -> None:
        for name in ("rotate_to", "epsilon", "clip_activations", "clip_differences"):
            require_between(f"privacy.{name}", getattr(self, name), 0)
        require(0 < self.delta < 1, "privacy.delta", self.delta, "choose a number above 0 and below 1")


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """What a run tells beside its own scores, in the device's process; off on a device that `airtune edge` makes."""

    probe: bool = True
    """Train a head alone, with gradients, to compare."""
    attacks: bool = True
    """Attack what was sent."""


@dataclass(frozen=True, slots=True)
class PAEConfig:
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    side: SideConfig = field(default_factory=SideConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    note: str = ""
    """What stands on the page beside the results."""

    def __post_init__(self) -> None:
        require_between("seed", self.seed, 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested mapping, ready for TOML."""
        return dataclasses.asdict(self)


def load_config(preset: str, overrides: Mapping[str, object] = {}) -> PAEConfig:
    """Read a preset and lay overrides over it. Raises `ConfigError`: unknown preset or key, or a value that is none."""
    return config_from(preset_values("airtune.methods.pae_mobillm", preset, overrides))


def config_from(values: Mapping[str, Any]) -> PAEConfig:
    """Validate nested settings, such as a run folder recorded. Raises `ConfigError`."""
    config: PAEConfig = build(PAEConfig, values)
    if len(config.link.snrs_db) != 1:
        raise ConfigError(f"link.snrs_db is {config.link.snrs_db}; give the one SNR of the uplink")
    return config
