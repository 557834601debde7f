"""AirLLM's cells on a tiny model: against a run of the same settings, and arithmetic on their own inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from airtune.errors import ConfigError
from airtune.methods.airllm.building import edge_role
from airtune.methods.airllm.cells import KINDS, times, timing
from airtune.methods.airllm.cells import policy as policy_cell
from airtune.methods.airllm.config import config_from, load_config
from airtune.methods.airllm.method import run
from airtune.records import RunFolder, Silent
from airtune.records.cells import CellStore, Done, Value
from airtune.transport import Loopback
from airtune.workloads import content as named
from airtune.workloads.content import content
from tiny_models import WORDS, save_tiny_model

SMALL = {
    "policy.rounds": 1,
    "policy.env_steps": 16,
    "policy.updates": 2,
    "policy.warm_start_updates": 2,
    "policy.sample_steps": 3,
    "adapter.steps": 3,
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("study")
    draw = np.random.default_rng(0)
    (folder / "prose.txt").write_text(" ".join(draw.choice(WORDS[4:], 4000)))
    model = save_tiny_model(folder / "llama", "llama")
    named = {"model.name": str(model), "task.name": "text", "task.data": str(folder / "prose.txt"), "model.window": 16}
    return load_config("tiny", {**named, **SMALL}).as_dict()


@pytest.fixture(scope="module")
def cells(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """One cell of each kind but `times`, computed in this process, each from the store as a worker would."""
    store, keys = CellStore(tmp_path_factory.mktemp("cells")), {}
    for name in ("adapter", "policy", "rows", "rivals", "search", "regret"):
        kind = KINDS[name]
        needed = {other: keys[other] for other in kind.needs}
        keys[name] = kind.key(settings, needed)
        work = store.folder(name, keys[name]) / "work"
        outcome = kind.compute(settings, work, {other: store.read(other, key) for other, key in needed.items()})
        store.write(kind, keys[name], settings, outcome, 1.0)
    return {name: store.read(name, key) for name, key in keys.items()}  # no later cell changed an earlier one's files


def values(done: Done, measure: str, of: str = "", at: str = "") -> dict[float | None, float]:
    return {v.x: v.value for v in done.values if (v.measure, v.of, v.at) == (measure, of, at)}


def test_the_adapter_cell_leaves_what_others_need(cells: Mapping[str, Done]):
    files = sorted(path.name for path in cells["adapter"].work.iterdir())
    assert files == ["checkpoint.safetensors", "measurements.jsonl"]
    assert values(cells["adapter"], "dev_loss").keys() == {0, 1, 2, 3, 4}
    assert values(cells["adapter"], "measurements") == {None: 10}


def test_cells_say_what_a_run_of_the_same_settings_says(cells, settings, tmp_path: Path):
    config = config_from(settings)
    with RunFolder.create(tmp_path / "run", config.as_dict()) as folder:
        rows = run(config, folder, Loopback(edge_role(config)), Silent())["rows"]
    for of, kind in {"airllm": "rows", "uniform": "rivals", "random": "rivals", "greedy": "rivals"}.items():
        name = "policy" if of == "airllm" else of
        for row in (row for row in rows if row["allocator"] == of):
            for measure in ("loss", "loss_calibration", "reward"):
                assert values(cells[kind], measure, name)[row["snr_db"]] == pytest.approx(row[measure], rel=1e-6)
        ranked = cells["policy"].values if of == "airllm" else cells[kind].values
        for row in (row for row in rows if row["allocator"] == of):
            ranks = [v.value for v in ranked if v.measure == "rank" and v.x == row["snr_db"] and v.of in ("", of)]
            assert ranks == row["ranks"]


def test_the_policy_cell_decides_once_per_site_and_snr(cells: Mapping[str, Done], settings: dict[str, Any]):
    ranks = [v for v in cells["policy"].values if v.measure == "rank"]
    assert {v.x for v in ranks} == {-5.0, 15.0}
    sites = {v.at for v in ranks}
    assert len(ranks) == 2 * len(sites)
    assert {v.value for v in ranks} <= set(range(5))
    assert len(values(cells["policy"], "reward_curve")) == 1


def test_inputs_that_are_the_same_in_all_states_do_nothing_when_shuffled(cells: Mapping[str, Done]):
    for name in ("W", "ranks"):
        assert values(cells["policy"], "state_ranks", at=name) == {None: 0.0}
        assert values(cells["policy"], "state_reward", at=name) == {None: 0.0}
    assert values(cells["policy"], "state_ranks", at="SNR").keys() == {None}


def test_a_policy_trains_on_every_multiple_of_the_bandwidth(cells, settings, monkeypatch, tmp_path: Path):
    """Under one W shuffling it does nothing (above); the environment that is learned on has every multiple."""
    seen = []

    def stop(session: object, env: Any, latent: object, greedy: object) -> None:
        seen.extend(env.reset(seed=seed) and env.state.channel.bandwidth_hz for seed in range(40))
        raise KeyboardInterrupt

    monkeypatch.setattr(policy_cell, "learn_policy", stop)
    wider = {**settings, "policy": {**settings["policy"], "bandwidth_factors": [1.0, 4.0]}}
    with pytest.raises(KeyboardInterrupt):
        KINDS["policy"].compute(wider, tmp_path / "cell" / "work", {"adapter": cells["adapter"]})
    bandwidth_hz = values(cells["adapter"], "bandwidth_hz")[None]
    assert sorted(set(seen)) == pytest.approx([bandwidth_hz, 4 * bandwidth_hz])


@pytest.mark.parametrize("of", ["uniform", "random", "greedy", "policy"])
def test_rows_are_means_of_their_items_and_rewards_are_eq_10(cells, settings, of: str):
    done = cells["rows" if of == "policy" else "rivals"]
    weight, deadline_s = settings["policy"]["cost_weight"], settings["link"]["deadline_s"]
    for snr_db in (-5.0, 15.0):
        loss = values(done, "loss", of)[snr_db]
        assert loss == pytest.approx(float(done.items[Value("loss", 0, snr_db, of).item_name].mean()), rel=1e-6)
        assert values(done, "score", of)[snr_db] == pytest.approx(np.exp(loss))
        eta = values(done, "airtime_s", of)[snr_db] / deadline_s
        assert eta <= 1
        expected = -values(done, "loss_calibration", of)[snr_db] - weight * eta
        assert values(done, "reward", of)[snr_db] == pytest.approx(expected)


def made(measures: Mapping[str, Mapping[str, tuple[float, float]]]) -> Done:
    """A cell by measure and allocator: its values at -5 and at 15 dB."""
    found = []
    for name, by in measures.items():
        for of, (low, high) in by.items():
            found += [Value(name, low, -5.0, of), Value(name, high, 15.0, of)]
    return Done(Path(), tuple(found), 1.0)


def test_regret_is_the_distance_from_the_least_objective_on_calibration():
    """At -5 dB J is least for the search (2.25), though on test it is the policy's; at 15 dB for the policy (1.5)."""
    rows = {"reward": {"policy": (-3.0, -1.5)}, "reward_test": {"policy": (-2.5, -2.0)}, "loss": {"policy": (0.0, 0.0)}}
    rivals = {
        "reward": {"uniform": (-2.5, -1.75), "greedy": (-2.75, -1.625)},
        "reward_test": {"uniform": (-3.5, -2.0), "greedy": (-3.25, -1.5)},
    }
    search = {"reward": {"search": (-2.25, -2.5)}, "reward_test": {"search": (-3.0, -3.0)}}
    needs = {"rows": made(rows), "rivals": made(rivals), "search": made(search)}
    outcome = KINDS["regret"].compute({}, Path(), needs)
    assert {(v.measure, v.of, v.x): v.value for v in outcome.values} == {
        ("regret", "policy", -5.0): 0.75,
        ("regret", "uniform", -5.0): 0.25,
        ("regret", "greedy", -5.0): 0.5,
        ("regret", "search", -5.0): 0.0,
        ("regret_test", "policy", -5.0): -0.5,
        ("regret_test", "uniform", -5.0): 0.5,
        ("regret_test", "greedy", -5.0): 0.25,
        ("regret_test", "search", -5.0): 0.0,
        ("regret", "policy", 15.0): 0.0,
        ("regret", "uniform", 15.0): 0.25,
        ("regret", "greedy", 15.0): 0.125,
        ("regret", "search", 15.0): 1.0,
        ("regret_test", "policy", 15.0): 0.0,
        ("regret_test", "uniform", 15.0): 0.0,
        ("regret_test", "greedy", 15.0): -0.5,
        ("regret_test", "search", 15.0): 1.0,
    }


