"""Trained baselines as cells: chosen on dev, trained once for each rank and seed, gone on with after a kill."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airtune.errors import ModelError
from airtune.methods.airllm.baselines.direct import train_lora
from airtune.methods.airllm.baselines.kept import kept, load_adapter
from airtune.methods.airllm.baselines.training import TrainedAdapter, score_adapter
from airtune.methods.airllm.building import parts_of
from airtune.methods.airllm.cells import KINDS, trained
from airtune.methods.airllm.cells.trained import ADAPTER, BASELINES, TOTAL, sweep_of, swept_file
from airtune.methods.airllm.config import config_from
from airtune.workloads.opening import open_reader

Settings = dict[str, Any]


def with_(settings: Settings, **groups: Mapping[str, object]) -> Settings:
    return {**settings, **{name: {**settings[name], **group} for name, group in groups.items()}}


def same(one: TrainedAdapter, other: TrainedAdapter) -> bool:
    parts = (
        (a, b, name)
        for a, b in zip(one.factors.values(), other.factors.values(), strict=True)
        for name in ("p", "lam", "q")
    )
    return list(one.factors) == list(other.factors) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for a, b, name in parts
    )


def use(monkeypatch: pytest.MonkeyPatch, train: Callable, alphas: list[float]) -> None:
    monkeypatch.setattr(
        trained, "BASELINES", {"lora": replace(BASELINES["lora"], train=train, alphas=lambda rank: alphas)}
    )


def test_the_sweep_chooses_on_dev_and_not_on_test(settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The low rate's adapter learns dev itself, the high rate's test itself: each is the best where it learned."""

    def train(base, parts, plan, rank, alpha):
        learned = parts.dev if plan.learning_rate < 2e-2 else parts.test
        plan = replace(plan, steps=60, learning_rate=2e-2)
        return train_lora(base, replace(parts, train=learned), plan, rank, alpha=alpha)

    use(monkeypatch, train, [4.0])
    outcome = KINDS["lora-sweep"].compute(settings, tmp_path / "work", {})
    found = {value.measure: value.value for value in outcome.values}
    assert found["learning_rate"] < 2e-2
    config = config_from(settings)
    base = (reader := open_reader(config)).base
    test = parts_of(config, reader).test
    losses = {}
    for rate in ("0.018", "0.036"):
        adapter = load_adapter(tmp_path / "work" / f"rate {rate}, alpha 4, seed 0.safetensors")
        losses[rate] = score_adapter(base, adapter.factors, adapter.dense, test).loss
    assert losses["0.036"] < losses["0.018"] - 0.05
    assert same(
        load_adapter(tmp_path / "work" / swept_file(0)),
        load_adapter(tmp_path / f"work/rate {found['learning_rate']:.6g}, alpha 4, seed 0.safetensors"),
    )


