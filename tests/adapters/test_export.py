"""Export to PEFT: what no runtime could load is refused, half precision holds what is written, little stays little.

That its logits are right is tested per family in test_adapter.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.numpy import load_file

from airtune.adapters import export as export_module
from airtune.adapters import export_peft
from airtune.adapters.imported import import_peft
from airtune.codec import Factors
from airtune.errors import PayloadError


def test_an_adapter_without_sites_is_refused(tmp_path):
    with pytest.raises(PayloadError, match="the adapter has no sites; expected one at least"):
        export_peft(tmp_path / "out", {}, {"classifier.weight": np.ones((2, 2))}, kind="classify", base_model="b")
    assert not list(tmp_path.iterdir())


def test_numbers_that_float32_does_not_hold_are_refused(tmp_path):
    huge = Factors(p=np.full((3, 1), 3e38, np.float32), lam=np.full(1, 3e38, np.float32), q=np.ones((1, 2), np.float32))
    with pytest.raises(PayloadError, match=r"layer\.lora_B\.weight holds a number that is not finite in float32"):
        export_peft(tmp_path / "out", {"layer": huge}, {}, kind="text", base_model="b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["layer.1.lora_A.weight", "layer.1.base_layer.weight", "layer.1.weight", "layer.1.norm.weight", "layer.bias", "x"],
)
def test_a_tensor_of_the_head_that_is_no_module_s_or_meets_a_site_is_refused(tmp_path, name: str):
    """PEFT takes no module both as a target and saved whole, nor one within the other."""
    site = Factors(p=np.ones((3, 1), np.float32), lam=np.ones(1, np.float32), q=np.ones((1, 2), np.float32))
    with pytest.raises(PayloadError, match="no module's or within what has a site"):
        export_peft(tmp_path / "out", {"layer.1": site}, {name: np.ones((1, 2))}, kind="text", base_model="b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lam", [1e-7, 1e-4, 1.0, 1e3])
def test_half_precision_holds_what_whole_numbers_and_scales_stand_for(tmp_path, lam: float):
    """As a payload brings them: large whole numbers in P and Q, all of their size in lam."""
    rng = np.random.default_rng(0)
    p, q = (rng.integers(-800, 800, shape).astype(np.float32) for shape in ((40, 3), (3, 30)))
    site = Factors(p=p, lam=np.array([1, 0.3, 0.01], np.float32) * np.float32(lam) / 800**2, q=q)
    export_peft(tmp_path / "out", {"layer": site}, {}, kind="text", base_model="b")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.layer.lora_{which}.weight"] for which in "AB")
    update = (site.p.astype(np.float64) * site.lam) @ site.q
    np.testing.assert_allclose(b.astype(np.float64) @ a, update, rtol=1e-5, atol=1e-7 * np.abs(update).max())
    half = b.astype(np.float16).astype(np.float64) @ a.astype(np.float16).astype(np.float64)
    assert np.linalg.norm(half - update) < 1e-3 * np.linalg.norm(update)


def test_ranks_stand_in_patterns_where_padding_would_make_much_of_little(tmp_path, monkeypatch):
    """Rank 6 at a small site and 1 at a large one: 6 x 2 x 60 numbers where 6 x 2 x 4 + 2 x 56 are there."""
    monkeypatch.setattr(export_module, "PADDED_NUMBERS", 100)
    rng = np.random.default_rng(1)
    factors = {
        f"model.{name}": Factors(*(rng.normal(size=s).astype(np.float32) for s in ((n, rank), (rank,), (rank, n))))
        for name, n, rank in (("small", 4, 6), ("large", 200, 1))
    }
    export_peft(tmp_path / "out", factors, {}, kind="text", base_model="b", revision="r1")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert sum(tensor.size for tensor in tensors.values()) == 6 * 8 + 400
    config = LoraConfig.from_pretrained(str(tmp_path / "out"))
    assert config.rank_pattern == config.alpha_pattern == {r"^model\.small$": 6, r"^model\.large$": 1}
    assert config.revision == "r1"
    back = import_peft(tmp_path / "out")
    assert back.revision == "r1"
    for name, site in factors.items():
        np.testing.assert_allclose(back.factors[name].update(), site.update(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("names", [("proj", "block.proj"), ("block.proj", "blockxproj"), ("a-b.proj", "b.proj")])
def test_a_site_whose_path_ends_another_s_keeps_its_own_rank(tmp_path, monkeypatch, names: tuple[str, str]):
    """Loaded by PEFT, and read back; the first has rank 1, the second 3."""
    monkeypatch.setattr(export_module, "PADDED_NUMBERS", 0)
    monkeypatch.setattr(export_module, "PADDED_TIMES", 0)
    rng, model, factors = np.random.default_rng(2), torch.nn.Module(), {}
    for name, rank in zip(names, (1, 3), strict=True):
        block, _, last = name.rpartition(".")
        if block and not hasattr(model, block):
            model.add_module(block, torch.nn.Module())
        (getattr(model, block) if block else model).add_module(last, torch.nn.Linear(4, 5))
        shapes = (5, rank), (rank,), (rank, 4)
        factors[name] = Factors(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))
    folder = export_peft(tmp_path / "out", factors, {}, kind="any", base_model="b")
    loaded, back = PeftModel.from_pretrained(model, str(folder)), import_peft(folder)
    for name, site in factors.items():
        found = loaded.base_model.model.get_submodule(name).get_delta_weight("default").numpy()
        np.testing.assert_allclose(found, site.update(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(back.factors[name].update(), site.update(), rtol=1e-4, atol=1e-6)
