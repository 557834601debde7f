"""LoRA's many kinds as peft saves them: plain ones come as peft computes them, others are refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora import BdLoraConfig, VeloraConfig
from peft.utils.other import get_pattern_key
from transformers import AutoModelForCausalLM, PreTrainedModel

from airtune.adapters.imported import import_peft
from airtune.adapters.peft_config import read_config
from airtune.errors import DataError
from tiny_models import CONFIGS


def built(settings: dict, *, tied: bool = False) -> tuple[dict[str, np.ndarray], PreTrainedModel]:
    """Weights of a tiny model, and the model in peft's hands."""
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS["llama"])
    config.tie_word_embeddings = tied
    base = AutoModelForCausalLM.from_config(config)
    weights = {name: value.detach().numpy().copy() for name, value in base.state_dict().items()}
    plain = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    return weights, get_peft_model(base, LoraConfig(**{**plain, **settings}))


def train(model: PreTrainedModel) -> None:
    """As if: all that peft trains has moved."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def save(folder: Path, settings: dict, *, tied: bool = False) -> None:
    _, model = built(settings, tied=tied)
    train(model)
    model.save_pretrained(str(folder))


PLAIN = {
    "usual": {},
    "random": {"init_lora_weights": False},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
    "some modules": {"exclude_modules": ["layers.0.mlp.down_proj"]},
    "some layers": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "dropout": {"lora_dropout": 0.1},
    "patterns": {"alpha_pattern": {r"^model.layers.0.*": 3, r"layers\.1\.self_attn.q_proj$": 5}, "use_rslora": True},
}


@pytest.mark.parametrize("settings", PLAIN.values(), ids=PLAIN)
def test_plain_updates_on_the_weights_are_the_weights_that_peft_merges(tmp_path: Path, settings: dict):
    weights, model = built(settings)
    train(model)
    model.save_pretrained(str(tmp_path))
    check_merged(weights, model, tmp_path)


def test_ranks_and_scales_that_eva_chose_are_read(tmp_path: Path):
    """EVA starts from the inputs of every layer, and gives each a rank and an alpha of its own."""
    weights, model = built({"init_lora_weights": "eva", "eva_config": EvaConfig(rho=2.0)})
    rng = torch.Generator().manual_seed(3)
    batches = [{"input_ids": torch.randint(4, 32, (4, 12), generator=rng)} for _ in range(8)]
    initialize_lora_eva_weights(model, batches, show_progress_bar=False)
    assert model.peft_config["default"].rank_pattern
    assert model.peft_config["default"].alpha_pattern
    train(model)
    model.save_pretrained(str(tmp_path))
    check_merged(weights, model, tmp_path)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_other_starts_pass_once_peft_has_converted_them(tmp_path: Path, start: str):
    weights, model = built({"init_lora_weights": start})
    model.peft_config["default"].init_lora_weights = True  # as peft's guide says, before training
    model.save_pretrained(str(tmp_path / "start"))
    model.peft_config["default"].init_lora_weights = start
    train(model)
    model.save_pretrained(str(tmp_path / "own"))
    with pytest.raises(DataError, match=f"says init_lora_weights '{start}', which may have changed the base model"):
        import_peft(tmp_path / "own")
    model.save_pretrained(str(tmp_path / "out"), path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    check_merged(weights, model, tmp_path / "out")


OTHER = {
    "pissa": ({"init_lora_weights": "pissa_niter_2"}, "init_lora_weights 'pissa_niter_2'"),
    "alora": ({"alora_invocation_tokens": [5, 6]}, "'alora_invocation_tokens' "),
    "replication": ({"layer_replication": [[0, 2], [1, 2]]}, "'layer_replication' "),
    "tokens": ({"trainable_token_indices": [1, 2]}, "'trainable_token_indices' "),
    "dora": ({"use_dora": True}, "'use_dora' True"),
    "bias": ({"bias": "lora_only"}, "bias 'lora_only'"),
    "lora bias": ({"lora_bias": True}, "'lora_bias' True"),
    "parameters": ({"target_modules": ["q_proj"], "target_parameters": ["v_proj.weight"]}, "'target_parameters' "),
    "velora": ({"velora_config": VeloraConfig(num_groups=4)}, "'velora_config' "),
    "bdlora": (
        {"use_bdlora": BdLoraConfig(target_modules_bd_a=["down_proj"], target_modules_bd_b=["q_proj"], nblocks=2)},
        "'use_bdlora' ",
    ),
}


@pytest.mark.parametrize(("settings", "words"), OTHER.values(), ids=OTHER)
def test_what_is_more_than_plain_lora_is_refused_by_name(tmp_path: Path, settings: dict, words: str):
    save(tmp_path, settings)
    with pytest.raises(DataError, match=f"says {words}.*; expected .*; ") as refused:
        import_peft(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("tied", [True, False])
def test_lora_on_a_head_saved_with_the_base_s_own_weights_is_refused(tmp_path: Path, tied: bool):
    save(tmp_path, {"target_modules": ["lm_head", "q_proj"]}, tied=tied)
    with pytest.raises(DataError, match=r"holds lm_head\.base_layer\.weight, part of a base_layer; expected LoRA of"):
        import_peft(tmp_path)


def test_single_tokens_are_refused_by_their_tensors_too(tmp_path: Path):
    save(tmp_path, {"trainable_token_indices": [1, 2]})
    edit(tmp_path, {"trainable_token_indices": None})
    with pytest.raises(DataError, match="part of a token_adapter; expected LoRA of"):
        import_peft(tmp_path)


WRONG = {
    "alpha text": ({"lora_alpha": "eight"}, "has lora_alpha 'eight'; expected a finite number"),
    "alpha null": ({"lora_alpha": None}, "has lora_alpha None; expected a finite number"),
    "alpha list": ({"lora_alpha": [1]}, r"has lora_alpha \[1\]; expected a finite number"),
    "alpha nan": ({"lora_alpha": float("nan")}, "has lora_alpha nan; expected a finite number"),
    "alpha infinite": ({"lora_alpha": float("inf")}, "has lora_alpha inf; expected a finite number"),
    "alpha huge": ({"lora_alpha": 10**400}, "has lora_alpha 1000.*; expected a finite number"),
    "alphas list": ({"alpha_pattern": ["x"]}, r"has alpha_pattern \['x'\]; expected numbers by module name"),
    "ranks text": ({"rank_pattern": "x"}, "has rank_pattern 'x'; expected numbers by module name"),
    "ranks null": ({"rank_pattern": {"q_proj": None}}, "has rank_pattern of 'q_proj' None; expected a finite number"),
    "alphas null": ({"alpha_pattern": {"q_proj": None}}, "has alpha_pattern of 'q_proj' None; expected a finite"),
    "no expression": ({"alpha_pattern": {"(": 1}}, r"has alpha_pattern of '\('; expected a module's name"),
    "endless": ({"alpha_pattern": {"(.*)*(.*)*(.*)*x": 1}}, r"has alpha_pattern of '\(\.\*\)\*.*; expected a module's"),
    "flag": ({"use_rslora": "yes"}, "has use_rslora 'yes'; expected true or false"),
    "name": ({"base_model_name_or_path": "a\nb"}, r"has base_model_name_or_path 'a\\nb'; expected a line of text"),
    "task": ({"task_type": ["CAUSAL_LM"]}, r"has task_type \['CAUSAL_LM'\]; expected a line of text"),
    "corda": ({"init_lora_weights": "corda", "corda_config": {}}, "says init_lora_weights 'corda', which may have"),
    "loftq": ({"init_lora_weights": "loftq"}, "says init_lora_weights 'loftq', which may have"),
    "start": ({"init_lora_weights": 1}, "says init_lora_weights 1,"),
    "new": ({"use_novel": {"a": 1}}, r"says 'use_novel' \{'a': 1\}; expected plain LoRA"),
    "type": ({"peft_type": "IA3"}, "is of type 'IA3'; expected 'LORA'"),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_values_of_wrong_kinds_are_refused_in_one_line(tmp_path: Path, change: dict, words: str):
    save(tmp_path, {})
    edit(tmp_path, change)
    with pytest.raises(DataError, match=words) as refused:
        import_peft(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("depth", [50, 900, 980, 100_000])
@pytest.mark.parametrize(
    "name", ["peft_type", "lora_alpha", "init_lora_weights", "bias", "use_rslora", "target_modules"]
)
def test_lists_in_lists_without_end_are_refused_in_one_line(tmp_path: Path, name: str, depth: int):
    config = {"peft_type": "LORA", "lora_alpha": 1, name: "HERE"}
    text = json.dumps(config).replace('"HERE"', "[" * depth + "]" * depth)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(DataError) as refused:
        read_config(tmp_path / "adapter_config.json")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300 + len(str(tmp_path))


def test_no_key_that_is_read_takes_long(tmp_path: Path):
    """As a regular expression this one takes longer than anybody waits."""
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "lora_alpha": 1, "alpha_pattern": {"a.*" * 80 + "x": 2}})
    )
    assert read_config(tmp_path / "adapter_config.json").scale("a" * 250, 1) == 1


@pytest.mark.parametrize(
    "key",
    ["q_proj", "attn.q_proj", "self_attn.q_proj", r"^model.layers.0.*", r"^layers.0.*", "1.*q_proj", r"layers\.1.*"],
)
def test_keys_hold_where_peft_says_they_do(tmp_path: Path, key: str):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "lora_alpha": 1, "alpha_pattern": {key: 2}})
    )
    config = read_config(tmp_path / "adapter_config.json")
    paths = [
        f"model.layers.{n}.{name}" for n in (0, 1, 10) for name in ("self_attn.q_proj", "self_attn_q_proj", "mlp.up")
    ]
    for path in [*paths, "q_proj", "layers.0.q"]:
        expected = 2 if get_pattern_key([key], path) == key else 1
        assert config.scale(path, 1) == (1 if path == key and expected == 1 else expected)


def edit(folder: Path, change: dict) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def check_merged(weights: dict[str, np.ndarray], model: PreTrainedModel, folder: Path) -> None:
    """Weights of the base model with the updates on them are those that peft merges."""
    updates = {f"{path}.weight": site.update() for path, site in import_peft(folder).factors.items()}
    assert updates
    for name, value in model.merge_and_unload().state_dict().items():
        np.testing.assert_allclose(weights[name] + updates.get(name, 0), value.numpy(), rtol=1e-4, atol=1e-5)
