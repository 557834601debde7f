"""Curvature against moments summed by hand, item by item, and against the loss's own growth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from airtune.adapters import Adapter
from airtune.adapters.curvature import measure_curvature
from airtune.models import BaseModel, Items, load_base
from tiny_models import save_tiny_model


def opened(folder: Path, family: str, kind: str) -> tuple[BaseModel, Items]:
    base = load_base(str(save_tiny_model(folder, family, kind=kind)), kind, labels=3 if kind == "classify" else 0)
    rng = np.random.default_rng(0)
    lengths = (5, 9, 7, 4, 8)
    ids = tuple(rng.integers(4, 22, length) for length in lengths)
    classes = np.array([0, 2, 1, 1, 0]) if kind == "classify" else None
    return base, Items(ids, classes, pad_id=0)


def by_hand(base: BaseModel, items: Items, path: str) -> tuple[np.ndarray, np.ndarray]:
    """One item at a time, without padding, by a forward hook of the test's own."""
    site = base.model.get_submodule(path)
    inputs, outputs, positions = 0.0, 0.0, 0
    for at, ids in enumerate(items.ids):
        kept = {}

        def hear(module, given, came, kept=kept):
            kept["x"], kept["y"] = given[0].detach().flatten(0, -2), came
            return came

        handle = site.register_forward_hook(hear)
        tokens = torch.tensor(ids)[None]
        embedded = base.model.get_input_embeddings()(tokens).detach().requires_grad_(True)
        logits = base.model(inputs_embeds=embedded, attention_mask=torch.ones_like(tokens)).logits
        handle.remove()
        if items.classes is None:
            losses = functional.cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="none")
            summed = losses.sum() / len(losses) ** 0.5
        else:
            summed = functional.cross_entropy(logits, torch.tensor(items.classes[at : at + 1]))
        (g,) = torch.autograd.grad(summed, kept["y"])
        inputs, outputs = inputs + kept["x"].T @ kept["x"], outputs + g.flatten(0, -2).T @ g.flatten(0, -2)
        positions += len(ids)
    return (inputs / positions).numpy(), (outputs / len(items)).numpy()


@pytest.mark.parametrize(("family", "kind"), [("llama", "text"), ("opt", "text"), ("bert", "classify")])
def test_moments_are_those_summed_by_hand(tmp_path: Path, family: str, kind: str):
    base, items = opened(tmp_path, family, kind)
    base.model.eval()
    expected = {site.path: by_hand(base, items, site.path) for site in base.sites}
    adapter = Adapter(base, 2, generator=torch.Generator().manual_seed(0))  # its update is zero at first
    found = measure_curvature(base, items, batch_size=2)
    assert list(found) == [site.path for site in base.sites]
    for path, (inputs, outputs) in expected.items():
        np.testing.assert_allclose(found[path].inputs, inputs, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found[path].outputs, outputs, rtol=1e-3, atol=1e-6)
    assert all(parameter.grad is None for parameter in adapter.parameters().values())


def test_long_sides_keep_the_diagonal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base, items = opened(tmp_path, "llama", "text")
    Adapter(base, 2, generator=torch.Generator().manual_seed(0))
    full = measure_curvature(base, items)
    monkeypatch.setattr("airtune.adapters.curvature.LARGEST_FULL", 16)
    for path, found in measure_curvature(base, items).items():
        for part, whole in ((found.inputs, full[path].inputs), (found.outputs, full[path].outputs)):
            expected = np.diag(whole) if len(whole) > 16 else whole
            np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-7)
