"""An adapter beside its base model and a task: what packs without them packs with them, or is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import airtune
from airtune.adapters import rounded
from airtune.adapters.imported import import_peft
from airtune.codec import Quantised
from airtune.errors import AirtuneError, ConfigError, DataError, ModelError
from airtune.methods.airllm.building import parts_of
from airtune.methods.airllm.config import load_config
from airtune.records import Silent
from airtune.services.beside import OnTask
from airtune.workloads.opening import open_reader
from services.tiny_runs import write_sentences
from tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its keys and values have 8 outputs of 16 inputs."""
    return save_tiny_model(tmp_path_factory.mktemp("beside") / "base", "llama")


@pytest.fixture(scope="module")
def task(base: Path) -> dict[str, str]:
    text = base.parent / "text.txt"
    text.write_text(" ".join(["the cat sat on a mat and then it ran fast"] * 400))
    return {"model": str(base), "task": "text", "data": str(text)}


HEAD = "base_model.model.lm_head.weight"


def save(folder: Path, base: Path, **settings: object) -> Path:
    torch.manual_seed(1)
    plain = {"target_modules": ["k_proj", "v_proj"], "task_type": "CAUSAL_LM", "init_lora_weights": False}
    config = LoraConfig(**{**plain, **settings})
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(str(folder))
    return folder


def test_a_rank_above_a_site_s_smaller_side_packs_as_its_singular_directions_do(base: Path, task: dict, tmp_path: Path):
    """Against a folder that holds NumPy's singular vectors of the same updates."""
    wide = save(tmp_path / "wide", base, r=12, lora_alpha=12)
    thin = save(tmp_path / "thin", base, r=8, lora_alpha=8)
    found = {}
    for path, site in import_peft(wide).factors.items():
        left, values, right = np.linalg.svd(site.p.astype(np.float64) @ site.q.astype(np.float64), full_matrices=False)
        for which, half in (("A", right), ("B", left * values)):
            name = f"base_model.model.{path}.lora_{which}.weight"
            found[name] = np.ascontiguousarray(half, np.float32)
    assert found.keys() == load_file(thin / "adapter_model.safetensors").keys()
    save_file(found, thin / "adapter_model.safetensors")
    packed = [airtune.pack(folder, tmp_path / "p.atn", budget_bits=9_000, **task) for folder in (wide, thin)]
    assert [done.rank_before for done in packed] == [48, 32]
    assert packed[0].total_rank == packed[1].total_rank
    assert packed[0].kept == pytest.approx(packed[1].kept, abs=1e-3)
    for ours, expected in zip(packed[0].sites, packed[1].sites, strict=True):
        assert ours.expected_loss == pytest.approx(expected.expected_loss, rel=0.02, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "line"), [(np.nan, "is not finite; check its training"), (1e30, "check (its|the adapter.s) training")]
)
def test_numbers_that_cannot_be_sent_are_refused_beside_a_task_too(base, task, tmp_path: Path, value, line):
    folder = save(tmp_path / "wide", base, r=12)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: np.full_like(tensor, value) for name, tensor in tensors.items()}, folder / "adapter_model.safetensors"
    )
    for beside in ({}, task):
        with pytest.raises(AirtuneError, match=line):
            airtune.pack(folder, tmp_path / "p.atn", budget_bits=20_000, **beside)


def test_an_adapter_without_directions_packs_beside_a_task(base: Path, task: dict, tmp_path: Path):
    folder = save(tmp_path / "none", base, r=4)
    tensors = load_file(folder / "adapter_model.safetensors")
    cut = {name: value[:0] if "lora_A" in name else value[:, :0].copy() for name, value in tensors.items()}
    save_file(cut, folder / "adapter_model.safetensors")
    for beside in ({}, {"model": str(base)}, task):
        assert airtune.pack(folder, tmp_path / "p.atn", budget_bits=9_000, **beside).total_rank == 0


def test_a_module_saved_whole_that_is_no_head_is_named(base: Path, task: dict, tmp_path: Path):
    folder = save(tmp_path / "head", base, modules_to_save=["lm_head", "model.norm"])
    line = r"holds lm_head\.weight \(32, 16\), model\.norm\.weight \(16,\) saved whole; .* has none for task text; "
    with pytest.raises(DataError, match=line):
        airtune.pack(folder, tmp_path / "p.atn", budget_bits=90_000, **task)
    assert not (tmp_path / "p.atn").exists()
    assert airtune.pack(folder, tmp_path / "p.atn", budget_bits=90_000, model=str(base)).bound_to == "weights"


def test_a_model_of_another_width_is_refused(base: Path, tmp_path: Path):
    folder = save(tmp_path / "kv", base)
    tensors = load_file(folder / "adapter_model.safetensors")
    wide = {name: np.tile(value, (1, 2)) if "lora_A" in name else value for name, value in tensors.items()}
    save_file(wide, folder / "adapter_model.safetensors")
    with pytest.raises(DataError, match=r"k_proj has shape \(8, 32\), that of .* is \(8, 16\); name the model"):
        airtune.pack(folder, tmp_path / "p.atn", budget_bits=20_000, model=str(base))