def test_the_regret_cell_compares_everybody_at_every_snr(cells: Mapping[str, Done]):
    for snr_db in (-5.0, 15.0):
        regret = {v.of: v.value for v in cells["regret"].values if (v.measure, v.x) == ("regret", snr_db)}
        everybody = {"policy", "uniform", "random", "greedy", "forward", "lookup", "random-search", "search"}
        assert regret.keys() == everybody
        assert min(regret.values()) == 0


def test_an_interrupted_cell_goes_on_under_other_settings_of_the_same_key(settings, tmp_path: Path):
    """Two studies that share an adapter may differ in the policy; either may finish what the other began."""
    kind, work = KINDS["adapter"], tmp_path / "work"
    other = {**settings, "policy": {**settings["policy"], "width": 64}}
    assert kind.key(settings, {}) == kind.key(other, {})
    kind.compute(settings, work, {})
    again = kind.compute(other, work, {})
    assert {v.measure for v in again.values} >= {"dev_loss", "train_loss"}
    assert RunFolder.open(work).config == {"cell": tmp_path.name}


def test_what_lies_in_a_work_folder_without_settings_is_computed_anew(cells, settings, tmp_path: Path):
    work = tmp_path / "work"
    work.mkdir()
    for name in ("checkpoint.safetensors", "measurements.jsonl"):
        (work / name).write_bytes(b"left behind")
    outcome = KINDS["adapter"].compute(settings, work, {})
    assert {v.x: v.value for v in outcome.values if v.measure == "dev_loss"} == values(cells["adapter"], "dev_loss")


