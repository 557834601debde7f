"""PEFT folders as peft itself writes them; updates against peft's own `get_delta_weight`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from airtune.adapters.export import export_peft
from airtune.adapters.imported import import_peft
from airtune.errors import DataError
from tiny_models import CONFIGS


def saved(folder: Path, dtype: torch.dtype = torch.float32, **settings: object) -> PreTrainedModel:
    torch.manual_seed(0)
    plain = {"r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    config = LoraConfig(**{**plain, **settings}, init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_config(CONFIGS["llama"]), config)
    model.to(dtype).save_pretrained(str(folder))
    return model.float()


PATTERNS = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 5}}


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, PATTERNS], ids=["plain", "rslora", "patterns"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_updates_are_peft_s_own(tmp_path: Path, settings: dict, dtype: torch.dtype):
    model = saved(tmp_path, dtype, **settings)
    adapter = import_peft(tmp_path)
    assert adapter.kind == "text"
    layers = [name for name, module in model.base_model.model.named_modules() if hasattr(module, "lora_A")]
    assert set(adapter.factors) == set(layers)
    for path, site in adapter.factors.items():
        expected = model.base_model.model.get_submodule(path).get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(site.update(), expected, rtol=2e-5, atol=1e-6)


def test_what_we_export_comes_back(tmp_path: Path):
    saved(tmp_path / "theirs")
    factors = import_peft(tmp_path / "theirs").factors
    dense = {"score.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    export_peft(tmp_path / "ours", factors, dense, kind="classify", base_model="tiny", fan_in_fan_out=True)
    back = import_peft(tmp_path / "ours")
    assert (back.kind, back.base_model, back.fan_in_fan_out) == ("classify", "tiny", True)
    np.testing.assert_array_equal(back.dense["score.weight"], dense["score.weight"])
    for path, site in factors.items():
        np.testing.assert_allclose(back.factors[path].update(), site.update(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("task", [*TaskType, None])
def test_each_task_type_of_peft_comes_back_as_itself(tmp_path: Path, task: TaskType | None):
    saved(tmp_path / "theirs", task_type=task)
    adapter = import_peft(tmp_path / "theirs")
    export_peft(tmp_path / "ours", adapter.factors, {}, kind=adapter.kind, base_model="tiny")
    assert LoraConfig.from_pretrained(str(tmp_path / "ours")).task_type == task
    with pytest.raises(DataError, match=r"is for task_type 'POETRY'; expected one of SEQ_CLS, CAUSAL_LM, .*, or none"):
        import_peft(with_setting(tmp_path / "theirs", task_type="POETRY"))


def with_setting(folder: Path, **settings: object) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def test_damaged_folders_are_refused_in_one_line(tmp_path: Path):
    with pytest.raises(DataError, match=r"adapter_config\.json cannot be read"):
        import_peft(tmp_path)
    saved(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = next(name for name in tensors if "lora_A" in name)
    save_file({name: value for name, value in tensors.items() if name != first}, weights)
    with pytest.raises(DataError, match=r"expected lora_A \(r, in\) and lora_B \(out, r\)"):
        import_peft(tmp_path)
    save_file(tensors | {"base_model.model.embed.lora_embedding_A": np.zeros((2, 3), np.float32)}, weights)
    with pytest.raises(DataError, match="only LoRA of linear layers"):
        import_peft(tmp_path)
    save_file(tensors | {"base_model.model.a\nb.lora_A.weight": np.zeros((2, 3), np.float32)}, weights)
    with pytest.raises(DataError, match=r"a tensor named 'base_model\.model\.a\\nb\.lora_A"):
        import_peft(tmp_path)
    save_file(tensors | {first.replace("lora_A", "lora_A.other"): tensors[first]}, weights)
    with pytest.raises(DataError, match="under a second name too"):
        import_peft(tmp_path)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        import_peft(tmp_path)
