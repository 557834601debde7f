"""Settings: presets, overrides by text, what is refused and how, and the way to TOML and back."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
import tomli_w

from airtune.errors import ConfigError
from airtune.methods.airllm.config import AirLLMConfig, config_from, load_config

OTHER = {
    "mode": "nested",
    "link.fading": "rician",
    "link.snrs_db": "-3, 4.5",
    "link.late_share": "0.2",
    "adapter.full_share": "0.1",
    "adapter.uniform_share": "0.2",
    "adapter.draw_per": "item",
    "codec.name": "blockwise",
    "codec.bits": "2.5",
    "policy.bandwidth_factors": "0.5, 2",
    "paper.min_rank": "2",
    "policy.prior": "discrete",
    "policy.refiner": "ddpm",
    "policy.backbone": "unet",
    "policy.objective": "critic",
    "policy.schedule": "cosine",
    "policy.prediction": "epsilon",
    "policy.eta": "0.5",
    "policy.condition_dropout": "0.25",
    "policy.sample_steps": "7",
    "policy.train_steps": "700",
    "paper.method": "random",
    "paper.rounding": "round",
    "paper.count": "exact",
}
"""Texts for the fields that do not take just any number."""
FIELDS = [
    (f"{group.name}.{field.name}" if dataclasses.is_dataclass(value) else group.name, inner)
    for group in dataclasses.fields(AirLLMConfig)
    for value in [getattr(AirLLMConfig(), group.name)]
    for field, inner in (
        [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        if dataclasses.is_dataclass(value)
        else [(group, value)]
    )
]
"""Every setting by dotted name, with its default."""


def setting(config: AirLLMConfig, dotted: str) -> object:
    found: object = config
    for name in dotted.split("."):
        found = getattr(found, name)
    return found


def refused(overrides: dict[str, object]) -> str:
    """The one line with which the overrides are refused."""
    with pytest.raises(ConfigError) as caught:
        load_config("tiny", overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("preset", ["default", "demo", "tiny"])
def test_presets_load_and_ask_for_a_bandwidth_at_which_there_is_a_choice(preset):
    config = load_config(preset)
    assert config.model.name == "minilm"
    assert config.link.bandwidth_hz == 0.0


def test_tiny_says_what_its_file_says():
    config = load_config("tiny")
    assert (config.adapter.max_rank, config.adapter.steps, config.policy.rounds) == (4, 12, 2)
    assert config.link.snrs_db == (-5.0, 15.0)
    assert config.policy.kappa == AirLLMConfig().policy.kappa  # not in the file


@pytest.mark.parametrize("preset", ["cpu", "cpu-paper"])
def test_a_preset_falls_back_on_what_is_embedded_and_says_so(preset):
    alone = load_config(preset)
    assert (alone.model.name, alone.task.name) == ("minilm", "pydocs")
    assert alone.note.startswith("No --model and --data were given")
    for given in ({"model.name": "m", "task.data": "d"}, {"task.data": "d"}, {"model": {"name": "m"}}):
        own = load_config(preset, given)
        assert (own.task.name, own.note) == ("text", "")


def test_the_papers_preset_is_table_ii():
    config = load_config("paper", {"task.data": "SST-2"})
    assert (config.model.name, config.model.device, config.task.name) == ("facebook/opt-1.3b", "cuda", "sst2")
    assert (config.link.bandwidth_hz, config.link.deadline_s) == (100e6, 1.0)
    assert config.link.snrs_db == (-5, 0, 5, 10, 15)
    assert (config.adapter.steps, config.adapter.batch_size) == (15_000, 32)
    policy, paper = config.policy, config.paper
    assert (policy.ppo_width, policy.ppo_learning_rate, policy.ddim_learning_rate) == (256, 1e-4, 5e-5)
    assert (policy.kappa, policy.clip, policy.cost_weight) == (0.1, 0.2, 0.1)
    assert (policy.train_steps, policy.sample_steps) == (1000, 50)
    assert (paper.horizon, paper.evaluate_every, paper.patience) == (15, 100, 5)
    assert (paper.min_rank, paper.rounding, paper.count, config.codec.bits) == (1, "floor", "paper", 32)


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(
        ConfigError, match=r"'huge'; choose one of cpu, cpu-paper, cpu-sst2, default, demo, paper, tiny"
    ):
        load_config("huge")


def test_what_the_mode_does_not_read_is_refused():
    with pytest.raises(ConfigError, match=r"paper.method was given, but mode is 'nested'.*add mode=paper"):
        load_config("tiny", {"paper.method": "adalora"})
    with pytest.raises(ConfigError, match=r"adapter.prefixes is 3; mode is 'paper'"):
        load_config("tiny", {"mode": "paper", "adapter.prefixes": 3})
    with pytest.raises(ConfigError, match=r"adapter.draw_per is 'item'; mode is 'paper'"):
        load_config("tiny", {"mode": "paper", "adapter.draw_per": "item"})
    with pytest.raises(ConfigError, match=r"paper.evaluate_every is 100; choose at most 32 \(adapter.steps\)"):
        load_config("tiny", {"mode": "paper", "adapter.steps": 32, "paper.evaluate_every": 100})


def test_prefixes_0_are_all_halvings_and_two_mixed_ones():
    for max_rank, copies in ((1, 3), (2, 4), (8, 6), (12, 6), (32, 8)):
        assert load_config("default", {"adapter.prefixes": 0, "adapter.max_rank": max_rank}).adapter.copies == copies
    assert load_config("default").adapter.copies == 1


@pytest.mark.parametrize(("name", "default"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_setting_is_overridden_by_text(name, default):
    if isinstance(default, bool):
        text, expected = str(not default).lower(), not default
    elif isinstance(default, float):
        text, expected = "0.75", 0.75
    elif isinstance(default, int):
        text, expected = "12", 12
    else:
        text, expected = "other", "other"
    if name in OTHER:
        text = OTHER[name]
        expected = {"link.snrs_db": (-3.0, 4.5), "policy.bandwidth_factors": (0.5, 2.0)}.get(name, type(default)(text))
    mode = {"mode": "paper"} if name.startswith("paper.") else {"codec.bits": "4"} if name == "codec.name" else {}
    config, plain = load_config("tiny", {**mode, name: text}), load_config("tiny", mode)
    assert setting(config, name) == expected
    assert type(setting(config, name)) is type(default)
    changed = {other for other, _ in FIELDS if setting(config, other) != setting(plain, other)}
    assert changed <= {name}


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("adapter.max_rank", "eight", "'eight'; expected a whole number"),
        ("adapter.max_rank", "8.5", "'8.5'; expected a whole number"),
        ("adapter.max_rank", 8.5, "8.5; expected a whole number"),
        ("adapter.max_rank", "", "''; expected a whole number"),
        ("adapter.max_rank", True, "True; expected a whole number"),
        ("adapter.max_rank", "nan", "'nan'; expected a whole number"),
        ("adapter.max_rank", "inf", "'inf'; expected a whole number"),
        ("adapter.max_rank", [8], "[8]; expected a whole number"),
        ("adapter.max_rank", None, "None; expected a whole number"),
        ("adapter.max_rank", "0", "0; choose 1 to 65536"),
        ("adapter.prefixes", "-1", "-1; choose 0 or 1, or 3 to 64, one at least for each of r_max, r_max / 2, ... 1"),
        ("adapter.prefixes", "2", "2; choose 0 or 1, or 3 to 64, one at least for each of r_max, r_max / 2, ... 1"),
        ("adapter.scale", "two", "'two'; expected a finite number"),
        ("adapter.scale", True, "True; expected a finite number"),
        ("adapter.scale", "0", "0.0; choose a finite number above 0"),
        ("adapter.orthogonality", "-0.1", "-0.1; choose at least 0"),
        ("adapter.uniform_share", "0.8", "0.8; choose shares of full and uniform within 1 together"),
        ("model.name", 7, "7; expected text"),
        ("model.name", {"x": 1}, "{'x': 1}; expected text"),
        ("link.snrs_db", "1,two", "'1,two'; expected comma-separated finite numbers"),
        ("link.snrs_db", "1,,2", "'1,,2'; expected comma-separated finite numbers"),
        ("link.snrs_db", "1\n2", "'1\\n2'; expected comma-separated finite numbers"),
        ("link.snrs_db", 5, "5; expected comma-separated finite numbers"),
        ("link.snrs_db", [1, "nan"], "[1, 'nan']; expected comma-separated finite numbers"),
        ("link.snrs_db", [1, True], "[1, True]; expected comma-separated finite numbers"),
        ("link.snrs_db", [], "(); give at least one SNR in dB"),
        ("link.snrs_db", "0,99", "99.0; choose -60 to 80"),
        ("link.fading", "rayleih", "'rayleih'; choose one of still, rayleigh, rician, nakagami, trace"),
        ("link.late_share", "1", "1.0; choose at least 0 and below 1"),
        ("link.m", "0.4", "0.4; choose at least 0.5"),
        ("codec.bits", "11", "11.0; choose 0.5 to 10"),
        ("policy.schedule", "quadratic", "'quadratic'; choose one of linear, cosine, scaled_linear"),
        ("policy.prediction", 3, "3; choose one of epsilon, v, sample"),
        ("policy.sample_steps", "601", "601; choose 1 to 600 (policy.train_steps)"),
        ("policy.prior", "heads", "'heads'; choose one of latent, discrete, none"),
        ("policy.objective", "reward", "'reward'; choose one of advantage, critic, improved"),
        ("policy.parallel", "0", "0; choose 1 to 4096"),
        ("policy.measurements", "2", "2; choose at least 3"),
        ("policy.width", "1e6", "1000000; choose 1 to 4096"),
        ("adapter.steps", "1e12", "1000000000000; choose 1 to 1e+06"),
        ("policy.env_steps", "1", "1; choose 2 to 1e+06"),
        ("policy.updates", "0", "0; choose 1 to 1e+06"),
        ("policy.eta", "1.5", "1.5; choose 0 to 1"),
        ("mode", "flat", "'flat'; choose one of nested, paper"),
        ("seed", "-3", "-3; choose at least 0"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_with_key_value_and_what_was_expected(name, value, line):
    assert refused({name: value}) == f"{name} is {line}"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"prior": "none", "refiner": "none"}, "policy.prior is 'none'; nothing would decide while policy.refiner is"),
        ({"refiner": "none", "guidance": "2"}, "policy.guidance is 2.0; there is nothing to guide without"),
        ({"guidance": "2", "condition_dropout": "0"}, "policy.guidance is 2.0; policy.condition_dropout is 0, so"),
        ({"refiner": "ddpm", "eta": "0.5"}, "policy.eta is 0.5; 'ddpm' has noise of its own"),
        ({"backbone": "unet", "width": "48"}, "policy.width is 48; choose a multiple of 32 for the U-Net's channels"),
    ],
)
def test_settings_of_a_variant_that_contradict_each_other_are_refused(settings, line):
    assert refused({f"policy.{name}": value for name, value in settings.items()}).startswith(line)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize("name", [name for name, default in FIELDS if isinstance(default, float)])
def test_no_number_may_be_infinite_or_none_at_all(name, text):
    line = refused({name: text})
    assert line == f"{name} is {text!r}; expected a finite number"
    assert refused({name: float(text)}).startswith(f"{name} is {float(text)!r}; ")


def test_fading_by_trace_wants_a_file_before_anything_runs():
    assert "link.trace" in refused({"link.fading": "trace"})
    assert load_config("tiny", {"link.fading": "trace", "link.trace": Path("a.csv")}).link.trace == "a.csv"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("8", 8), ("8.0", 8), (8.0, 8), ("1e1", 10), (str(2**63 - 1), 2**63 - 1), (2**53 + 1, 2**53 + 1)],
)
def test_whole_numbers_keep_every_digit(value, expected):
    assert load_config("tiny", {"seed": value}).seed == expected


@pytest.mark.parametrize(("value", "expected"), [("1,2", (1, 2)), ("-5", (-5,)), ([1, 2.5], (1, 2.5)), ((3,), (3,))])
def test_lists_of_numbers_come_as_text_or_lists(value, expected):
    assert load_config("tiny", {"link.snrs_db": value}).link.snrs_db == expected


def test_an_unknown_key_is_named_with_those_there_are():
    assert refused({"adapter.rank": 3}).startswith("unknown setting adapter.rank; known here are adapter.max_rank, ")
    assert refused({"nowhere.x": 1}).startswith("unknown setting nowhere; known here are mode, seed, model, ")
    assert refused({"link.snrs.db": 1}).startswith("unknown setting link.snrs; ")
    assert refused({"rank": 3}).startswith("unknown setting rank; ")


@pytest.mark.parametrize("overrides", [{"link": 5}, {"link": "still"}, {"link": 5, "link.deadline_s": 1}])
def test_a_group_is_no_single_value(overrides):
    expected = f"link is {overrides['link']!r}; expected a group of settings such as link.key=value"
    assert refused(overrides) == expected


def test_overrides_leave_what_they_were_given_alone():
    link = {"deadline_s": 2.0}
    config = load_config("tiny", {"link": link, "link.gap_db": "3"})
    assert (config.link.deadline_s, config.link.gap_db) == (2.0, 3.0)
    assert config.link.snrs_db == (-5, 15)  # as the preset has it
    assert link == {"deadline_s": 2.0}


@pytest.mark.parametrize("preset", ["default", "demo", "tiny", "cpu", "cpu-sst2", "cpu-paper", "paper"])
def test_a_config_comes_back_from_toml_as_it_was(preset):
    config = load_config(preset, {"seed": 3, "link.snrs_db": "0.1,-7", "policy.ppo_learning_rate": "1.234e-5"})
    again = config_from(tomllib.loads(tomli_w.dumps(config.as_dict())))
    assert again == config
    assert isinstance(again.link.snrs_db, tuple)