def test_keys_follow_content_not_paths(settings, tmp_path: Path):
    moved = tmp_path / "moved.txt"
    moved.write_bytes(Path(settings["task"]["data"]).read_bytes())
    kind = KINDS["adapter"]
    elsewhere = {**settings, "task": {**settings["task"], "data": str(moved)}}
    assert kind.key(elsewhere, {}) == kind.key(settings, {})
    moved.write_text("other words")
    os.utime(moved, ns=(1, 1))
    assert kind.key(elsewhere, {}) != kind.key(settings, {})
    assert content("minilm") == "minilm"


def test_a_trace_counts_by_content_and_only_where_it_fades(settings, tmp_path: Path):
    def key(trace: Path, fading: str) -> str:
        link = {**settings["link"], "fading": fading, "trace": str(trace)}
        return KINDS["adapter"].key({**settings, "link": link}, {})

    first, same, other = (tmp_path / f"{n}.csv" for n in range(3))
    for path, snr_db in ((first, 3), (same, 3), (other, 4)):
        path.write_text(f"SNR\n{snr_db}\n")
    assert key(first, "trace") == key(same, "trace") != key(other, "trace")
    assert key(first, "still") == key(other, "still")


@pytest.mark.parametrize("package", ["torch", "numpy", "peft"])
def test_another_version_of_what_computes_is_another_adapter(settings, package: str, monkeypatch: pytest.MonkeyPatch):
    before = KINDS["adapter"].key(settings, {})
    monkeypatch.setattr(named, "version", lambda name: "0.0" if name == package else version(name))
    assert KINDS["adapter"].key(settings, {}) != before


