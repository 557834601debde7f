"""A tiny model on text whose dev and test use different words, and cells computed as a worker computes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airtune.methods.airllm.cells import KINDS
from airtune.methods.airllm.config import load_config
from airtune.records.cells import CellStore, Done, kind_of
from tiny_models import WORDS, save_tiny_model


def some_words(words: list[str], characters: int) -> str:
    draw, text = np.random.default_rng(0), ""
    while len(text) < characters:
        text += draw.choice(words) + " "
    return text[:characters]


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the text's characters 80 % are train, then 5 % calibration, 5 % dev, 10 % test (`tasks/text.py`)."""
    folder = tmp_path_factory.mktemp("trained")
    words, size = WORDS[4:], 20_000
    half = len(words) // 2
    parts = ((words, 0.85), (words[:half], 0.05), (words[half:], 0.1))
    (folder / "prose.txt").write_text("".join(some_words(list(some), round(share * size)) for some, share in parts))
    model = save_tiny_model(folder / "llama", "llama")
    named = {"model.name": str(model), "task.name": "text", "task.data": str(folder / "prose.txt"), "model.window": 16}
    small = {"adapter.steps": 6, "adapter.learning_rate": 1e-2, "adapter.max_rank": 2}
    small |= {"codec.name": "blockwise", "codec.bits": 4}  # budgets are told by hand from shapes
    link = {"link.snrs_db": [8.0, 12.0, 15.0], "link.bandwidth_hz": 2700.0}
    return load_config("tiny", {**named, **small, **link}).as_dict()


class Store:
    """Computes a cell and all that it reads, each once."""

    def __init__(self, folder: Path) -> None:
        self.store = CellStore(folder)

    def needs(self, kind: str, settings: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        return {**dict.fromkeys(KINDS[kind].needs, settings), **KINDS[kind].also(settings)}

    def key(self, kind: str, settings: Mapping[str, Any]) -> str:
        needs = {name: self.key(kind_of(name), its) for name, its in self.needs(kind, settings).items()}
        return KINDS[kind].key(settings, needs)

    def done(self, kind: str, settings: Mapping[str, Any]) -> Done:
        key = self.key(kind, settings)
        if not self.store.holds(kind, key):
            needs = {name: self.done(kind_of(name), its) for name, its in self.needs(kind, settings).items()}
            outcome = KINDS[kind].compute(settings, self.store.folder(kind, key) / "work", needs)
            self.store.write(KINDS[kind], key, settings, outcome, 1.0)
        return self.store.read(kind, key)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("cells"))
