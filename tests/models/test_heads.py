"""Many heads in one pass: every one as if it were scored alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from airtune.models import load_base, score, score_heads, sentences
from tiny_models import save_tiny_model

TEXTS = ["the cat sat on the mat", "the dog ran", "a red log", "it was not fast and then it sat", "blue dog"] * 30
CLASSES = [0, 1, 2, 1, 1] * 30
ONE_PASS = {"bert", "roberta"}
"""Of the others the head comes before the last token is chosen."""


@pytest.mark.parametrize("family", ["bert", "roberta", "opt", "gpt2", "llama"])
def test_each_head_has_the_score_it_has_alone(family: str, tmp_path: Path):
    base = load_base(str(save_tiny_model(tmp_path, family, kind="classify")), "classify", labels=3)
    items = sentences(TEXTS, CLASSES, base.tokenizer, max_length=16)
    rng, passes = np.random.default_rng(0), []
    shapes = {name: tuple(base.model.get_parameter(name).shape) for name in base.head}
    heads = [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(3)]
    alone = []
    for head in heads:
        (alone_now,) = score_heads(base, [head], items)
        assert np.array_equal(alone_now.losses, score(base.model, items).losses)
        alone.append(alone_now)
    handle = base.model.base_model.register_forward_hook(lambda *_: passes.append(1))
    together = score_heads(base, heads, items)
    handle.remove()
    batches = 10  # 150 texts, 16 at a time
    assert len(passes) == batches * (1 if family in ONE_PASS else len(heads))
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.losses, other.losses)
        assert np.array_equal(one.hits, other.hits)
    assert not np.array_equal(together[0].losses, together[1].losses)
    for name in base.head:
        np.testing.assert_array_equal(base.model.get_parameter(name).detach(), heads[-1][name].astype(np.float32))
