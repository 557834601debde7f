"""Which modules have LoRA: as peft's own matching says; what it would not load is not packed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.numpy import save_file

from airtune.adapters.imported import import_peft
from airtune.adapters.peft_targets import read_targets
from airtune.errors import DataError

PATHS = [
    *(f"model.layers.{n}.{name}" for n in (0, 1, 11) for name in ("self_attn.q_proj", "mlp.up_proj", "q_proj_2")),
    *("q_proj", "lm_head", "score", "model.score.q_proj", "h.1.q_proj", "vision.blocks.1.q_proj", "layers.1.q_proj"),
]
SETTINGS = {
    "ends": {"target_modules": ["q_proj", "mlp.up_proj"]},
    "whole paths": {"target_modules": ["model.layers.1.self_attn.q_proj"]},
    "an expression": {"target_modules": r".*layers\.(0|1)\..*(q_proj|up_proj)"},
    "a name as an expression": {"target_modules": "q_proj"},
    "excluded": {
        "target_modules": ["q_proj"],
        "exclude_modules": ["layers.1.self_attn.q_proj", "vision.blocks.1.q_proj"],
    },
    "excluded by an expression": {"target_modules": ["q_proj"], "exclude_modules": r".*\.1\..*"},
    "saved whole": {"target_modules": ["q_proj", "score"], "modules_to_save": ["score"]},
    "a layer": {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": 1},
    "some layers": {"target_modules": ["q_proj"], "layers_to_transform": [0, 11]},
    "no layers named": {"target_modules": ["q_proj"], "layers_to_transform": []},
    "layers of a list": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "layers of lists": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "blocks"]},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_modules_are_peft_s_own(settings: dict):
    targets = read_targets(Path("f"), settings)
    expected = [path for path in PATHS if check_target_module_exists(LoraConfig(**settings), path)]
    assert [path for path in PATHS if targets.hold(path)] == expected
    assert 0 < len(expected) < len(PATHS)


@pytest.mark.parametrize("names", ["all-linear", "(.*)*(.*)*x", ".*" * 80 + "x", "(", "a{99999999999}", None])
def test_what_cannot_be_read_safely_means_every_module(names: str | None):
    assert read_targets(Path("f"), {"target_modules": names}).hold("a" * 250)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": {"q": 1}},
        {"target_modules": [1]},
        {"layers_to_transform": "all"},
        {"layers_to_transform": [True]},
    ],
)
def test_values_of_wrong_kinds_are_refused(settings: dict):
    with pytest.raises(DataError, match=f"f has {next(iter(settings))} .*; mend the file"):
        read_targets(Path("f"), settings)


def folder_of(folder: Path, names: list[str], **settings: object) -> Path:
    plain = {"peft_type": "LORA", "lora_alpha": 1, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(plain | settings))
    shapes = {"A": (1, 2), "B": (3, 1)}
    tensors = {f"{name}.lora_{w}.weight": np.ones(shape, np.float32) for name in names for w, shape in shapes.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_tensors_that_peft_would_leave_out_are_refused(tmp_path: Path):
    path = "base_model.model.layers.1.q_proj"
    assert list(import_peft(folder_of(tmp_path, [path])).factors) == ["layers.1.q_proj"]
    for names in (["layers.1.q_proj"], [path, "layers.1.q_proj"], ["model.layers.1.q_proj"]):
        with pytest.raises(
            DataError, match=r"holds .*layers\.1\.q_proj\.lora_A.*, which PEFT would leave out; expected base_"
        ):
            import_peft(folder_of(tmp_path, names))
    for settings in ({"target_modules": ["v_proj"]}, {"layers_to_transform": [0]}, {"exclude_modules": ["q_proj"]}):
        with pytest.raises(DataError, match=r"holds an update of layers\.1\.q_proj, which PEFT would leave out by the"):
            import_peft(folder_of(tmp_path, [path], **settings))
