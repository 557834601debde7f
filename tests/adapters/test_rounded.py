"""Codes that are trained on: the forward pass against dense matrices, gradients and bits against closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from airtune.adapters import rounded
from airtune.adapters.core_adapter import bases_of
from airtune.adapters.derived import core_name
from airtune.adapters.rounded import RoundedAdapter, tune
from airtune.codec import Coded, CodedSite
from airtune.errors import ConfigError, PayloadError
from airtune.models import BaseModel, FitPlan, Items, load_base
from tiny_models import save_tiny_model


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return load_base(str(save_tiny_model(tmp_path, "llama")), "text")


def some_items() -> Items:
    draw = np.random.default_rng(1)
    return Items(tuple(draw.integers(0, 30, 12) for _ in range(16)), None, 0)


def some_codes(base: BaseModel, rank: int = 2) -> Coded:
    draw = np.random.default_rng(0)
    return Coded(
        {
            site.path: CodedSite.of(
                draw.integers(-3, 4, (rank, site.fan_out)).astype(np.int16),
                draw.integers(-3, 4, (rank, site.fan_in)).astype(np.int16),
                np.full(rank, -16, np.int16),  # 2^-4
            )
            for site in base.sites
        },
        {},
    )


def test_a_site_computes_what_its_rounded_numbers_say_and_gradients_pass_the_rounding(base: BaseModel):
    coded, site = some_codes(base), base.sites[0]
    bare = base.model.get_submodule(site.path)
    adapter = RoundedAdapter(base, coded)
    p, q = (adapter.parameters()[f"{site.path}.{name}"] for name in ("p", "q"))
    with torch.no_grad():
        p += 0.3
        q -= 0.4
    x = torch.randn(5, site.fan_in, generator=torch.Generator().manual_seed(0))
    y = base.model.get_submodule(site.path)(x)
    whole = coded.sites[site.path]
    update = 2.0**-4 * whole.p.astype(np.float64) @ whole.q  # 0.3 and -0.4 round to nothing
    expected = bare(x).detach().numpy() + x.numpy() @ update.T
    assert np.allclose(y.detach().numpy(), expected, atol=1e-5)

    p.requires_grad_(True), q.requires_grad_(True)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (base.model.get_submodule(site.path)(x) * weights).sum().backward()
    through = x.numpy() @ whole.q.T * 2.0**-4  # of rounded numbers, not of those beneath
    assert np.allclose(p.grad.numpy(), through.T @ weights.numpy(), atol=1e-4)
    back = weights.numpy() @ whole.p * 2.0**-4
    assert np.allclose(q.grad.numpy(), back.T @ x.numpy(), atol=1e-4)


def test_scales_move_by_quarters_of_an_octave_and_their_gradient_passes(base: BaseModel):
    coded, site = some_codes(base), base.sites[0]
    bare = base.model.get_submodule(site.path)
    adapter = RoundedAdapter(base, coded)
    octaves = adapter.parameters()[f"{site.path}.lam"]
    with torch.no_grad():
        octaves += torch.tensor([0.3, -0.11])  # 1.2 quarters round to 1, 0.44 to 0
    octaves.requires_grad_(True)
    x = torch.randn(5, site.fan_in, generator=torch.Generator().manual_seed(0))
    y = base.model.get_submodule(site.path)(x)
    whole = coded.sites[site.path]
    each = [np.outer(whole.p[:, at], whole.q[at]) * 2.0**-4 for at in range(2)]
    expected = bare(x).detach().numpy() + x.numpy() @ (2**0.25 * each[0] + each[1]).T
    assert np.allclose(y.detach().numpy(), expected, atol=1e-5)
    y.sum().backward()
    slopes = [math.log(2) * (x.numpy() @ one.T).sum() for one in (2**0.25 * each[0], each[1])]
    assert np.allclose(octaves.grad.numpy(), slopes, rtol=1e-4)
    assert adapter.coded().sites[site.path].scales.tolist() == [-15, -16]


def test_a_core_computes_between_its_bases_and_comes_back_as_codes(base: BaseModel):
    bases, draw = bases_of(base, 4), np.random.default_rng(0)
    cores = {
        core_name(site.path, bases[site.path]): CodedSite.of(
            draw.integers(-3, 4, (2, 4)).astype(np.int16),
            draw.integers(-3, 4, (2, 4)).astype(np.int16),
            np.full(2, -16, np.int16),
        )
        for site in base.sites
    }
    site = base.sites[0]
    bare, own = base.model.get_submodule(site.path), bases[site.path]
    adapter = RoundedAdapter(base, Coded(cores, {}), bases)
    assert adapter.parameters()[f"{site.path}.p"].shape == (2, 4)
    with torch.no_grad():
        adapter.parameters()[f"{site.path}.p"] += 1.3
    x = torch.randn(5, site.fan_in, generator=torch.Generator().manual_seed(0))
    whole = cores[core_name(site.path, own)]
    update = own.left @ ((whole.p + 1.0) @ whole.q) @ own.right * 2.0**-4
    expected = bare(x).detach().numpy() + x.numpy() @ update.T
    assert np.allclose(base.model.get_submodule(site.path)(x).detach().numpy(), expected, atol=1e-4)
    found = adapter.coded().sites
    assert list(found) == list(cores)
    assert np.array_equal(found[core_name(site.path, own)].p, whole.p + 1)
    assert np.array_equal(found[core_name(site.path, own)].q, whole.q)
    adapter.detach()
    with pytest.raises(PayloadError, match="no bases are at hand"):
        RoundedAdapter(base, Coded(cores, {}))


def test_sparse_codes_move_more_slowly_than_dense_ones(base: BaseModel):
    """An update of a unit is one of the codes' root mean square: here a tenth of them is 1, the others 0."""
    coded, path = some_codes(base, 1), base.sites[0].path
    p = np.zeros((1, base.sites[0].fan_out), np.int16)
    p[0, 0] = 1
    coded.sites[path] = CodedSite.of(p, coded.sites[path].q.astype(np.int16), np.full(1, -16, np.int16))
    adapter = RoundedAdapter(base, coded)
    before = adapter.coded().sites[path]
    with torch.no_grad():
        for name in ("p", "q"):
            adapter.parameters()[f"{path}.{name}"] += 1.0
    found, unit = adapter.coded().sites[path], (1 / p.size) ** 0.5
    assert np.array_equal(found.p[:, 0], np.round(p[0] + unit))
    assert np.array_equal(found.q, before.q + 1)


