"""What the stages of one run hand on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from airtune.ledger import Ledger
from airtune.methods.airllm.config import AirLLMConfig
from airtune.records import Progress, RunFolder


@dataclass
class Session:
    """Settings, folder, costs, and who watches."""

    config: AirLLMConfig
    folder: RunFolder
    progress: Progress
    ledger: Ledger
    stage_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._begun, self._earlier_s = time.perf_counter(), self.ledger.total("compute_seconds")

    @property
    def wall_s(self) -> float:
        """Seconds so far, those from before an interruption too."""
        return self._earlier_s + time.perf_counter() - self._begun

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.stage_s[stage] = time.perf_counter() - begun
        self.ledger.book("compute_seconds", self.stage_s[stage], role="cloud", what=stage)
        self.folder.write_ledger(self.ledger)
