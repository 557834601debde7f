"""The layer with a core against dense products, on every family; the model is left as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from airtune.adapters import Adapter, export_peft
from airtune.adapters.core_adapter import CoreAdapter, CoreLinear, bases_of
from airtune.adapters.derived import derive
from airtune.models import load_base
from tiny_models import CONFIGS, save_tiny_model

IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 10, 11, 3]])


@pytest.mark.parametrize(("size", "rank"), [(2, 1), (5, 3), (9, 9)])
def test_a_layer_adds_left_core_right(size: int, rank: int):
    """A weight of shape (9, 5), so a size and a rank of 9 mean 5."""
    draw = torch.Generator().manual_seed(0)
    base = torch.nn.Linear(5, 9)
    layer = CoreLinear(base, derive(base.weight.detach().numpy(), size), rank, scale=2.0, generator=draw)
    x = torch.randn(2, 3, 5, generator=draw)
    assert torch.equal(layer(x), base(x))  # P starts at 0
    with torch.no_grad():
        layer.p.normal_(generator=draw)
    u, values, v = torch.linalg.svd(base.weight.double(), full_matrices=False)
    k = min(size, 5)
    assert layer.p.shape == layer.q.T.shape == (k, min(rank, 5))
    signs = torch.sign((v[:k] * layer.right.double()).sum(1))  # those of the SVD are its own
    core = 2.0 * layer.p.double() @ layer.q.double()
    dense = (u[:, :k] * values[:k] * signs) @ core @ (v[:k] * signs[:, None])
    expected = x.double() @ (base.weight.double() + dense).T + base.bias.double()
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(layer.factors().update(), dense.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("family", [name for name in CONFIGS if name in ("llama", "gpt2", "opt")])
def test_lifted_cores_are_scored_exported_and_merged_as_any_adapter(family: str, tmp_path: Path):
    folder = save_tiny_model(tmp_path / "base", family)
    base = load_base(str(folder), "text", labels=0)
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    bases = bases_of(base, 3)
    draw = torch.Generator().manual_seed(0)
    adapter = CoreAdapter(base, bases, 2, scale=1.5, generator=draw)
    with torch.no_grad():
        for part in adapter.parameters().values():
            part.copy_(torch.randn(part.shape, generator=draw) * 0.5)
        expected = base.model(input_ids=IDS).logits
    lifted = adapter.factors()
    adapter.detach()
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    assert {site.shape for site in lifted.values()} == {(site.fan_out, site.fan_in) for site in base.sites}

    whole = Adapter(base, 3, generator=torch.Generator())
    whole.load(lifted, {})
    with torch.no_grad():
        torch.testing.assert_close(base.model(input_ids=IDS).logits, expected, atol=1e-4, rtol=1e-4)
    whole.detach()

    given = {"kind": "text", "base_model": str(folder), "fan_in_fan_out": base.fan_in_fan_out}
    export_peft(tmp_path / "peft", lifted, {}, **given)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(tmp_path / "peft")).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=IDS).logits, expected, atol=1e-4, rtol=1e-4)


def test_the_gradient_of_a_core_is_that_of_the_weight_seen_from_the_bases(tmp_path: Path):
    """d loss / d P = (U S)^T (d loss / d W) V Q^T: so training starts although P is 0."""
    base = load_base(str(save_tiny_model(tmp_path / "base", "llama")), "text", labels=0)
    path = base.sites[0].path
    weight = base.model.get_parameter(f"{path}.weight")
    weight.requires_grad_(True)
    base.model(input_ids=IDS, labels=IDS).loss.backward()
    of_weight, bases = weight.grad.double().numpy(), bases_of(base, 4)
    weight.requires_grad_(False)
    adapter = CoreAdapter(base, bases, 2, generator=torch.Generator().manual_seed(0))
    base.model(input_ids=IDS, labels=IDS).loss.backward()
    layer = adapter.layers[path]
    adapter.detach()
    expected = bases[path].left.T @ of_weight @ bases[path].right.T @ layer.q.detach().numpy().T
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(layer.p.grad.numpy(), expected, atol=1e-5)
