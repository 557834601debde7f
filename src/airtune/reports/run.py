"""One run as a report sees it: frozen values, None where the run recorded nothing, NaN where it diverged.

Knows the words of `run airllm`'s summary. Does not know files, and computes nothing that was not recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

Metric = Literal["accuracy", "perplexity"]
ScoreName = Literal["score_edge", "score_cloud", "score_trained"]


@dataclass(frozen=True, slots=True)
class Row:
    """One allocator at one SNR. What the run did not record is None; what diverged is NaN."""

    allocator: str
    snr_db: float
    deadline_met: bool | None = None
    payload_sha256: str | None = None
    ranks: tuple[int, ...] = ()
    bandwidth_hz: float | None = None
    deadline_s: float | None = None
    total_rank: float | None = None
    parameters: float | None = None
    bits_before_projection: float | None = None
    payload_bits: float | None = None
    air_bits: float | None = None
    airtime_s: float | None = None
    loss: float | None = None
    loss_calibration: float | None = None
    reward: float | None = None
    score_trained: float | None = None
    score_cloud: float | None = None
    score_edge: float | None = None
    max_abs_logit_diff: float | None = None
    blocks: float | None = None
    blocks_late: float | None = None

    @property
    def late(self) -> bool:
        """Whether the row is known to have missed its deadline."""
        return self.deadline_met is False


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the model that takes an adapter of rank 0 to `cap`."""

    layer: int
    module: str
    cap: int


@dataclass(frozen=True, slots=True)
class Reference:
    """Score and loss of something that no link limited, on test and on dev."""

    score: float | None
    loss: float | None
    dev_score: float | None = None
    dev_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a report shows of one run; rows ordered by SNR, allocators as the run listed them."""

    folder: Path
    method: str
    mode: str
    seed: str
    model: str
    task: str
    wall_s: float | None
    versions: Mapping[str, str]
    metric: Metric
    rows: tuple[Row, ...]
    sites: tuple[Site, ...]
    references: Mapping[str, Reference]
    notes: tuple[str, ...]
    fading: str
    bandwidth_reason: str
    config: str
    metrics: tuple[Mapping[str, Any], ...]
    ledger: tuple[Mapping[str, Any], ...]
    illustration: str = ""
    """What a run is that only illustrates; empty for one that does more."""
    steps: float | None = None
    """Training steps taken, of a run that may stop early."""

    @property
    def allocators(self) -> tuple[str, ...]:
        """Every allocator once, in the run's order."""
        return tuple(dict.fromkeys(row.allocator for row in self.rows))

    @property
    def snrs_db(self) -> tuple[float, ...]:
        """Every SNR once, rising."""
        return tuple(sorted({row.snr_db for row in self.rows}))

    @property
    def still(self) -> bool:
        """Whether the channel is known not to fade."""
        return self.fading.lower().startswith(("still", "awgn", "none"))

    @property
    def cut(self) -> bool:
        """Whether ranks were cut to the deadline before they were sent."""
        return self.mode != "paper"

    @property
    def title(self) -> str:
        """``airllm on text``, with what qualifies it."""
        return f"{self.method} on {self.task}" + (f" ({self.illustration})" if self.illustration else "")

    @property
    def judged(self) -> ScoreName:
        """The score that counts: the edge's, or the nearest thing to it that the run has."""
        present = (name for name in get_args(ScoreName) if any(getattr(row, name) is not None for row in self.rows))
        return cast(ScoreName, next(present, "score_edge"))

    def series(self, allocator: str) -> tuple[Row, ...]:
        """The rows of one allocator, by rising SNR."""
        return tuple(row for row in self.rows if row.allocator == allocator)

    def values(self, name: str) -> tuple[float, ...]:
        """What the rows hold under a field, without the missing."""
        return tuple(value for row in self.rows if (value := getattr(row, name)) is not None)