@pytest.mark.parametrize("task_type", ["SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"])
def test_a_model_that_is_no_language_model_or_classifier_is_left_out(base: Path, tmp_path: Path, task_type: str):
    """PEFT's wrapper of sequence to sequence asks for an encoder, so its record is changed after."""
    folder = save(tmp_path / "lora", base, r=4)
    record = folder / "adapter_config.json"
    record.write_text(record.read_text().replace('"CAUSAL_LM"', f'"{task_type}"'))
    with pytest.raises(DataError, match=r"the adapter is for (seq2seq|features); leave the model out"):
        airtune.pack(folder, tmp_path / "p.atn", budget_bits=9_000, model=str(base))
    airtune.pack(folder, tmp_path / "p.atn", budget_bits=9_000)
    assert LoraConfig.from_pretrained(str(airtune.unpack(tmp_path / "p.atn", tmp_path / "out"))).task_type == task_type


def test_data_without_a_task_are_refused(base: Path, task: dict, tmp_path: Path):
    with pytest.raises(ConfigError, match="data were given and no task; name the task too, or leave the data out"):
        airtune.pack(save(tmp_path / "kv", base), tmp_path / "p.atn", budget_bits=20_000, **{**task, "task": ""})


def test_modules_saved_whole_become_finer_with_the_budget(base: Path, tmp_path: Path):
    folder, errors = save(tmp_path / "head", base, modules_to_save=["lm_head", "model.norm"]), []
    sent = load_file(folder / "adapter_model.safetensors")[HEAD]
    for budget in (14_000, 16_000, 40_000):
        done = airtune.pack(folder, tmp_path / f"{budget}.atn", budget_bits=budget)
        found = load_file(airtune.unpack(done.file, tmp_path / f"{budget}") / "adapter_model.safetensors")[HEAD]
        error = np.linalg.norm(found - sent) / np.linalg.norm(sent)
        assert error == pytest.approx(done.dense_error, rel=0.5)  # the norm's error is in it too
        errors.append(error)
    assert errors[0] > 5 * errors[2]


def test_the_losses_told_are_those_that_peft_computes_on_test(base: Path, task: dict, tmp_path: Path):
    folder = save(tmp_path / "lora", base, r=4)
    done = airtune.pack(folder, tmp_path / "p.atn", budget_bits=9_500, **task)
    config = load_config("default", {"model.name": task["model"], "task.name": "text", "task.data": task["data"]})
    test = parts_of(config, open_reader(config)).test
    airtune.unpack(tmp_path / "p.atn", tmp_path / "out")
    for found, at in ((done.loss_before, folder), (done.loss, tmp_path / "out")):
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(at)).eval()
        with torch.no_grad():
            losses = [float(model(**windows, labels=windows["input_ids"]).loss) for windows in map(whole, test.ids)]
        assert found == pytest.approx(np.mean(losses), abs=2e-5)
    assert abs(done.loss - done.loss_before) > 1e-4


def whole(ids: np.ndarray) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.from_numpy(np.asarray(ids, np.int64))[None]}


def test_training_on_is_taken_only_if_the_loss_is_lower(base, task, tmp_path: Path, monkeypatch):
    folder = save(tmp_path / "lora", base, r=4)
    plain = airtune.pack(folder, tmp_path / "plain.atn", budget_bits=9_500, **task)
    better = airtune.pack(folder, tmp_path / "tuned.atn", budget_bits=9_500, **task, tune_steps=30)
    assert better.loss < plain.loss
    assert better.air_bits <= 9_500
    assert better.total_rank == plain.total_rank

    def louder(self, coded, steps, bases, progress):
        return Quantised(coded, {}).louder(16).coded

    monkeypatch.setattr(OnTask, "tune", louder)
    worse = airtune.pack(folder, tmp_path / "worse.atn", budget_bits=9_500, **task, tune_steps=30)
    assert worse.loss == plain.loss
    assert (tmp_path / "worse.atn").read_bytes() == (tmp_path / "plain.atn").read_bytes()


def test_what_breaks_while_training_on_leaves_the_payload_as_it_was(base, task, tmp_path: Path, monkeypatch):
    folder, said = save(tmp_path / "lora", base, r=4), list[str]()
    airtune.pack(folder, tmp_path / "plain.atn", budget_bits=9_500, **task)

    class Heard(Silent):
        say = staticmethod(said.append)

    def diverges(*args: object, **named: object) -> None:
        raise ModelError("the loss is nan at step 3")

    monkeypatch.setattr(rounded, "tune", diverges)
    airtune.pack(folder, tmp_path / "kept.atn", budget_bits=9_500, **task, tune_steps=30, progress=Heard())
    assert (tmp_path / "kept.atn").read_bytes() == (tmp_path / "plain.atn").read_bytes()
    assert [line for line in said if line.endswith("is sent as it was: the loss is nan at step 3")] == said[-1:]


def test_a_classifier_whose_head_was_drawn_has_no_loss(tmp_path: Path):
    """PEFT saves the head along where it is told that the task is classification, and else does not."""
    base = save_tiny_model(tmp_path / "bert", "bert", kind="classify")
    task = {"model": str(base), "task": "classify", "data": str(write_sentences(tmp_path / "rows.csv", 800))}
    for kind in (None, "SEQ_CLS"):
        config = LoraConfig(target_modules=["query", "value"], task_type=kind, init_lora_weights=False)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
        get_peft_model(model, config).save_pretrained(str(tmp_path / f"lora-{kind}"))
    with pytest.raises(DataError, match=r"holds no head, and that of .* was drawn at random.*\(modules_to_save\)"):
        airtune.pack(tmp_path / "lora-None", tmp_path / "p.atn", budget_bits=40_000, **task)
    assert airtune.pack(tmp_path / "lora-SEQ_CLS", tmp_path / "p.atn", budget_bits=40_000, **task).loss > 0
