"""Cores from training to the receiver's PEFT folder: the same function, and refused where it would be another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

import airtune
from airtune.adapters.imported import import_peft
from airtune.errors import AirtuneError, ConfigError, PayloadError, RunError
from tiny_models import save_tiny_model

TOKENS = torch.arange(4, 28)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("cores") / "base", "llama")


@pytest.fixture(scope="module")
def task(base: Path) -> dict[str, str]:
    text = base.parent / "text.txt"
    text.write_text(" ".join(["the cat sat on a mat and then it ran fast"] * 400))
    return {"model": str(base), "task": "text", "data": str(text)}


@pytest.fixture(scope="module")
def trained(base: Path, task: dict) -> Path:
    return airtune.train(base.parent / "cores", **task, rank=2, core_size=4, steps=6).folder


def weights(base: Path) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in AutoModelForCausalLM.from_pretrained(base).state_dict().items()}


def update_of(folder: Path, path: str) -> np.ndarray:
    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{path}.lora_{which}.weight"].astype(float) for which in "AB")
    return b @ a  # alpha = r


def logits(base: Path, folder: Path) -> np.ndarray:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder))
    with torch.inference_mode():
        return model(input_ids=TOKENS).logits.numpy()


def test_what_train_writes_lies_between_the_largest_singular_vectors(base: Path, trained: Path):
    """Against NumPy's projections onto them; all of it is reached, and it is not nothing."""
    own = weights(base)
    for path in import_peft(trained).factors:
        u, _, vt = np.linalg.svd(own[f"{path}.weight"].astype(float))
        update = update_of(trained, path)
        reached = u[:, :4] @ u[:, :4].T @ update @ vt[:4].T @ vt[:4]
        np.testing.assert_allclose(reached, update, atol=1e-6 * np.abs(update).max())
        assert np.abs(update).max() > 0
        assert np.linalg.matrix_rank(update, tol=1e-5 * np.abs(update).max()) <= 2


def test_the_receiver_s_folder_computes_what_was_trained_in_fewer_bits(base, task, trained, tmp_path: Path):
    cores = airtune.pack(trained, tmp_path / "c.atn", budget_bits=60_000, **task, core_size=4)
    assert cores.kept > 0.9999
    folder = airtune.unpack(tmp_path / "c.atn", tmp_path / "out", model=str(base), core_size=4)
    plain, expected, found = AutoModelForCausalLM.from_pretrained(base), logits(base, trained), logits(base, folder)
    with torch.inference_mode():
        without = plain(input_ids=TOKENS).logits.numpy()
    assert np.abs(found - expected).max() < 0.02 * np.abs(without - expected).max()
    whole = airtune.pack(trained, tmp_path / "w.atn", budget_bits=60_000, **task)
    assert cores.numbers < 0.6 * whole.numbers
    assert {site.name for site in cores.sites} == set(import_peft(trained).factors)


def test_cores_are_trained_on_through_their_rounding(base: Path, task: dict, trained: Path, tmp_path: Path):
    """At some three bits a number; the loss told is that of the folder unpacked, packed anew with bits to spare."""
    plain = airtune.pack(trained, tmp_path / "p.atn", budget_bits=6_500, **task, core_size=4)
    tuned = airtune.pack(trained, tmp_path / "t.atn", budget_bits=6_500, **task, core_size=4, tune_steps=40)
    assert tuned.loss < plain.loss
    assert tuned.air_bits <= 6_500
    folder = airtune.unpack(tmp_path / "t.atn", tmp_path / "out", model=str(base), core_size=4)
    again = airtune.pack(folder, tmp_path / "again.atn", budget_bits=200_000, **task)
    assert again.loss_before == pytest.approx(tuned.loss, abs=1e-3)


