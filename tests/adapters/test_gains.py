"""Gains against differences of losses: each at its gate, and all of them against what the adapter is worth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from airtune.adapters import Adapter, RankVector
from airtune.adapters import gains as module
from airtune.adapters.gains import losses_worth, measure_gains
from airtune.models import BaseModel, Items, load_base, score
from tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return load_base(str(save_tiny_model(tmp_path_factory.mktemp("gains") / "llama", "llama")), "text", labels=0)


@pytest.fixture
def adapter(base: BaseModel):
    attached = Adapter(base, 3, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in attached.parameters().items():
            if name.endswith(".p"):
                value.copy_(0.3 * torch.randn(value.shape, generator=draw))
    yield attached
    attached.detach()


@pytest.fixture
def items() -> Items:
    rng = np.random.default_rng(0)
    return Items(tuple(rng.integers(4, 22, length) for length in (5, 9, 7, 4, 8)), None, pad_id=0)


def loss(adapter: Adapter, items: Items, ranks: tuple[int, ...]) -> float:
    adapter.set_ranks(RankVector(ranks))
    return score(adapter.base.model, items, keep_logits=0).loss


def test_all_gains_sum_to_what_the_adapter_lowers_the_loss_by(adapter, items, monkeypatch: pytest.MonkeyPatch):
    """Completeness (Sundararajan et al. 2017, proposition 1), here stretch by stretch; r_max 3 has 0-1, 1-2 and 2-3."""
    monkeypatch.setattr(module, "EVERY", 1)
    monkeypatch.setattr(module, "FIRST_POINTS", 40)
    monkeypatch.setattr(module, "POINTS", 40)
    sites = len(adapter.sites)
    gains = np.array(measure_gains(adapter, items, batch_size=2))
    losses = [loss(adapter, items, (rank,) * sites) for rank in range(4)]
    np.testing.assert_allclose(gains.sum(axis=0), -np.diff(losses), rtol=2e-3, atol=1e-6)


def test_a_gain_is_minus_the_slope_at_its_gate(adapter, items, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "EVERY", 1)
    monkeypatch.setattr(module, "FIRST_POINTS", 1)
    sites, weights = len(adapter.sites), {n: v.detach().clone() for n, v in adapter.parameters().items()}
    gains = measure_gains(adapter, items, batch_size=2)
    layers = [adapter.base.model.get_submodule(site.path) for site in adapter.sites]
    lams = [layer.lam for layer in layers]

    def at(gates: list[float]) -> float:
        with torch.no_grad():
            for layer, gate in zip(layers, gates, strict=True):
                layer.lam[0] = gate
        return loss(adapter, items, (1,) * sites)

    for site in (0, 3, sites - 1):
        up, down = ([0.5 + (step if other == site else 0) for other in range(sites)] for step in (0.02, -0.02))
        assert gains[site][0] == pytest.approx((at(down) - at(up)) / 0.04, rel=2e-2, abs=2e-5)
    with torch.no_grad():
        for lam in lams:
            lam[0] = 1.0
    assert all(torch.equal(value, weights[name]) for name, value in adapter.parameters().items())


def test_the_adapter_is_as_it_was_and_half_of_the_batches_are_looked_at(adapter, items, monkeypatch):
    before = {name: value.detach().clone() for name, value in adapter.parameters().items()}
    seen = []
    whole = module.item_outcomes
    monkeypatch.setattr(module, "item_outcomes", lambda model, batch: seen.append(batch) or whole(model, batch))
    gains = measure_gains(adapter, items, batch_size=1)
    assert all(torch.equal(value, before[name]) for name, value in adapter.parameters().items())
    assert adapter.ranks == adapter.caps
    assert [len(gain) for gain in gains] == list(adapter.caps.ranks)
    assert len(seen) == 3 * (3 + 1 + 1)  # three of five items, at 3 points of the first stretch and 1 of others
    assert losses_worth(adapter.caps) == 8  # 5 gradients, three losses' work each, on half of the items
