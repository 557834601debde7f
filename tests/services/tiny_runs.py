"""Whole runs that take a second: random models, made-up data, the method in this process, the command line in another.

Settings are overrides over the preset `tiny`, as `--set` takes them.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airtune.methods.airllm.building import edge_role
from airtune.methods.airllm.config import AirLLMConfig, load_config
from airtune.methods.airllm.method import run
from airtune.records import Progress, RunFolder, Silent
from airtune.transport import Loopback, Transport
from tiny_models import WORDS, save_tiny_model

VOCABULARY = WORDS[4:]  # without the special tokens
ALLOCATORS = ("uniform", "random", "greedy", "airllm")
GRADIENTS_BESIDE = 7
"""One of a run's measurements is what five gradients on half of the items said: booked as 5 x 3 / 2 losses, up."""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def write_sentences(path: Path, count: int = 300, seed: int = 0) -> Path:
    """A CSV of different sentences; the label says whether a cat or something red occurs."""
    draw = random.Random(seed)
    found: set[str] = set()
    while len(found) < count:
        found.add(" ".join(draw.choices(VOCABULARY, k=draw.randint(5, 9))))
    rows = [f"{text},{'cat' if {'cat', 'red'} & set(text.split()) else 'none'}" for text in sorted(found)]
    path.write_text("\n".join(["sentence,label", *rows, ""]))
    return path


def write_prose(path: Path, count: int = 4000) -> Path:
    """Running text of so many words."""
    path.write_text(" ".join(random.Random(0).choices(VOCABULARY, k=count)))
    return path


def classify_settings(folder: Path) -> dict[str, str]:
    """A tiny BERT and labelled sentences, written into a new folder."""
    folder.mkdir(exist_ok=True)
    model, data = save_tiny_model(folder / "bert", "bert", kind="classify"), write_sentences(folder / "rows.csv")
    return {"model.name": str(model), "task.name": "classify", "task.data": str(data)}


def text_settings(folder: Path) -> dict[str, str]:
    """A tiny Llama and running text, written into a new folder."""
    folder.mkdir(exist_ok=True)
    model, data = save_tiny_model(folder / "llama", "llama"), write_prose(folder / "prose.txt")
    return {"model.name": str(model), "task.name": "text", "task.data": str(data), "model.window": "16"}


def config_of(settings: Mapping[str, object]) -> AirLLMConfig:
    """The preset `tiny` with these settings over it."""
    return load_config("tiny", settings)


def run_here(
    settings: Mapping[str, object],
    out: Path,
    *,
    edge: Transport | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Run the method in this process, with an edge of its own behind a `Loopback` unless one is given."""
    config = config_of(settings)
    start = RunFolder.resume if resume else RunFolder.create
    with start(out, config.as_dict()) as folder:
        run(config, folder, edge or Loopback(edge_role(config)), progress or Silent())
        return folder.read_summary()


def outcome(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary without what the clock said."""
    return {key: value for key, value in summary.items() if key not in ("wall_s", "stage_s")}


def options(settings: Mapping[str, object]) -> list[str]:
    """Settings as the command line takes them."""
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def airtune(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "airtune", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)


def one_line(stderr: str) -> str:
    """The one line with which a command was refused."""
    assert stderr.startswith("airtune: ")
    assert stderr.count("\n") == 1
    assert stderr.endswith("\n")
    return stderr.strip()
