"""The adapter against peft's own layers, the definition of Eqs. 2-3, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from airtune.adapters import Adapter, RankVector, export_peft, rank_caps
from airtune.codec import Factors
from airtune.errors import ConfigError, PayloadError, RunError
from airtune.models import load_base
from tiny_models import CONFIGS, save_tiny_model


def randomised(base, max_rank=4, seed=0):
    """An adapter with factors that matter: every P, lam, Q and the head drawn at random."""
    draw = torch.Generator().manual_seed(seed)
    adapter = Adapter(base, max_rank, scale=1.5, generator=draw)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.4)
    return adapter


def mixed_ranks(adapter, seed=0):
    """Ranks of every size, 0 and full included."""
    rng = np.random.default_rng(seed)
    ranks = [int(rng.integers(0, cap + 1)) for cap in adapter.caps.ranks]
    ranks[0], ranks[1], ranks[-1] = 0, adapter.caps.ranks[1], 0
    return RankVector.of(ranks)


@pytest.fixture
def ids():
    return torch.tensor([[2, 5, 6, 7, 3], [2, 9, 10, 11, 3]])


@pytest.mark.parametrize("kind", ["classify", "text"])
@pytest.mark.parametrize("family", CONFIGS)
def test_an_exported_adapter_loads_in_peft_with_the_same_logits(family, kind, ids, tmp_path):
    folder = save_tiny_model(tmp_path / "base", family, kind=kind)
    base = load_base(str(folder), kind, labels=3)
    adapter = randomised(base)
    ranks = mixed_ranks(adapter)
    adapter.set_ranks(ranks)
    with torch.no_grad():
        expected = base.model(input_ids=ids).logits
    kept = {path: site.prefix(rank) for (path, site), rank in zip(adapter.factors().items(), ranks.ranks, strict=True)}
    export_peft(
        tmp_path / "adapter",
        kept,
        adapter.dense(),
        kind=kind,
        base_model=str(folder),
        fan_in_fan_out=base.fan_in_fan_out,
    )
    auto = AutoModelForSequenceClassification if kind == "classify" else AutoModelForCausalLM
    extra = {"num_labels": 3} if kind == "classify" else {}
    fresh = auto.from_pretrained(folder, pad_token_id=0, **extra).eval()
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        found = loaded(input_ids=ids).logits
    assert (found - expected).abs().max() < 1e-4
    with torch.no_grad(), loaded.disable_adapter():
        assert (loaded(input_ids=ids).logits - expected).abs().max() > 1e-2  # the adapter is what made them equal
    merged = loaded.merge_and_unload()
    with torch.no_grad():
        assert (merged(input_ids=ids).logits - expected).abs().max() < 1e-4


def test_an_adapter_of_rank_0_everywhere_exports_as_one_that_changes_nothing(ids, tmp_path):
    folder = save_tiny_model(tmp_path / "base", "llama")
    base = load_base(str(folder), "text")
    with torch.no_grad():
        expected = base.model(input_ids=ids).logits
    adapter = randomised(base)
    none = {path: site.prefix(0) for path, site in adapter.factors().items()}
    export_peft(tmp_path / "adapter", none, {}, kind="text", base_model=str(folder))
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(tmp_path / "adapter"))
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, expected)


def test_a_site_computes_w_x_plus_scaled_p_lam_q_x(tmp_path):
    base = load_base(str(save_tiny_model(tmp_path, "llama")), "text")
    adapter = randomised(base)
    site, layer = adapter.sites[4], adapter.layers[4]
    weight, x = layer.base.weight, torch.randn(3, site.fan_in)
    for rank in (0, 1, 4, 2):  # shrinks, grows, shrinks at run time
        layer.rank = rank
        p, lam, q = layer.p[:rank].T, torch.diag(layer.lam[:rank]), layer.q[:rank]
        expected = x @ (weight + 1.5 * p @ lam @ q).T
        assert torch.allclose(layer(x), expected, atol=1e-5)
        prefix = adapter.factors()[site.path].prefix(rank).update()
        assert np.allclose(prefix, (1.5 * p @ lam @ q).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_items_with_ranks_of_their_own_are_each_alone_under_theirs(family, tmp_path):
    """One pass over a batch gives every item the logits it has alone, and the mean of the gradients it has alone."""
    kind = "classify" if "bert" in family else "text"
    base = load_base(str(save_tiny_model(tmp_path, family, kind=kind)), kind, labels=3)
    adapter = randomised(base)
    vectors = [mixed_ranks(adapter, seed) for seed in range(4)]
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 10, 11, 3], [2, 5, 9, 6, 3], [2, 7, 7, 8, 3]])
    parameters = adapter.parameters()
    for parameter in parameters.values():
        parameter.requires_grad_(True)

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters.values(), found, strict=True)]

    adapter.set_item_ranks(vectors)
    assert adapter.ranks == RankVector(tuple(max(ranks) for ranks in zip(*(v.ranks for v in vectors), strict=True)))
    together = base.model(input_ids=ids).logits
    found = gradients(together.square().mean())
    alone = [torch.zeros_like(gradient) for gradient in found]
    for row, ranks in enumerate(vectors):
        adapter.set_ranks(ranks)
        logits = base.model(input_ids=ids[row : row + 1]).logits
        assert torch.allclose(logits[0], together[row], atol=1e-4)
        for total, gradient in zip(alone, gradients(logits.square().mean()), strict=True):
            total += gradient / len(vectors)
    for one, other in zip(found, alone, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max() + 1))
    assert any(gradient.abs().max() > 1e-3 for gradient in found)


def test_a_new_adapter_changes_nothing_and_detach_gives_the_model_back(ids, tmp_path):
    base = load_base(str(save_tiny_model(tmp_path, "opt")), "text")
    before, keys = base.model(input_ids=ids).logits, set(base.model.state_dict())
    adapter = Adapter(base, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(base.model(input_ids=ids).logits, before)
    adapter.detach()
    assert set(base.model.state_dict()) == keys


def test_orthogonality_is_eq_3_averaged_over_sites(tmp_path):
    base = load_base(str(save_tiny_model(tmp_path, "opt")), "text")
    adapter = randomised(base)
    adapter.set_ranks(RankVector.uniform(base.sites, 2))
    expected = np.mean(
        [
            np.linalg.norm(layer.p[:2].detach().numpy() @ layer.p[:2].detach().numpy().T - np.eye(2)) ** 2
            + np.linalg.norm(layer.q[:2].detach().numpy() @ layer.q[:2].detach().numpy().T - np.eye(2)) ** 2
            for layer in adapter.layers
        ]
    )
    assert float(adapter.orthogonality()) == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        for layer in adapter.layers:
            layer.p.copy_(torch.linalg.qr(torch.randn(layer.p.shape[1], 4))[0].T)
            layer.q.copy_(torch.linalg.qr(torch.randn(layer.q.shape[1], 4))[0].T)
    assert float(adapter.orthogonality()) == pytest.approx(0, abs=1e-9)


def test_ordering_sorts_by_the_norm_of_each_update_and_keeps_the_whole(ids, tmp_path):
    base = load_base(str(save_tiny_model(tmp_path, "bert", kind="classify")), "classify")
    adapter = randomised(base)
    before = base.model(input_ids=ids).logits
    adapter.order_by_importance()
    assert torch.allclose(base.model(input_ids=ids).logits, before, atol=1e-5)
    for factors in adapter.factors().values():
        norms = [np.linalg.norm(np.outer(factors.p[:, k] * factors.lam[k], factors.q[k])) for k in range(factors.rank)]
        assert norms == sorted(norms, reverse=True)


def test_loaded_factors_reproduce_the_model_they_came_from(ids, tmp_path):
    folder = str(save_tiny_model(tmp_path, "bert", kind="classify"))
    source, target = load_base(folder, "classify", seed=1), load_base(folder, "classify", seed=2)
    adapter = randomised(source)
    ranks = mixed_ranks(adapter)
    adapter.set_ranks(ranks)
    receiver = Adapter(target, 4, scale=3.0, generator=torch.Generator().manual_seed(9))
    receiver.load(
        {n: f.prefix(r) for (n, f), r in zip(adapter.factors().items(), ranks.ranks, strict=True)}, adapter.dense()
    )
    assert receiver.ranks == ranks
    assert torch.allclose(target.model(input_ids=ids).logits, source.model(input_ids=ids).logits, atol=1e-5)


def test_factors_for_another_model_are_refused_before_anything_changes(ids, tmp_path):
    base = load_base(str(save_tiny_model(tmp_path, "llama")), "text")
    adapter = randomised(base)
    before, factors = base.model(input_ids=ids).logits, adapter.factors()
    path = base.sites[-1].path
    wrong_shape = factors | {path: Factors(np.zeros((3, 1)), np.zeros(1), np.zeros((1, 3)))}
    for bad in (wrong_shape, {n: f for n, f in factors.items() if n != path}):
        with pytest.raises(PayloadError, match=path.replace(".", r"\.")):
            adapter.load(bad, {})
    with pytest.raises(PayloadError, match="head"):
        adapter.load(factors, {"score.weight": np.zeros((2, 16))})
    assert torch.equal(base.model(input_ids=ids).logits, before)


def test_ranks_are_capped_by_the_smaller_side_and_checked(tmp_path):
    base = load_base(str(save_tiny_model(tmp_path, "llama")), "text")
    assert max(rank_caps(base.sites, 999).ranks) == 16
    assert min(rank_caps(base.sites, 999).ranks) == 8  # grouped-query keys and values: 16 -> 8
    adapter = Adapter(base, 4, generator=torch.Generator().manual_seed(0))
    for bad, words in (((4,), "14 sites"), ((17,) * 14, "above its cap")):
        with pytest.raises(ConfigError, match=words):
            adapter.set_ranks(RankVector(bad))
        with pytest.raises(ConfigError, match=words):
            adapter.set_item_ranks([adapter.caps, RankVector(bad)])
    with pytest.raises(ConfigError, match="r_max is 0"):
        rank_caps(base.sites, 0)
    with pytest.raises(ConfigError, match="at least 0"):
        RankVector((1, -1))


def test_export_never_overwrites(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("mine")
    site = {"a": Factors(np.ones((2, 1), np.float32), np.ones(1, np.float32), np.ones((1, 2), np.float32))}
    with pytest.raises(RunError, match="not empty"):
        export_peft(tmp_path / "full", site, {}, kind="text", base_model="m")
    assert [p.name for p in tmp_path.iterdir()] == ["full"]