def test_the_embedded_model_counts_by_its_weights(settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def key(weights: bytes) -> str:
        folder = tmp_path / weights.decode()
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
        monkeypatch.setattr(named, "embedded_model", lambda: str(folder))
        return KINDS["adapter"].key({**settings, "model": {**settings["model"], "name": "minilm"}}, {})

    assert (Path(named.embedded_model()) / "model.safetensors").is_file()
    assert key(b"one") != key(b"two")


@pytest.mark.parametrize(
    ("variant", "idle", "read"),
    [
        ({"refiner": "none"}, {"width": 64, "train_steps": 800, "kappa": 1.0}, {"ppo_width": 32}),
        ({"refiner": "ddpm"}, {"sample_steps": 5}, {"train_steps": 800}),
        ({"prior": "none"}, {"ppo_width": 32, "clip": 0.1}, {"sample_steps": 5}),
        ({}, {"kappa": 1.0}, {"proposals": 3}),
        ({"objective": "critic"}, {"proposals": 3}, {"kappa": 1.0}),
        ({"backbone": "unet"}, {"blocks": 3}, {"width": 64}),
    ],
)
def test_what_a_variant_does_not_read_is_not_in_its_key(settings, variant: dict, idle: dict, read: dict):
    def key(**policy: object) -> str:
        return KINDS["policy"].key({**settings, "policy": {**settings["policy"], **policy}}, {})

    assert len({key(**variant), *(key(**variant, **{name: value}) for name, value in idle.items())}) == 1
    assert key(**variant) != key(**variant, **read)


def test_cells_of_policies_depend_on_the_policy_and_rivals_only_on_lambda(settings):
    def keys(**policy: object) -> dict[str, str]:
        changed = {**settings, "policy": {**settings["policy"], **policy}}
        return {name: KINDS[name].key(changed, {}) for name in ("adapter", "policy", "rivals", "search")}

    plain = keys()
    assert {name for name, key in keys(prediction="v").items() if key != plain[name]} == {"policy"}
    assert {name for name, key in keys(cost_weight=1.0).items() if key != plain[name]} == {"policy", "rivals", "search"}


def test_studies_are_of_nested_mode(settings):
    with pytest.raises(ConfigError, match="mode is 'paper', but studies are of nested mode"):
        KINDS["adapter"].key({**settings, "mode": "paper"}, {})


def test_timing_counts_rounds_after_the_first_and_names_the_processor(cells, settings, monkeypatch, tmp_path: Path):
    """A clock by hand: the warm start and the first round take 7 s, every later round 3 s, every decision 2 ms."""
    now, spent = [0.0], iter([7.0, 3.0, 3.0])

    def train(env, latent, config, expert, *, seed, on_round):
        for index in range(config.rounds):
            now[0] += next(spent)
            on_round(index, 0.0, 0.0, None)
        return SimpleNamespace(decide=lambda state, budget: now.__setitem__(0, now[0] + 0.002))

    monkeypatch.setattr(timing, "train_policy", train)
    monkeypatch.setattr(timing, "time", SimpleNamespace(process_time=lambda: now[0]))
    found = KINDS["timing"].compute(settings, tmp_path / "cell" / "work", {"adapter": cells["adapter"]})
    assert values(Done(Path(), found.values, 0.0), "cpu_s_per_1000_episodes")[None] == pytest.approx(1000 * 3 / 16)
    assert values(Done(Path(), found.values, 0.0), "decision_cpu_ms")[None] == pytest.approx(2.0)
    plain = KINDS["timing"].key(settings, {})
    monkeypatch.setattr(timing, "processor_name", lambda: "another one")
    assert KINDS["timing"].key(settings, {}) != plain


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_times_are_medians_and_exponents_the_powers_that_a_clock_by_hand_follows(monkeypatch, one_thread):
    """Seconds: steps layers^0.5 width^2 (MLP), layers^1.5 width (U-Net), cap^0.75; calls 1 and 3 take longer."""
    now = [0.0]

    def takes(seconds: float):
        calls = iter([100, 1, 50, 1, 1, 1, 1, 1])

        def call() -> None:
            now[0] += seconds * next(calls)

        return call

    monkeypatch.setattr(times, "time", SimpleNamespace(process_time=lambda: now[0]))
    monkeypatch.setattr(times, "_mlp", lambda layers, width, seed: layers**0.5 * width**2)
    monkeypatch.setattr(times, "_unet", lambda layers, width, seed: layers**1.5 * width)
    monkeypatch.setattr(times, "_decision", lambda denoiser, layers, steps, seed: takes(denoiser * steps))
    monkeypatch.setattr(times, "_softmax", lambda layers, cap, seed: takes(cap**0.75))
    outcome = KINDS["times"].compute({"seed": 0}, Path(), {})
    assert {v.of: v.value for v in outcome.values if v.measure == "exponent"} == pytest.approx(
        {
            "MLP, T_diff": 1,
            "MLP, layers L": 0.5,
            "MLP, width d": 2,
            "U-Net, layers L": 1.5,
            "U-Net, channels C": 1,
            "softmax over r_max + 1 ranks": 0.75,
        }
    )
    ms = {v.x: v.value for v in outcome.values if v.measure == "ms" and v.of.startswith("softmax")}
    assert ms == pytest.approx({16: 8_000, 64: 22_627.417, 256: 64_000, 1024: 181_019.336})  # 16^0.75 = 8


def test_times_are_of_decisions_of_the_size_they_name(monkeypatch, one_thread):
    small = {"STEPS": (2, 3), "LAYERS": (1, 2), "WIDTHS": (8, 16), "UNET_LAYERS": (1, 2), "UNET_WIDTHS": (32, 64)}
    for name, sizes in {**small, "CAPS": (4, 8)}.items():
        monkeypatch.setattr(times, name, sizes)
    shapes = []

    def seen(call) -> float:
        shapes.append(tuple(call().shape))
        return 1.0

    monkeypatch.setattr(times, "_median_s", seen)
    KINDS["times"].compute({"seed": 0}, Path(), {})
    mlp, unet = (
        [(32, 144), (32, 144), (32, 6), (32, 12), (32, 144), (32, 144)],
        [(32, 6), (32, 12), (32, 144), (32, 144)],
    )
    assert shapes == [*mlp, *unet, (32, 144, 5), (32, 144, 9)]  # 6 sites a layer, 24 layers where they are not the axis
