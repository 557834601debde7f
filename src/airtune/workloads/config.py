"""Settings of what a run works on: base model, task, link."""

from __future__ import annotations

from dataclasses import dataclass

from airtune.links import FADINGS
from airtune.workloads.settings import require, require_between


@dataclass(frozen=True, slots=True)
class ModelConfig:
    name: str = "minilm"
    """`minilm` (embedded), a folder in Hugging Face layout, or a hub name."""
    device: str = "cpu"
    max_length: int = 64
    """Longest sentence in tokens."""
    window: int = 128
    """Window of a text task in tokens."""

    def __post_init__(self) -> None:
        require_between("model.max_length", self.max_length, 4)
        require_between("model.window", self.window, 4)


@dataclass(frozen=True, slots=True)
class TaskConfig:
    name: str = "pydocs"
    """`pydocs` (embedded), `sst2`, `classify`, `text`, or `hub:NAME`."""
    data: str = ""
    """File or folder of the task's data; pydocs needs none."""
    text_column: str = "sentence"
    label_column: str = "label"
    calibration_items: int = 256
    """Items (sentences or windows) that every loss measurement of an allocation reads."""
    dev_items: int = 1000
    """Items of dev that the unconstrained adapter is scored on, at most."""
    test_items: int = 500
    """Items of test that payloads are scored on, at most."""

    def __post_init__(self) -> None:
        for name in ("calibration_items", "dev_items", "test_items"):
            require_between(f"task.{name}", getattr(self, name), 1)


@dataclass(frozen=True, slots=True)
class LinkConfig:
    bandwidth_hz: float = 100e6
    """W; 0 asks for a bandwidth at which this link is interesting for this model (printed with the reason)."""
    snrs_db: tuple[float, ...] = (-5.0, 0.0, 5.0, 10.0, 15.0)
    """Mean SNRs at which payloads are decided and sent."""
    deadline_s: float = 1.0
    """T_max (Eq. 7)."""
    fading: str = "still"
    """`still`, `rayleigh`, `rician`, `nakagami` or `trace`."""
    k_factor: float = 4.0
    """Rician K, linear."""
    m: float = 2.0
    """Nakagami m."""
    trace: str = ""
    """CSV of a measured channel, for `trace`."""
    trace_column: str = "SNR"
    gap_db: float = 0.0
    """Efficiency gap to Shannon's rate."""
    late_share: float = 0.05
    """Under fading, the share of blocks that may be late: decisions spend the epsilon-outage rate; 0 trusts the last
    block seen."""

    def __post_init__(self) -> None:
        require_between("link.bandwidth_hz", self.bandwidth_hz, 0, 1e12)
        require_between("link.deadline_s", self.deadline_s, 1e-9, 1e9)
        require(0 <= self.late_share < 1, "link.late_share", self.late_share, "choose at least 0 and below 1")
        require(len(self.snrs_db) > 0, "link.snrs_db", self.snrs_db, "give at least one SNR in dB")
        for snr_db in self.snrs_db:
            require_between("link.snrs_db", snr_db, -60, 80)
        names = {f"{snr_db:g}" for snr_db in self.snrs_db}  # as payload files and rows are told apart
        require(len(names) == len(self.snrs_db), "link.snrs_db", self.snrs_db, "give each SNR once, to six digits")
        require(self.fading in FADINGS, "link.fading", self.fading, f"choose one of {', '.join(FADINGS)}")
        traced = self.fading != "trace" or self.trace != ""
        require(traced, "link.trace", self.trace, "name a CSV with a column of SNRs in dB")
        require_between("link.k_factor", self.k_factor, 0)
        require_between("link.m", self.m, 0.5)
        require_between("link.gap_db", self.gap_db, 0, 60)
