"""Declarations: every one that is shipped reads, expands and names what exists; wrong ones are refused in one line."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from sums import DECLARED

from airtune.errors import ConfigError
from airtune.records import Silent
from airtune.services import METHODS, run_method_study
from airtune.studies import run
from airtune.studies.declaration import read_harness, read_study, studies_of, study_from
from airtune.studies.plan import Plan, make_plan

STUDIES = studies_of("airllm")
EXPECTED = [
    "bits",
    "complexity",
    *(f"fig{n}" for n in range(3, 9)),
    "nested",
    "regret",
    "state",
    "table3",
    "table4",
    "table5a",
    "table5b",
    "table6",
    "unseen",
]


def plan_of(name: str, preset: str = "cpu", data: str = "", **overrides: object) -> Plan:
    entry, harness = METHODS["airllm"], read_harness("airllm")
    return make_plan(
        read_study("airllm", name),
        harness,
        harness.presets[preset],
        entry.kinds,
        lambda preset, overrides: entry.load_config(preset, overrides).as_dict(),
        overrides=overrides,
        model="",
        data=data,
    )


def test_a_preset_may_name_its_workload(tmp_path: Path):
    assert {point.workload for point in plan_of("fig5", "cpu-sst2", data=str(tmp_path)).points} == {"sst2"}
    assert {point.workload for point in plan_of("fig5", "cpu").points} == {"embedded"}  # instead of the decoder
    with pytest.raises(ConfigError, match=r"workload sst2 .* needs --data"):
        plan_of("fig5", "cpu-sst2")


def test_a_study_may_set_something_on_one_workload_alone(tmp_path: Path):
    """All of SST-2's test part for bits, and 500 windows of the decoder's; the adapters below are read by both."""
    wide, usual = plan_of("bits", "cpu-sst2", data=str(tmp_path)), plan_of("bits", "cpu")
    assert {cell.settings["task"]["test_items"] for cell in wide.cells.values() if cell.kind.name == "bits"} == {2000}
    assert {cell.settings["task"]["test_items"] for cell in usual.cells.values() if cell.kind.name == "bits"} == {500}
    harness = read_harness("airllm")
    study = replace(read_study("airllm", "bits"), on={"nowhere": {"seed": 1}})
    with pytest.raises(ConfigError, match="workload is 'nowhere'; choose one of"):
        make_plan(study, harness, harness.presets["cpu"], {}, dict, overrides={}, model="", data="")


def test_the_paper_s_tables_and_figures_are_declared():
    assert STUDIES == EXPECTED


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "pae",
            {"reading": 1, "memory": 1, "side": 20, "labels": 10, "probe": 5, "lora": 2, "split": 2, "gap": 5},
        ),
        ("pae_leaks", {"reading": 1, "memory": 1, "side": 40, "leaks": 40}),
    ],
)
def test_studies_of_a_device_and_a_server_have_two_seeds_of_what_is_dear(name: str, expected: dict[str, int]):
    """Four ways to send by differences; of what trains the backbone itself two seeds; eight defences."""
    entry, harness = METHODS["pae_mobillm"], read_harness("pae_mobillm")
    plan = make_plan(
        read_study("pae_mobillm", name),
        harness,
        harness.presets["cpu"],
        entry.kinds,
        lambda preset, overrides: entry.load_config(preset, overrides).as_dict(),
        overrides={},
        model="",
        data="",
        workload="embedded",
    )
    assert Counter(cell.kind.name for cell in plan.cells.values()) == expected
    if name == "pae":
        assert plan.notes == ("over 2 of 5 seeds alone: split learning, LoRA on the device",)


@pytest.mark.parametrize("seeds", [-1, 1.5, "2"])
def test_seeds_of_a_variant_are_a_whole_number(seeds: object):
    variants = [{**DECLARED["variants"][0], "seeds": seeds}]
    with pytest.raises(
        ConfigError, match=r"variant 'plus 0' of study sums has seeds = .*; give a whole number above 0"
    ):
        study_from("sums", DECLARED | {"variants": variants, "claims": []})


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_expands_over_at_least_five_seeds(name: str):
    plan = plan_of(name)
    assert plan.seeds >= 5
    variants = {point.variant.name for point in plan.points}
    assert len(plan.points) == 5 * len(variants)
    order = list(plan.cells)
    for key, cell in plan.cells.items():
        assert all(order.index(needed) < order.index(key) for needed in cell.needed.values())


@pytest.mark.parametrize(
    ("figure", "table"), [("fig3", "table3"), ("fig5", "table5a"), ("fig6", "table5b"), ("fig4", "table3")]
)
def test_a_figure_reads_its_table_s_policies(figure: str, table: str):
    policies = {key for key, cell in plan_of(figure).cells.items() if cell.kind.name == "policy"}
    assert policies
    assert policies <= set(plan_of(table).cells)


def test_figure_7_reads_table_6_s_policies_and_adapters_are_shared_by_all():
    of_table = {key for key, cell in plan_of("table6").cells.items() if cell.kind.name == "policy"}
    assert of_table <= set(plan_of("fig7").cells)
    trained = [name for name in STUDIES if name not in ("bits", "complexity", "table4", "nested")]
    adapters = {name: keys_of(name, "adapter") for name in trained}
    shared = adapters["fig3"]
    assert len(shared) == 5
    shorter = adapters.pop("table3")  # those that leave steps for training on
    assert shorter == adapters.pop("fig4") > shared
    assert len(shorter) == 10
    assert all(found == shared for found in adapters.values())
    assert shared < keys_of("table4", "adapter")  # which has two more r_max


def keys_of(name: str, kind: str) -> set[str]:
    return {key for key, cell in plan_of(name).cells.items() if cell.kind.name == kind}


def test_a_rank_is_trained_once_for_all_studies_and_every_r_max_above_it():
    """LoRA in table 3 at r_max 8: ranks 1, 2, 4, 8, in table 4 at 2, 8, 32 also 16 and 32; and what suits links.

    There are five SNRs, so five sizes or fewer besides for each r_max, AdaLoRA's with a few directions less too. Five
    seeds, one sweep for ranks that are near to each other.
    """
    for kind in ("lora", "adalora"):
        assert keys_of("fig4", kind) == keys_of("table3", kind) < keys_of("table4", kind)
        sizes = [len(keys_of(name, kind)) / 5 for name in ("table3", "table4")]
        assert all(size == int(size) for size in sizes)
        assert 4 <= sizes[0] <= (4 + 5 if kind == "lora" else 10) < sizes[1] <= (6 + 15 if kind == "lora" else 30)
        sweeps = [len(keys_of(name, f"{kind}-sweep")) for name in ("table3", "table4")]
        assert sweeps == [4, 6] if kind == "lora" else 1 <= sweeps[0] <= 4 <= sweeps[1] <= 6
    assert len(keys_of("table4", "baselines")) == 15
    assert keys_of("nested", "baselines") == keys_of("table3", "baselines")


def test_a_weight_that_nothing_reads_makes_no_new_adapter():
    """One copy of a batch has no weights to choose; several have."""

    def key(**adapter: object) -> str:
        settings = {f"adapter.{name}": value for name, value in adapter.items()}
        return next(k for k, cell in plan_of("state", **settings).cells.items() if cell.kind.name == "adapter")

    with pytest.raises(ConfigError, match="rank_one_weight changes nothing that study state computes"):
        key(prefixes=1, rank_one_weight=1.3)
    assert key(prefixes=4, rank_one_weight=1.3) != key(prefixes=4)


def test_a_policy_setting_changes_policies_and_not_adapters():
    before, after = plan_of("state").cells, plan_of("state", **{"policy.width": 64}).cells
    changed = {cell.kind.name for key, cell in before.items() if key not in after}
    assert changed == {"policy"}


def test_a_setting_given_as_it_is_anyway_is_no_mistake():
    width = METHODS["airllm"].load_config("default", {}).policy.width
    assert set(plan_of("state", **{"policy.width": width}).cells) == set(plan_of("state").cells)


def claim(**parts: object) -> dict:
    return {"claims": [{"says": "so", "better": "plus 0", "measure": "sum", **parts}]}


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"baseline": "plus 9"}, "names the variant 'plus 9'; choose one of plus 0, plus 1, plus 2"),
        ({"colour": "red"}, "sums holds 'colour'; known there are name, title"),
        ({"variants": [{"set": {}}]}, "sums.variants is not complete"),
        ({"tables": [{"measure": "sum", "title": "t", "digit": 1}]}, "sums.tables holds 'digit'"),
        (claim(), "claim 'so' of study sums has none or several; give it one of `worse`, `between`, and `places`"),
        (claim(worse="plus 1", between=[0, 1]), "has none or several"),
        (claim(worse="plus 1", places="a", than="b"), "has none or several"),
        (claim(places="a"), "has none or several"),
        (claim(than="b"), "has none or several"),
        (claim(places="a", than="b", x=1.0), "has options that it does not read"),
        (claim(between=[0, 1], margin=0.1), "`margin` goes with `worse`, `at` with `between`"),
        (claim(worse="plus 1", at="here"), "`margin` goes with `worse`, `at` with `between`"),
        (claim(worse="plus 1", x=3.0), "`margin` goes with `worse`, `at` with `between`"),
        ({"variants": [{"name": "plus 0", "seeds": True}]}, "seeds = True; give a whole number above 0"),
        ({"figures": [{"kind": "lines", "measure": "sum", "title": "t", "variants": ["plus 9"]}]}, "names the variant"),
        ({"figures": [{"kind": "lines", "measure": "sum", "title": "t", "log": "y"}]}, "log = 'y'; give x or both"),
        (claim(between=[1.0]), r"is between \[1.0\]; give \[lower, upper\]"),
        (claim(between=1.0), r"is between 1.0; give \[lower, upper\]"),
        (claim(between=[2, 1]), r"is between \[2, 1\]; give \[lower, upper\]"),
    ],
)
def test_a_wrong_declaration_is_refused(wrong: dict, line: str):
    with pytest.raises(ConfigError, match=line):
        study_from("sums", DECLARED | wrong)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"name": "table9"}, "study is 'table9'; of airllm choose one of bits, complexity, fig3"),
        ({"preset": "huge"}, "preset of a study is 'huge'; choose one of tiny, cpu, cpu-sst2, full"),
        ({"jobs": 0}, "jobs is 0; choose at least 1"),
        ({"method": "nosuch"}, "method is 'nosuch'"),
        ({"model": "somewhere"}, r"workload decoder .* needs --data"),
        ({"data": "somewhere"}, r"workload decoder .* needs --model"),
        ({"model": "./no/such", "data": "./no/such"}, "--model is './no/such', which does not exist"),
        ({"model": "hub/name", "data": "./no/such"}, "--data is './no/such', which does not exist"),
        ({"overrides": {"policy.refiner": "none"}}, "study table3 varies policy.refiner itself"),
        ({"overrides": {"seed": 3}}, "study table3 varies seed itself"),
        ({"name": "table6", "overrides": {"policy.train_steps": 700}}, "study table6 varies policy.train_steps itself"),
        (
            {"name": "complexity", "overrides": {"policy.width": 64}},
            "--set policy.width changes nothing that study complexity computes; leave it out",
        ),
        (
            {"overrides": {"policy.trained": "saved"}},
            "policy.trained is 'saved', but a study trains its policies itself",
        ),
        ({"overrides": {"policy.rounds": 2, "edge.url": "http://x"}}, "--set edge.url changes nothing"),
        ({"overrides": {"policy.sample_steps": 700}}, "policy.sample_steps is 700; choose 1 to 600"),
        ({"overrides": {"policy.nosuch": 1}}, "unknown setting policy.nosuch"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_anything_is_computed(given: dict, line: str, tmp_path: Path):
    asked = {
        "method": "airllm",
        "name": "table3",
        "preset": "tiny",
        "overrides": {},
        "model": "",
        "data": "",
        "jobs": 1,
    }
    asked |= given
    with pytest.raises(ConfigError, match=line) as caught:
        run_method_study(**asked, out=tmp_path / "out", store=tmp_path / "cells", progress=Silent())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["out", "store"])
def test_a_file_in_place_of_a_folder_is_refused_before_anything_is_computed(option: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(run, "compute_all", lambda *given, **more: pytest.fail("it was computed"))
    (tmp_path / "file").touch()
    folders = {"out": tmp_path / "out", "store": tmp_path / "cells", option: tmp_path / "file"}
    with pytest.raises(ConfigError, match=f"--{option} is .*file', no folder can be there"):
        run_method_study("airllm", "state", preset="tiny", overrides={}, model="", data="", jobs=1, **folders)