def test_every_direction_moves_by_its_own_root_mean_square(base: BaseModel):
    coded, site = some_codes(base), base.sites[0]
    sparse = coded.sites[site.path].p.astype(np.int16)
    sparse[:, 1] = 0
    sparse[:2, 1] = 1
    coded.sites[site.path] = CodedSite.of(sparse.T, coded.sites[site.path].q, coded.sites[site.path].scales)
    adapter = RoundedAdapter(base, coded)
    with torch.no_grad():
        adapter.parameters()[f"{site.path}.p"] += 1.6
    found = adapter.coded().sites[site.path].p
    assert np.array_equal(found[:, 0], np.round(sparse[:, 0] + 1.6))
    assert np.array_equal(found[:, 1], np.round(sparse[:, 1] + 1.6 * (2 / site.fan_out) ** 0.5))


def test_codes_keep_to_the_bits_they_had(base: BaseModel, monkeypatch: pytest.MonkeyPatch):
    """The same steps take more bits where outgrowing them costs nothing."""
    coded, items = some_codes(base), some_items()
    for path, site in coded.sites.items():  # mostly zeros
        coded.sites[path] = CodedSite.of((site.p.T == 2) * np.int16(1), (site.q == 2) * np.int16(1), site.scales)
    plan = FitPlan(steps=100, batch_size=4)
    taken = []
    for steep in (0.0, rounded.STEEP):
        monkeypatch.setattr(rounded, "STEEP", steep)
        found = tune(base, coded, items, plan, rng=np.random.default_rng(0))
        adapter = RoundedAdapter(base, found)
        taken.append(float(adapter.bits()))
        adapter.detach()
    adapter = RoundedAdapter(base, coded)
    assert taken[1] < float(adapter.bits()) < taken[0]


def test_what_it_gives_back_is_rounded_and_under_the_tables_that_suit(base: BaseModel):
    coded, path = some_codes(base), base.sites[1].path
    adapter = RoundedAdapter(base, coded)
    with torch.no_grad():
        parameters = adapter.parameters()
        parameters[f"{path}.p"].mul_(40).add_(0.4)
        parameters[f"{path}.q"][1] = 0.2  # a vector of nothing
    found = adapter.coded().sites[path]
    before = coded.sites[path]
    assert np.array_equal(found.p[:, 0], 40 * before.p[:, 0])
    assert found.p_tables[0] > before.p_tables[0]
    assert found.q_tables[0] == before.q_tables[0]
    assert not found.p[:, 1].any()  # the whole direction is nothing
    assert not found.q[1].any()
    others = [site for site in coded.sites if site != path]
    assert all(np.array_equal(adapter.coded().sites[site].p, coded.sites[site].p) for site in others)


def test_bits_are_those_of_gaussians(base: BaseModel):
    coded = some_codes(base)
    shorter = {path: site.first(1 + at % 2) for at, (path, site) in enumerate(coded.sites.items())}
    coded = Coded(shorter, {})
    expected = 0.0
    for site in coded.sites.values():
        for vector in (*site.p.T, *site.q):
            spread = np.sqrt(np.mean(vector.astype(float) ** 2) + 1 / 12)
            expected += len(vector) * norm(scale=spread).entropy() / np.log(2)
    assert float(RoundedAdapter(base, coded).bits()) == pytest.approx(expected, rel=1e-5)


def test_detached_the_model_is_as_it_was(base: BaseModel):
    before = dict(base.model.named_modules())
    RoundedAdapter(base, some_codes(base)).detach()
    assert dict(base.model.named_modules()) == before


def test_no_directions_and_another_model_are_refused(base: BaseModel):
    with pytest.raises(ConfigError, match="no directions"):
        RoundedAdapter(base, some_codes(base, rank=0))
    fewer = some_codes(base)
    modules = dict(base.model.named_modules())
    with pytest.raises(PayloadError, match="sites differ"):
        RoundedAdapter(base, Coded(dict(list(fewer.sites.items())[1:]), {}))
    assert dict(base.model.named_modules()) == modules
