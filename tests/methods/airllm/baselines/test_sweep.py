"""The search for learning rate and alpha: which settings are tried, in which order, and which one is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from baseline_material import PLAN, tiny

from airtune.errors import ConfigError, ModelError
from airtune.methods.airllm.baselines import sweep as module
from airtune.methods.airllm.baselines.direct import train_lora
from airtune.methods.airllm.baselines.sweep import FARTHEST, Sweep, Tried, steadiest, sweep
from airtune.methods.airllm.baselines.training import TrainedAdapter, score_adapter
from airtune.models import FitPlan

RATE = 0.5


def searched(monkeypatch: pytest.MonkeyPatch, loss: Callable[[float, float], float], alphas: list[float]) -> Sweep:
    """A sweep whose trainings do nothing and whose dev loss is given by doubles of the first rate and alpha."""

    def trained(plan: FitPlan, alpha: float) -> TrainedAdapter:
        found = loss(math.log2(plan.learning_rate / RATE), alpha)
        if found == math.inf:
            raise ModelError("the training loss is nan at step 3")
        return TrainedAdapter({}, {"loss": np.array(found)}, ())

    def scored(base, factors, dense, items, *, keep_logits=None):
        return SimpleNamespace(loss=float(dense["loss"]))

    monkeypatch.setattr(module, "score_adapter", scored)
    return sweep(None, None, PLAN, trained, rate=RATE, alphas=alphas)  # type: ignore[arg-type]


def order(found: Sweep) -> list[tuple[float, float]]:
    return [(math.log2(one.learning_rate / RATE), one.alpha) for one in found.tried]


def test_the_rate_is_doubled_until_it_is_worse_and_then_other_alphas_are_tried(monkeypatch):
    found = searched(monkeypatch, lambda doubles, alpha: (doubles - 1) ** 2 + alpha, [1.0, 2.0])
    assert order(found) == [(0, 1), (1, 1), (2, 1), (1, 2)]
    assert found.chosen == Tried(2 * RATE, 1.0, 1.0)
    assert float(found.best.dense["loss"]) == 1.0


def test_a_better_alpha_has_the_rates_beside_it_tried_too(monkeypatch):
    """Least at two halves where alpha is 2, at no double where it is 1."""
    found = searched(monkeypatch, lambda doubles, a: abs(doubles + 2 * (a - 1)) + 3 * (2 - a), [1.0, 2.0])
    assert order(found) == [(0, 1), (1, 1), (-1, 1), (0, 2), (1, 2), (-1, 2), (-2, 2), (-3, 2), (-2, 1)]
    assert found.chosen == Tried(RATE / 4, 2.0, 0.0)


def test_where_trainings_break_the_rate_is_halved_until_one_does_not(monkeypatch):
    found = searched(monkeypatch, lambda doubles, alpha: math.inf if doubles > -2 else -doubles, [1.0])
    assert order(found) == [(0, 1), (1, 1), (-1, 1), (-2, 1), (-3, 1)]
    assert found.chosen == Tried(RATE / 4, 1.0, 2.0)
    assert [one.failure != "" for one in found.tried] == [True, True, True, False, False]
    assert found.tried[0].dev_loss == math.inf


def test_the_search_ends(monkeypatch):
    found = searched(monkeypatch, lambda doubles, alpha: -doubles, [1.0])
    assert order(found) == [(doubles, 1) for doubles in range(FARTHEST + 1)]
    assert found.chosen.learning_rate == RATE * 2**FARTHEST


def test_nothing_finite_or_nothing_to_try_is_refused(monkeypatch):
    with pytest.raises(
        ModelError, match=r"none of 7 settings gave a finite loss \(the training loss is nan at step 3\)"
    ):
        searched(monkeypatch, lambda doubles, alpha: math.inf, [1.0, 2.0])
    with pytest.raises(ModelError, match=r"none of 6 settings .*\(nan on dev\)"):
        searched(monkeypatch, lambda doubles, alpha: math.nan, [1.0])
    with pytest.raises(ConfigError, match="0 alphas"):
        searched(monkeypatch, lambda doubles, alpha: 1.0, [])


@pytest.mark.parametrize(
    ("losses", "winner"),
    [  # by rate: dev loss on seeds 0, 1 and 2; a third rate, never confirmed, is the worst on seed 0
        ({2.0: (0.30, 0.90, 0.31), 1.0: (0.33, 0.34, 0.33)}, 1.0),
        ({2.0: (0.30, 0.33, 0.33), 1.0: (0.32, 0.33, 0.32)}, 2.0),
        ({2.0: (0.30, 0.30, math.inf), 1.0: (0.40, 0.40, 0.40)}, 1.0),
        ({2.0: (0.30, 0.30, math.inf), 1.0: (0.40, math.inf, math.inf)}, 1.0),
    ],
)
def test_other_seeds_have_a_say_on_the_best_two(monkeypatch, losses: dict[float, tuple[float, ...]], winner: float):
    asked = []

    def trained(plan: FitPlan, alpha: float) -> TrainedAdapter:
        asked.append((plan.learning_rate, plan.seed))
        if (found := losses[plan.learning_rate][plan.seed]) == math.inf:
            raise ModelError("the training loss is nan at step 3")
        return TrainedAdapter({}, {"loss": np.array(found)}, ())

    monkeypatch.setattr(module, "score_adapter", lambda b, f, dense, i, **k: SimpleNamespace(loss=float(dense["loss"])))
    tried = (Tried(4.0, 8.0, 0.5), *(Tried(rate, 8.0, row[0]) for rate, row in losses.items()), Tried(8, 8, math.inf))
    found = Sweep(TrainedAdapter({}, {}, ()), tried[1], tried)
    chosen, by_seed = steadiest(None, None, replace(PLAN, seed=0), trained, found)  # type: ignore[arg-type]
    assert chosen == Tried(winner, 8.0, losses[winner][0])
    assert sorted(asked) == [(1.0, 1), (1.0, 2), (2.0, 1), (2.0, 2)]
    assert {seed: row[0].dev_loss for seed, row in by_seed.items()} == dict(enumerate(losses[winner]))
    assert {seed: row[1].dev_loss for seed, row in by_seed.items()} == dict(enumerate(losses[3 - winner]))


def test_losses_are_those_of_the_trained_adapters_on_dev_and_the_least_is_kept(tmp_path):
    base, parts = tiny(tmp_path, "opt")
    found = sweep(
        base,
        parts.dev,
        PLAN,
        lambda plan, alpha: train_lora(base, parts, plan, 2, alpha=alpha),
        rate=2e-2,
        alphas=[4.0, 1e30],
    )
    broken = [tried for tried in found.tried if tried.alpha == 1e30]
    assert len(broken) == 1
    assert "at step" in broken[0].failure
    for tried in found.tried[:2]:
        again = train_lora(base, parts, replace(PLAN, learning_rate=tried.learning_rate), 2, alpha=4.0)
        assert score_adapter(base, again.factors, again.dense, parts.dev).loss == tried.dev_loss
    assert found.chosen.dev_loss == min(tried.dev_loss for tried in found.tried) < np.inf
    assert score_adapter(base, found.best.factors, found.best.dense, parts.dev).loss == found.chosen.dev_loss