def test_a_setting_that_diverges_is_not_chosen(settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def train(base, parts, plan, rank, alpha):
        if alpha == 1:
            raise ModelError("the training loss is nan at step 0")
        return train_lora(base, parts, plan, rank, alpha=alpha)

    use(monkeypatch, train, [1.0, 2.0])
    outcome = KINDS["lora-sweep"].compute(settings, tmp_path / "work", {})
    assert [value.value for value in outcome.values if value.measure == "alpha"] == [2.0]
    assert {value.x for value in outcome.values if value.measure == "tried"} == {2.0}


def test_a_killed_sweep_goes_on_where_it_was(settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = KINDS["lora-sweep"].compute(settings, tmp_path / "whole", {})
    calls, alphas = [], list(BASELINES["lora"].alphas(2))
    assert alphas == pytest.approx([2 * 2**0.5, 2])  # rsLoRA's 2 / sqrt(r), and alpha / r of 1

    def killed(base, parts, plan, rank, alpha):
        calls.append((plan.learning_rate, alpha, plan.seed))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_lora(base, parts, plan, rank, alpha=alpha)

    use(monkeypatch, killed, alphas)
    with pytest.raises(KeyboardInterrupt):
        KINDS["lora-sweep"].compute(settings, tmp_path / "work", {})
    assert KINDS["lora-sweep"].compute(settings, tmp_path / "work", {}) == whole
    np.testing.assert_allclose(calls[:2], [(7.2e-2, alphas[0], 0), (14.4e-2, alphas[0], 0)], rtol=1e-9)
    tried = sum(value.measure == "tried" for value in whole.values)
    confirmed = sum(value.measure == "confirmed" for value in whole.values)
    assert (confirmed, {call[2] for call in calls}) == (4, {0, 1, 2})  # the best two, on two seeds more
    assert len(calls) == tried + confirmed + 1 > 8  # the third twice, all others once
    assert calls[2] == calls[3]
    assert len(set(calls)) == tried + confirmed


def test_rslora_of_alpha_2_is_lora_of_the_alpha_that_is_tried_for_it(settings):
    config = config_from(settings)
    reader = open_reader(config)
    plan, parts = trained.fit_plan(config, 32), parts_of(config, reader)
    rslora = train_lora(reader.base, parts, plan, 3, alpha=2, rslora=True)
    lora = train_lora(reader.base, parts, plan, 3, alpha=2 * 3**0.5)
    assert BASELINES["lora"].alphas(3) == pytest.approx([2 * 3**0.5, 3])
    assert BASELINES["lora"].alphas(4) == [4]
    assert lora.losses == pytest.approx(rslora.losses, rel=1e-6)


@pytest.mark.parametrize("seed", [0, 2])
def test_a_seed_of_the_sweep_takes_its_adapter_which_is_what_training_gives(settings, store, seed: int):
    of_seed = {**settings, "seed": seed}
    swept, done = store.done("lora-sweep", settings), store.done("lora", of_seed)
    chosen = {value.measure: value.value for value in swept.values}
    assert same(load_adapter(done.work / ADAPTER), load_adapter(swept.work / swept_file(seed)))
    config = config_from(of_seed)
    reader = open_reader(config)
    plan = replace(trained.fit_plan(config, 32), learning_rate=chosen["learning_rate"])
    again = train_lora(reader.base, parts_of(config, reader), plan, 2, alpha=chosen["alpha"])
    assert same(load_adapter(done.work / ADAPTER), again)
    (dev_loss,) = (value for value in done.values if value.measure == "dev_loss")
    at = f"rate {chosen['learning_rate']:.6g}" + (f", seed {seed}" if seed else "")
    told = [
        v.value for v in swept.values if (v.measure in ("tried", "confirmed"), v.x, v.at) == (True, chosen["alpha"], at)
    ]
    assert (dev_loss.x, [dev_loss.value]) == (2, told)


def test_another_seed_trains_anew_with_the_rate_and_alpha_of_the_sweep(settings, store):
    swept, done = store.done("lora-sweep", settings), store.done("lora", {**settings, "seed": 3})
    assert done.folder != store.done("lora", settings).folder
    assert not same(load_adapter(done.work / ADAPTER), load_adapter(swept.work / swept_file(0)))
    (losses,) = ([v.value for v in done.values if v.measure == "train_loss"],)
    assert losses == pytest.approx([np.mean(load_adapter(done.work / ADAPTER).losses)])  # six steps are one mean


def test_adalora_ends_at_the_total_of_the_same_rank_everywhere(settings, store):
    adapter = load_adapter(store.done("adalora", settings).work / ADAPTER)
    sites = len(open_reader(config_from(settings)).base.sites)
    assert adapter.ranks.total == 2 * sites
    assert load_adapter(store.done("lora", settings).work / ADAPTER).ranks.ranks == (2,) * sites


def test_another_size_takes_rate_and_scale_of_the_nearest_sweep(settings, store, monkeypatch: pytest.MonkeyPatch):
    """LoRA's scale is alpha / r; AdaLoRA's alpha / init_r, with init_r 3 at 28 directions on 14 sites and 2 at 10."""
    seen = {}

    def train(name: str):
        def trained(base, parts, plan, size: int, alpha: float) -> TrainedAdapter:
            seen[name] = plan.learning_rate, size, alpha
            return real[name].train(base, parts, plan, size, alpha)

        return trained

    real = dict(BASELINES)
    monkeypatch.setattr(trained, "BASELINES", {name: replace(it, train=train(name)) for name, it in real.items()})
    three = {**settings, "adapter": {**settings["adapter"], "max_rank": 3}}
    for name, its, size in (("lora", three, 3), ("adalora", {**settings, TOTAL: 10}, 10)):
        done = store.done(name, its)
        assert load_adapter(done.work / ADAPTER).ranks.total == (42 if name == "lora" else 10)
        swept = sweep_of(its, name)[f"{name}-sweep"]
        assert (swept["adapter"]["max_rank"], TOTAL in swept) == ((4 if name == "lora" else 2), False)
        chosen = {v.measure: v.value for v in store.done(f"{name}-sweep", swept).values}
        shrunk = 3 / 4 if name == "lora" else 2 / 3
        expected = pytest.approx((chosen["learning_rate"], size, chosen["alpha"] * shrunk))
        KINDS[name].compute(its, done.folder / "again", {f"{name}-sweep": store.done(f"{name}-sweep", swept)})
        assert seen[name] == expected


def test_a_damaged_file_is_trained_again(settings, store, tmp_path: Path):
    adapter = load_adapter(store.done("lora", settings).work / ADAPTER)
    (tmp_path / "a").write_bytes(b"nonsense")
    assert kept(tmp_path / "a", lambda: adapter) is adapter
    assert same(kept(tmp_path / "a", lambda: pytest.fail("it was there")), adapter)


@pytest.mark.parametrize("kind", ["lora", "adalora"])
def test_keys_hold_what_is_read_and_nothing_else(settings, store, kind: str):
    plain = store.key(kind, settings)
    for unread in (
        {"policy": {"cost_weight": 1.0, "width": 64, "measurements": 9}},
        {"link": {"deadline_s": 2.0, "snrs_db": (0.0,)}},
        {"codec": {"bits": 8}},
        {"adapter": {"full_share": 0.1, "uniform_share": 0.1, "orthogonality": 0.1, "draw_per": "item", "scale": 2.0}},
        {"adapter": {"learning_rate": 2e-2, "prefixes": 2}},
        {"task": {"test_items": 9}},
    ):
        assert store.key(kind, with_(settings, **unread)) == plain
    for read in (
        {"adapter": {"max_rank": 3}},
        {"adapter": {"steps": 7}},
        {"adapter": {"batch_size": 5}},
        {"adapter": {"clip_norm": 1.0}},
        {"task": {"dev_items": 9}},
        {"model": {"window": 15}},
    ):
        assert store.key(kind, with_(settings, **read)) != plain
    other = {**settings, "seed": 1}
    assert store.key(kind, other) != plain
    (sweep,), (of_other,) = KINDS[kind].also(settings).items(), KINDS[kind].also(other).items()
    assert sweep[0] == f"{kind}-sweep"
    assert store.key(*sweep) == store.key(*of_other)
    assert store.key("lora", settings) != store.key("adalora", settings)


def test_other_processes_find_the_kinds():
    for kind in KINDS.values():
        assert pickle.loads(pickle.dumps(kind)).name == kind.name
