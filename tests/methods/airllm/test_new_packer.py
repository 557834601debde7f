"""Of the ways to round the trained adapter, the one of least calibration loss; its measurements are booked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from airtune.adapters import Adapter, RankVector
from airtune.codec import DAMPINGS
from airtune.errors import ModelError
from airtune.methods.airllm import building
from airtune.methods.airllm.allocation import Trial
from airtune.methods.airllm.config import load_config
from airtune.methods.airllm.trainee import Trainee
from airtune.models import Items, load_base
from airtune.records import Measurements
from airtune.workloads.parts import Parts
from tiny_models import save_tiny_model


@pytest.fixture
def trainee(tmp_path: Path) -> Trainee:
    """As trained: every site at rank 3, drawn."""
    base, draw = load_base(str(save_tiny_model(tmp_path / "base", "llama")), "text"), np.random.default_rng(0)
    adapter = Adapter(base, 3, generator=torch.Generator().manual_seed(1))

    def items(count: int) -> Items:
        return Items(tuple(draw.integers(0, 30, 12) for _ in range(count)), None, 0)

    parts = Parts(train=items(4), calibration=items(12), dev=items(4), test=items(4), complexities=())
    trainee = Trainee(adapter, parts, Measurements(tmp_path / "measurements.jsonl"))
    drawn = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in adapter.layers:
            layer.p.normal_(std=0.3, generator=drawn)
    trainee.hold(adapter.factors(), adapter.dense())
    return trainee


def losses_by_damping(trainee: Trainee, monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> list[Trial]:
    """Let the trials come out so, in the order of `DAMPINGS`; a loss of NaN is refused, as the trainee does."""
    answers, asked = iter(losses), list[Trial]()

    def try_ranks(self: Trainee, ranks: RankVector) -> Trial:
        if np.isnan(loss := next(answers)):
            raise ModelError("the calibration loss is nan")
        asked.append(Trial(ranks, loss))
        return asked[-1]

    monkeypatch.setattr(Trainee, "try_ranks", try_ranks)
    return asked


@pytest.mark.parametrize(("losses", "best"), [([2.0, 1.0], 1), ([1.0, 2.0], 0), ([float("nan"), 3.0], 1)])
def test_the_damping_of_least_loss_is_packed(trainee: Trainee, monkeypatch, losses: list[float], best: int):
    made = []
    coded = building.coded_packer
    monkeypatch.setattr(building, "coded_packer", lambda *args: made.append(coded(*args)) or made[-1])
    losses_by_damping(trainee, monkeypatch, losses)
    packer = building.new_packer(load_config("default", {"codec.bits": 3.0}), trainee)
    assert len(made) == len(DAMPINGS)
    assert packer is made[best].packer
    ranks = RankVector(tuple(site.rank for site in trainee.factors.values()))
    for name, site in packer.decode(packer.encode(ranks)).factors.items():
        np.testing.assert_allclose(trainee.factors[name].update(), site.update(), atol=1e-6)


def test_its_losses_are_booked_and_not_measured_again(trainee: Trainee):
    building.new_packer(load_config("default", {"codec.bits": 3.0}), trainee)
    assert trainee.measured == len(DAMPINGS)
    trainee.try_ranks(RankVector(tuple(site.rank for site in trainee.factors.values())))
    assert trainee.measured == len(DAMPINGS)
