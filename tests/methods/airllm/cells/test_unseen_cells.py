"""A policy while it learns and where it never was: against cells of the same adapters, and decisions one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from airtune.methods.airllm.cells.opening import opened
from airtune.methods.airllm.cells.unseen import STATES, another_adapter, practice, trained
from airtune.records.cells import Done

SNRS = (8.0, 12.0, 15.0)
SMALL = {"rounds": 2, "env_steps": 16, "updates": 2, "warm_start_updates": 2, "sample_steps": 3}


@pytest.fixture(scope="module")
def small(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "policy": {**settings["policy"], **SMALL}}


def values(done: Done, measure: str, of: str = "") -> dict[float | None, float]:
    return {v.x: v.value for v in done.values if (v.measure, v.of, v.at) == (measure, of, "")}


def ranks(done: Done, of: str, x: float) -> list[float]:
    return [v.value for v in done.values if (v.measure, v.of, v.x) == ("rank", of, x)]


def test_a_curve_is_of_the_same_states_after_every_round(small, store, tmp_path):
    """PPO alone acts without noise, so its decisions can be asked one by one."""
    alone = {**small, "policy": {**small["policy"], "refiner": "none"}}
    done = store.done("curve", alone)
    curve = values(done, "reward_still")
    assert list(curve) == [16, 32]
    with opened(alone, tmp_path / "work", store.done("adapter", alone)) as found:
        _ = found.greedy
        env, rewards = practice(found), []
        policy = trained(found)
        for index in range(STATES):
            env.reset(seed=None if index else found.config.seed)
            rewards.append(env.execute(policy.decide(env.state, env.budget_bits)).reward)
    assert curve[32] == pytest.approx(np.mean(rewards))
    assert values(done, "floor_still")[None] < 0


def test_between_the_snrs_the_table_gives_the_lower_one_s_ranks(small, store):
    done, rivals = store.done("unseen", small), store.done("rivals", small)
    assert list(values(done, "loss", "policy")) == [10.0, 13.5]
    for below, between in ((8.0, 10.0), (12.0, 13.5)):
        known = store.done("search", small)
        assert values(known, "loss", "lookup")[below] == pytest.approx(values(rivals, "loss", "greedy")[below])
        assert values(done, "loss", "lookup")[between] == pytest.approx(values(known, "loss", "lookup")[below])
    assert {v.of for v in done.values} == {
        "policy",
        "lookup",
        "lookup-above",
        "random-search",
        "uniform",
        "proposal",
        "greedy",
    }


def test_each_adapter_is_another_one_once(small):
    following = [another_adapter({**small, "seed": seed})["adapter other"]["seed"] for seed in range(10)]
    assert following == [1, 2, 3, 4, 0, 6, 7, 8, 9, 5]


def test_on_another_adapter_those_who_know_none_do_as_they_do_there(small, store):
    done, there = store.done("unseen", small), store.done("rivals", {**small, "seed": small["seed"] + 1})
    for of in ("uniform", "greedy"):
        assert values(done, "loss_other", of) == pytest.approx(values(there, "loss", of))
    assert set(values(done, "loss_other", "policy")) == set(SNRS)
    for of in ("policy", "lookup", "random-search"):
        for snr_db, loss in values(done, "loss_other", of).items():
            assert loss == pytest.approx(float(done.items[f"loss_other/{of}/{snr_db:g}"].mean()), rel=1e-6)