def test_what_is_kept_of_plain_lora_is_its_share_between_the_bases(base: Path, task: dict, tmp_path: Path):
    """Against NumPy's projections; every direction of a site of 8 outputs is reached with all 8."""
    folder = airtune.train(tmp_path / "lora", **task, rank=2, steps=3).folder
    own, kept, whole = weights(base), 0.0, 0.0
    for path in import_peft(folder).factors:
        u, _, vt = np.linalg.svd(own[f"{path}.weight"].astype(float))
        update = update_of(folder, path)
        kept += np.square(u[:, :4].T @ update @ vt[:4].T).sum()
        whole += np.square(update).sum()
    packed = airtune.pack(folder, tmp_path / "p.atn", budget_bits=200_000, model=str(base), core_size=4)
    assert 0.05 < kept / whole < 0.95
    assert packed.kept == pytest.approx(kept / whole, abs=2e-3)


def scaled(base: Path, folder: Path) -> Path:
    """The same model but for one weight."""
    other = save_tiny_model(folder, "llama")
    tensors = load_file(other / "model.safetensors")
    first = next(name for name in tensors if name.endswith("q_proj.weight"))
    save_file({**tensors, first: tensors[first] * 1.01}, other / "model.safetensors", {"format": "pt"})
    return other


def test_without_the_model_or_with_another_one_nothing_comes_out(base: Path, trained: Path, tmp_path: Path):
    airtune.pack(trained, tmp_path / "c.atn", budget_bits=60_000, model=str(base), core_size=4, short=False)
    with pytest.raises(PayloadError, match=r"comes as a core .*, no bases are at hand; .*unpack --model"):
        airtune.unpack(tmp_path / "c.atn", tmp_path / "out")
    with pytest.raises(PayloadError, match="the payload is for base model"):
        airtune.unpack(tmp_path / "c.atn", tmp_path / "out", model=str(scaled(base, tmp_path / "other")))
    assert not (tmp_path / "out").exists()
    with pytest.raises(PayloadError, match="the payload is for base model"):
        airtune.inspect(tmp_path / "c.atn", model=str(tmp_path / "other"))
    airtune.unpack(tmp_path / "c.atn", tmp_path / "out", model=str(base))  # says itself how many vectors


def test_another_number_of_vectors_than_the_payload_s_is_refused(base: Path, trained: Path, tmp_path: Path):
    for name, size, has in (("c", 4, "cores between 4 singular vectors"), ("w", 0, "no cores")):
        file = airtune.pack(
            trained, tmp_path / f"{name}.atn", budget_bits=60_000, model=str(base), core_size=size, short=False
        ).file
        for ask in (airtune.inspect, lambda file, **options: airtune.unpack(file, tmp_path / "out", **options)):
            with pytest.raises(ConfigError, match=f"core_size is 5, and the payload has {has}"):
                ask(file, model=str(base), core_size=5)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("core_size", [0, 4])
def test_a_short_payload_is_the_whole_one_without_what_the_model_tells(base, task, trained, tmp_path: Path, core_size):
    """Same directions and codes at the same price of a bit, so what comes out is the same but for the room gained."""
    sizes, folders = {}, {}
    for short in (True, False):
        file = tmp_path / f"{short}.atn"
        packed = airtune.pack(trained, file, budget_bits=10**9, **task, core_size=core_size, short=short)
        sizes[short] = packed.payload_bits
        folders[short] = airtune.unpack(file, tmp_path / f"{short}", model=str(base), core_size=core_size)
    whole, short = (load_file(folders[one] / "adapter_model.safetensors") for one in (False, True))
    assert whole.keys() == short.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(short[name], value, atol=1e-3 * np.abs(value).max())
    static = airtune.inspect(tmp_path / "False.atn").header_bytes
    assert sizes[False] - sizes[True] > 8 * (static - 120)
    info = airtune.inspect(tmp_path / "True.atn", model=str(base), core_size=core_size)
    assert [(site.name, site.rank) for site in info.sites] == [
        (site.name, site.rank) for site in airtune.inspect(tmp_path / "False.atn").sites
    ]


