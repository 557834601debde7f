"""Cores through training, payload and receiver: what is scored is what a receiver makes of the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import airtune
from airtune.adapters import check_update
from airtune.adapters.core_adapter import bases_of
from airtune.adapters.derived import core_name, derive, lift_cores, within
from airtune.adapters.receiver import Receiver, about
from airtune.codec import Curvature, Draft, Quantiser, decode
from airtune.errors import ConfigError, PayloadError
from airtune.methods.airllm.baselines.cores import train_cores
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.bits.cores import cores_of, in_format_2, on_grid
from airtune.methods.airllm.bits.grid import WIDTHS
from airtune.models import BaseModel, FitPlan, Items, load_base, weights_hash
from airtune.workloads.parts import Parts
from tiny_models import save_tiny_model

PLAN = FitPlan(6, batch_size=4, learning_rate=0.02)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return load_base(str(save_tiny_model(tmp_path_factory.mktemp("cores") / "llama", "llama")), "text", labels=0)


@pytest.fixture(scope="module")
def items() -> Items:
    rng = np.random.default_rng(0)
    return Items(tuple(rng.integers(4, 22, 8) for _ in range(16)), None, pad_id=0)


@pytest.fixture(scope="module")
def trained(base: BaseModel, items: Items) -> TrainedAdapter:
    return train_cores(base, Parts(items, items, items, items, ()), PLAN, 8, 2, alpha=2.0)


def test_training_moves_cores_alone(base: BaseModel, trained: TrainedAdapter):
    assert weights_hash(base.model, base.head) == base.sha256
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    bases = bases_of(base, 8)
    for path, update in trained.factors.items():
        assert update.rank == 2
        assert np.abs(update.update()).max() > 0
        again = bases[path].lift(bases[path].core(update)).update()
        np.testing.assert_allclose(again, update.update(), atol=1e-5)  # nothing outside the bases


def test_a_rank_below_1_is_refused(base: BaseModel, items: Items):
    with pytest.raises(ConfigError, match="rank of a core is 0"):
        train_cores(base, Parts(items, items, items, items, ()), PLAN, 8, 0, alpha=1.0)


def test_curvature_within_the_bases_is_that_of_the_lifted_change():
    """tr(G dW A dW^T) of dW = left R right, with A as a matrix and G as a diagonal."""
    rng = np.random.default_rng(0)
    bases = derive(rng.normal(size=(6, 5)), 3)
    half, gradients, core = rng.normal(size=(5, 5)), rng.exponential(size=6), rng.normal(size=(3, 3))
    change, inputs = bases.left @ core @ bases.right, half @ half.T
    found = within(bases, Curvature(inputs, gradients))
    expected = np.trace(np.diag(gradients) @ change @ inputs @ change.T)
    assert np.trace(found.outputs @ core @ found.inputs @ core.T) == pytest.approx(expected, rel=1e-5)
    nothing = within(bases, Curvature())
    assert nothing.inputs is nothing.outputs is None


def test_candidates_are_payloads_lifted(base: BaseModel, items: Items, trained: TrainedAdapter):
    numbers = 2 * (8 + 8) * len(trained.factors)
    budgets = [width * numbers for width in (2, 3, 4, 6)]
    cores = list(cores_of({(8, 2): trained}, base, items))
    found = [one.candidate for one in in_format_2(cores, base, items, [10**9, 7 * numbers, 120, *budgets[:3]])]
    bits = [candidate.bits for candidate in found]
    assert len(bits) == len(budgets)  # 120 bits hold no header; above 6 a number nobody gains, so all those are one
    assert all(0.85 * budget < size <= budget for size, budget in zip(bits, budgets, strict=True))
    errors = []
    for candidate in found:
        check_update(base, candidate.factors, candidate.dense)
        pairs = ((site.update(), trained.factors[path].update()) for path, site in candidate.factors.items())
        errors.append(sum(((mine - given) ** 2).sum() for mine, given in pairs))
    assert errors[-1] < 0.05 * errors[0]


def test_on_the_grid_a_core_costs_its_own_shape_and_lies_between_the_bases(base, items, trained):
    """At 32 bits it is what was trained; at 4 bits every row of the core has 16 values at most."""
    found = {one.name: one for one in on_grid(list(cores_of({(8, 2): trained}, base, items)))}
    assert list(found)[:2] == ["size 8, rank 2, 2 bits", "size 8, rank 2, 3 bits"]
    assert len(found) == 3 * len(WIDTHS) - 2  # float32 is calibrated as it is
    count = len(trained.factors)
    assert found["size 8, rank 2, 32 bits"].bits == count * 2 * (8 + 8) * 32
    assert found["size 8, rank 2, 4 bits"].bits == count * 2 * ((8 + 8) * 4 + 16)
    bases = bases_of(base, 8)
    for path, update in trained.factors.items():
        exact = found["size 8, rank 2, 32 bits"].factors[path].update()
        np.testing.assert_allclose(exact, update.update(), atol=1e-5)
        for how in ("", "calibrated, damping 0.1, ", "calibrated, damping 1, "):
            rounded = found[f"{how}size 8, rank 2, 2 bits"].factors[path]
            np.testing.assert_allclose(
                bases[path].lift(bases[path].core(rounded)).update(), rounded.update(), atol=1e-4
            )
            assert all(len(np.unique(row)) <= 4 for row in bases[path].core(rounded).p.T.round(5))


def coded(base: BaseModel, trained: TrainedAdapter, *, named: bool) -> Draft:
    bases = bases_of(base, 8)
    sites = {core_name(path, bases[path]): bases[path].core(update) for path, update in trained.factors.items()}
    return Draft(Quantiser(sites, {}, canonical=True).at(1e-7), *about(base), named=named)


def test_a_receiver_derives_the_name_of_the_static_part_and_the_update(base: BaseModel, trained: TrainedAdapter):
    sent = coded(base, trained, named=True)
    data = sent.encode([2] * len(base.sites)).data
    own = bases_of(base, 8)
    empty = {path: own[path].core(site.prefix(0)) for path, site in trained.factors.items()}
    mine = Draft(
        Quantiser({core_name(path, own[path]): core for path, core in empty.items()}, {}, canonical=True).at(1.0),
        *about(base),
    )
    assert set(mine.held) == set(sent.held)
    found = lift_cores(decode(data, about(base)[0], held=mine.held).factors, own)
    for path, update in found.items():
        np.testing.assert_allclose(update.update(), trained.factors[path].update(), atol=0.02)


def test_whoever_knows_no_cores_refuses_them(base: BaseModel, trained: TrainedAdapter, tmp_path: Path):
    """By name, by the sites of a payload that carries its static part, and on the way to a PEFT folder."""
    ranks = [2] * len(base.sites)
    with pytest.raises(PayloadError, match="names static part"):
        decode(coded(base, trained, named=True).encode(ranks).data, about(base)[0], held=Receiver(base).static_parts())
    data = coded(base, trained, named=False).encode(ranks).data
    with pytest.raises(PayloadError, match="sites differ from the model's"):
        check_update(base, decode(data, about(base)[0], held=Receiver(base).static_parts()).factors, {})
    (tmp_path / "cores.atn").write_bytes(data)
    with pytest.raises(PayloadError, match="derive those from its base model"):
        airtune.unpack(tmp_path / "cores.atn", tmp_path / "peft")
    assert not (tmp_path / "peft").exists()
