"""Task, base model and links, opened by their settings. Parts take plain values; a test builds them without."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from airtune.errors import ConfigError
from airtune.links import Link, make_fading
from airtune.models import BaseModel, load_base
from airtune.records import seed_for
from airtune.tasks import Classification, Columns, Sizes, Task, load_task
from airtune.workloads.config import LinkConfig, ModelConfig, TaskConfig
from airtune.workloads.parts import Reader


class Workload(Protocol):
    """The settings of a method that say what it works on."""

    @property
    def seed(self) -> int: ...
    @property
    def model(self) -> ModelConfig: ...
    @property
    def task(self) -> TaskConfig: ...


def open_task(config: Workload) -> Task:
    """Load the task; a seed redraws calibration alone. Raises `DataError`."""
    task = config.task
    return load_task(
        task.name,
        data=Path(task.data).expanduser() if task.data else None,
        columns=Columns(text=task.text_column, label=task.label_column),
        sizes=Sizes(calibration=task.calibration_items),
        seed=config.seed,
    )


def labels_of(task: Task) -> int:
    """How many classes a task tells apart; 0 for running text."""
    return len(task.labels) if isinstance(task, Classification) else 0


def open_reader(config: Workload) -> Reader:
    """Load task and base model. Raises `DataError`, `ModelError`, or `ConfigError` where items are too long for it."""
    task = open_task(config)
    base = open_base(config, labels_of(task))
    name = "max_length" if isinstance(task, Classification) else "window"
    if (asked := getattr(config.model, name)) > base.max_tokens:
        raise ConfigError(f"model.{name} is {asked}, {base.name} takes up to {base.max_tokens} tokens; choose less")
    return Reader(task, base, max_length=config.model.max_length, window=config.model.window)


def open_base(config: Workload, labels: int) -> BaseModel:
    """Load the base model: a classifier with a new head of so many classes, or with 0 one that predicts next tokens."""
    return load_base(
        config.model.name,
        "classify" if labels else "text",
        labels=labels,
        seed=seed_for(config.seed, "head") % 2**31,
        device=config.model.device,
    )


def links_at(config: LinkConfig, bandwidth_hz: float) -> list[Link]:
    """One link per SNR, slowest first.

    Raises:
        ConfigError: `trace` fading without a file. LinkError: a value that is not physical.
    """
    options: dict[str, object] = {
        "rician": {"k_factor": config.k_factor},
        "nakagami": {"m": config.m},
        "trace": {"path": Path(config.trace).expanduser(), "column": config.trace_column},
    }.get(config.fading, {})  # type: ignore[assignment]
    if config.fading == "trace" and not config.trace:
        raise ConfigError("link.fading is 'trace' but link.trace names no file; give a CSV with a column of SNRs in dB")
    fading = make_fading(config.fading, **options)
    return [Link(bandwidth_hz, snr_db, fading, config.gap_db) for snr_db in sorted(config.snrs_db)]