def test_a_short_payload_opens_beside_its_own_model_alone(base: Path, task: dict, trained: Path, tmp_path: Path):
    file = tmp_path / "c.atn"
    airtune.pack(trained, file, budget_bits=60_000, **task, core_size=4)  # short by itself
    for asks in (airtune.inspect, lambda file, **options: airtune.unpack(file, tmp_path / "out", **options)):
        with pytest.raises(PayloadError, match=r"the payload is short: .* name it \(--model\)"):
            asks(file)
        for options, what in (
            ({"model": str(base)}, "whole updates"),
            ({"model": str(base), "core_size": 3}, "cores between 3 singular vectors"),
            ({"model": str(scaled(base, tmp_path / "other")), "core_size": 4}, "cores between 4 singular vectors"),
        ):
            with pytest.raises(PayloadError, match=f"the payload is not of {what}"):
                asks(file, **options)
    assert not (tmp_path / "out").exists()


def test_a_prefix_of_cores_is_an_adapter_too(base: Path, task: dict, trained: Path, tmp_path: Path):
    airtune.pack(trained, tmp_path / "c.atn", budget_bits=60_000, **task, core_size=4, short=False)
    header = airtune.inspect(tmp_path / "c.atn").header_bytes
    folder = airtune.unpack(tmp_path / "c.atn", tmp_path / "none", prefix_bytes=header, model=str(base))
    assert all(not site.update().any() for site in import_peft(folder).factors.values())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"core_size": 4, "model": "", "task": "", "data": ""}, "give 0 or more, the model whose they are"),
        ({"core_size": -1}, "cores between -1 singular vectors"),
        (
            {"short": True, "model": "", "task": "", "data": ""},
            "a short payload was asked for; it takes the base model",
        ),
    ],
)
def test_cores_that_cannot_be_are_refused(base, task, trained, tmp_path: Path, options: dict, line: str):
    with pytest.raises(ConfigError, match=line):
        airtune.pack(trained, tmp_path / "c.atn", budget_bits=60_000, **{**task, **options})
    assert not (tmp_path / "c.atn").exists()


def test_training_goes_on_where_it_was_stopped(base: Path, task: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Stopped in its second training; the first is not repeated, and the end is what it is undisturbed."""
    from airtune.services import training

    trainings, train_lora = [], training.train_lora

    def stops(*args: object, **options: object) -> object:
        trainings.append(1)
        if len(trainings) == 2:
            raise KeyboardInterrupt
        return train_lora(*args, **options)

    settings = {**task, "rank": 4, "steps": 2}
    monkeypatch.setattr(training, "train_lora", stops)
    with pytest.raises(KeyboardInterrupt):
        airtune.train(tmp_path / "stopped", **settings)
    done = airtune.train(tmp_path / "stopped", **settings)
    assert len(trainings) == 2 + 2
    whole = airtune.train(tmp_path / "whole", **settings)
    assert done.tried == whole.tried
    assert done.chosen.dev_loss == min(one.dev_loss for one in done.tried)
    found, expected = (load_file(one.folder / "adapter_model.safetensors") for one in (done, whole))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped", "whole"]


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"rank": 0}, ConfigError, "rank 0 is asked for; give 1 at least"),
        ({"core_size": -2}, ConfigError, "rank 1 between -2 singular vectors"),
        ({"model": "nowhere"}, AirtuneError, "nowhere"),
        ({"overrides": {"link.bandwidth_hz": 1e6}}, ConfigError, "link.bandwidth_hz changes nothing in a training"),
        ({"overrides": {"task.data": "x"}}, ConfigError, "task.data is given as a setting and by an option"),
        ({"overrides": {"task.dev_items": 0}}, ConfigError, "task.dev_items is 0"),
    ],
)
def test_training_that_cannot_be_is_refused(task: dict, tmp_path: Path, options: dict, error: type, line: str):
    with pytest.raises(error, match=line):
        airtune.train(tmp_path / "out", **{**task, **options})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_left_alone(task: dict, tmp_path: Path):
    with pytest.raises(RunError, match="exists; expected a new folder"):
        airtune.train(tmp_path, **task)
