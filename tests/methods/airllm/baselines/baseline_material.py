"""Tiny models and items for the trained baselines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from airtune.models import BaseModel, FitPlan, Items, load_base, sentences, windows
from airtune.workloads.parts import Parts
from tiny_models import WORDS, save_tiny_model

PLAN = FitPlan(steps=6, batch_size=4, learning_rate=2e-2, seed=5)


def some_text(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS[4:], rng.integers(3, 9))) for _ in range(count)]


def some_parts(base: BaseModel) -> Parts:
    def items(count: int, seed: int) -> Items:
        texts = some_text(count, seed)
        if base.kind == "text":
            return windows(" ".join(texts), base.tokenizer, window=8)
        return sentences(texts, [int("red" in text) for text in texts], base.tokenizer, max_length=16)

    return Parts(items(24, 0), items(9, 1), items(12, 2), items(6, 3), complexities=())


def tiny(folder: Path, family: str, kind: str = "text") -> tuple[BaseModel, Parts]:
    base = load_base(str(save_tiny_model(folder, family, kind=kind)), kind, labels=2, seed=3)
    return base, some_parts(base)
