"""Anybody's PEFT adapter through `airtune.pack`: within its budget, for its base model, back as a PEFT folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import airtune
from airtune.adapters.imported import import_peft
from airtune.cli.app import app
from airtune.codec import Binding, Draft, Factors, chunk_ends, code_adapter, decode
from airtune.errors import ConfigError, DataError, PayloadError
from airtune.models import load_base
from tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base model, and an adapter of two kinds of its projections."""
    root = tmp_path_factory.mktemp("pack")
    base = save_tiny_model(root / "base", "llama")
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(str(root / "peft"))
    return base, root / "peft"


def test_more_bits_bring_more_of_the_update_and_never_exceed_the_budget(folders, tmp_path: Path):
    kept = []
    for budget in (9_000, 12_000, 20_000):
        done = airtune.pack(folders[1], tmp_path / f"{budget}.atn", budget_bits=budget)
        assert done.air_bits <= budget
        assert done.payload_bits == 8 * done.file.stat().st_size
        assert done.bound_to == "name"
        kept.append(done.kept)
    assert kept == sorted(kept)
    assert kept[-1] > 0.99


def test_a_link_is_a_budget(folders, tmp_path: Path):
    """Shannon at 0 dB: one bit a hertz and second."""
    done = airtune.pack(folders[1], tmp_path / "p.atn", snr_db=0.0, bandwidth_hz=20_000.0, deadline_s=0.5)
    assert done.budget_bits == 10_000
    assert done.air_bits <= 10_000


def test_a_named_model_binds_the_payload_to_its_weights_and_sites(folders, tmp_path: Path):
    base = load_base(str(folders[0]), "text", labels=0)
    done = airtune.pack(folders[1], tmp_path / "p.atn", budget_bits=20_000, model=str(folders[0]))
    decoded = decode(done.file.read_bytes(), Binding(base.sha256, base.tokenizer_sha256))
    assert list(decoded.factors) == [site.path for site in base.sites]
    assert {path.rsplit(".", 1)[-1] for path, site in decoded.factors.items() if site.rank} == {"q_proj", "up_proj"}
    by_name = airtune.pack(folders[1], tmp_path / "n.atn", budget_bits=20_000)
    line = r"the payload is bound to its base model's name alone, .*; leave the model out \(--model\), or pack"
    with pytest.raises(PayloadError, match=line):
        decode(by_name.file.read_bytes(), Binding(base.sha256, base.tokenizer_sha256))
    with pytest.raises(PayloadError, match=line):
        airtune.unpack(by_name.file, tmp_path / "out", model=str(folders[0]))
    with pytest.raises(PayloadError, match=line.replace("the payload", "what is held")):
        airtune.pack(folders[1], tmp_path / "c.atn", budget_bits=9_000, since=[by_name.file], model=str(folders[0]))


def test_curvature_from_a_text_spends_the_bits_where_the_loss_bends(folders, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(["the cat sat on a mat and then it ran fast"] * 400))
    plain = airtune.pack(folders[1], tmp_path / "a.atn", budget_bits=11_000, model=str(folders[0]))
    bent = airtune.pack(
        folders[1], tmp_path / "b.atn", budget_bits=11_000, model=str(folders[0]), task="text", data=str(text)
    )
    assert bent.air_bits <= 11_000
    assert bent.kept < plain.kept  # of the plain squared update: it is not what is held on to


def test_it_comes_back_as_a_peft_folder(folders, tmp_path: Path):
    airtune.pack(folders[1], tmp_path / "p.atn", budget_bits=100_000)
    back, sent = import_peft(airtune.unpack(tmp_path / "p.atn", tmp_path / "back")), import_peft(folders[1])
    for path, site in sent.factors.items():
        error = np.linalg.norm(back.factors[path].update() - site.update()) / np.linalg.norm(site.update())
        assert error < 2e-3  # steps are not below a thousandth of the largest number


def test_refusals(folders, tmp_path: Path):
    with pytest.raises(PayloadError, match="1000 bits on the air do not hold the"):
        airtune.pack(folders[1], tmp_path / "p.atn", budget_bits=1000)
    line = r"take \d+ bits and \d+ go beside the payload; the budget is 5000; raise it"
    with pytest.raises(PayloadError, match=line):
        airtune.pack(folders[1], tmp_path / "p.atn", budget_bits=5000)
    for given in ({}, {"budget_bits": 1, "snr_db": 0.0}, {"snr_db": 0.0}):
        with pytest.raises(ConfigError, match="give either budget_bits"):
            airtune.pack(folders[1], tmp_path / "p.atn", **given)
    with pytest.raises(ConfigError, match="name the base model too"):
        airtune.pack(folders[1], tmp_path / "p.atn", budget_bits=20_000, task="text")
    other = save_tiny_model(tmp_path / "other", "opt")
    with pytest.raises(DataError, match="is no site of"):
        airtune.pack(folders[1], tmp_path / "p.atn", budget_bits=20_000, model=str(other))
    assert not (tmp_path / "p.atn").exists()


def test_a_prefix_comes_back_as_the_chunks_that_are_whole(folders, tmp_path: Path):
    """After the header, and a byte before, at and beyond the ends of chunks."""
    done = airtune.pack(folders[1], tmp_path / "p.atn", budget_bits=100_000)
    ends = chunk_ends(done.file.read_bytes())
    for size in sorted({ends[0], ends[1] - 1, ends[1], ends[-1], ends[-1] + 100}):
        back = import_peft(airtune.unpack(done.file, tmp_path / str(size), prefix_bytes=size))
        expected = decode(done.file.read_bytes()[: max(end for end in ends if end <= size)], None, allow_prefix=True)
        for path, site in expected.factors.items():
            there = back.factors[path].update() if path in back.factors else np.zeros(site.shape)  # PEFT has no rank 0
            np.testing.assert_allclose(there, site.update(), rtol=1e-5, atol=1e-7)
    with pytest.raises(PayloadError, match=f"3 bytes are asked for, the header alone has {ends[0]}; ask for more"):
        airtune.unpack(done.file, tmp_path / "none", prefix_bytes=3)
    assert not (tmp_path / "none").exists()


def test_unpacking_a_prefix_tells_how_much_of_it_arrived(folders, tmp_path: Path):
    done = airtune.pack(folders[1], tmp_path / "p.atn", budget_bits=100_000)
    data, run = done.file.read_bytes(), CliRunner()
    ends = chunk_ends(data)
    for size, chunks in ((ends[0], 0), (ends[-1] - 1, len(ends) - 2), (ends[-1], len(ends) - 1)):
        out = run.invoke(app, ["unpack", str(done.file), str(tmp_path / str(size)), "--bytes", str(size)]).output
        directions = sum(decode(data[: ends[chunks]], None, allow_prefix=True).ranks)
        assert f"Of {len(ends) - 1} chunks {chunks} arrived, with {directions} directions." in out
        info = airtune.inspect(done.file, prefix_bytes=size)
        assert (info.chunks_received, sum(site.rank for site in info.sites)) == (chunks, directions)


@pytest.mark.parametrize("out", [".", ""])
def test_a_payload_is_not_written_over_a_folder(folders, out: str):
    with pytest.raises(ConfigError, match=r"is a folder; give a file for the payload, adapter.atn for instance"):
        airtune.pack(folders[1], out, budget_bits=100_000)


def test_the_loss_expected_of_every_site_is_half_of_its_squared_error(folders, tmp_path: Path):
    """Without curvature."""
    done = airtune.pack(folders[1], tmp_path / "p.atn", budget_bits=12_000)
    found, sent = decode(done.file.read_bytes(), None), import_peft(folders[1])
    assert [site.name for site in done.sites] == list(sent.factors)
    assert sum(site.rank for site in done.sites) == done.total_rank
    for site in done.sites:
        exact = sent.factors[site.name]
        error = ((exact.update() - found.factors[site.name].update()) ** 2).sum()
        assert (site.rank, site.rank_before) == (found.factors[site.name].rank, exact.rank)
        assert site.expected_loss == pytest.approx(error / 2, rel=1e-3)


def test_pack_and_inspect_list_every_site_with_what_it_loses(folders, tmp_path: Path):
    file, run = str(tmp_path / "p.atn"), CliRunner()
    packed = run.invoke(app, ["pack", str(folders[1]), file, "--bits", "12000", "--sites"])
    assert packed.exit_code == 0
    assert "Expected loss in half of the squared error" in packed.output
    listed = run.invoke(app, ["inspect", file])
    unpacked = run.invoke(app, ["unpack", file, str(tmp_path / "out")])
    assert "weights you have was not checked; --model FOLDER does" in unpacked.output
    assert "of the update" in listed.output
    for name in import_peft(folders[1]).factors:
        assert name in packed.output
        assert name in listed.output


def test_brackets_in_names_and_paths_are_shown_as_they_are(folders, tmp_path: Path):
    """Rich would read them as markup, and end with a traceback where they do not close."""
    site = Factors(np.ones((4, 1)), np.ones(1), np.ones((1, 4)))
    coded = code_adapter({"layer.0[/b].query": site}, {}, 1e-3, canonical=True)
    file = tmp_path / "r7[/d]" / "p.atn"  # a folder "r7[" and in it "d]"
    file.parent.mkdir(parents=True)
    file.write_bytes(Draft(coded, Binding("0" * 64, "1" * 64), {"base_model": "/models/[/x][v2]gpt2"}).encode([1]).data)
    listed = CliRunner().invoke(app, ["inspect", str(file)])
    assert listed.exit_code == 0, listed.exception
    for shown in ("layer.0[/b].query", "(/models/[/x][v2]gpt2)", "r7[/d]"):
        assert shown in listed.output.replace("\n", "")


def test_what_changed_since_is_packed_and_opens_on_what_is_held_alone(folders, tmp_path: Path):
    """Tensors of the folder moved by a hundredth, twice; the update that comes back is the one that was packed."""
    first, base = tmp_path / "0.atn", airtune.pack(folders[1], tmp_path / "0.atn", budget_bits=12_000)
    chain, names = [first], [airtune.inspect(first).adapter]
    for turn in (1, 2):
        folder, rng = tmp_path / f"peft{turn}", np.random.default_rng(turn)
        shutil.copytree(folders[1], folder)
        tensors = load_file(folder / "adapter_model.safetensors")
        moved = {name: value + 0.01 * rng.normal(size=value.shape) for name, value in tensors.items()}
        moved = {name: value.astype(np.float32) for name, value in moved.items()}
        save_file(moved, folder / "adapter_model.safetensors")
        done = airtune.pack(folder, tmp_path / f"{turn}.atn", budget_bits=9_000, since=chain)
        alone = airtune.pack(folder, tmp_path / "alone.atn", budget_bits=9_000)
        assert done.air_bits <= 9_000 < base.air_bits
        assert done.kept > alone.kept
        info = airtune.inspect(done.file, since=chain)
        assert info.changes == names[-1]
        back = import_peft(airtune.unpack(done.file, tmp_path / f"back{turn}", since=chain))
        for path, site in import_peft(folder).factors.items():
            error = np.linalg.norm(back.factors[path].update() - site.update()) / np.linalg.norm(site.update())
            assert error**2 < 3 * (1 - done.kept)
        for wrong in ([], chain[:-1], [*chain, done.file]):
            with pytest.raises(PayloadError, match=r"changes adapter .*, this receiver holds"):
                airtune.unpack(done.file, tmp_path / "wrong", since=wrong)
        chain.append(done.file)
        names.append(info.adapter)
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(PayloadError, match="what is held is bound to its base model's name alone"):
        airtune.pack(folders[1], tmp_path / "x.atn", budget_bits=9_000, since=chain, model=str(folders[0]))


def test_training_on_through_the_rounding_lowers_the_loss_within_the_same_budget(folders, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(["the cat sat on a mat and then it ran fast"] * 400))
    task = {"budget_bits": 11_000, "model": str(folders[0]), "task": "text", "data": str(text)}
    losses = []
    for steps in (0, 30):
        done = airtune.pack(folders[1], tmp_path / f"{steps}.atn", **task, tune_steps=steps)
        assert done.air_bits <= 11_000
        model = AutoModelForCausalLM.from_pretrained(folders[0])
        peft = PeftModel.from_pretrained(model, str(airtune.unpack(done.file, tmp_path / f"out{steps}"))).eval()
        ids = AutoTokenizer.from_pretrained(folders[0])(text.read_text()[:400], return_tensors="pt")["input_ids"][
            :, :64
        ]
        with torch.no_grad():
            losses.append(float(peft(input_ids=ids, labels=ids).loss))
    assert losses[1] < losses[0]


def test_nothing_that_is_read_is_written_over(folders, tmp_path: Path):
    lora = tmp_path / "lora"
    shutil.copytree(folders[1], lora)
    airtune.pack(lora, tmp_path / "held.atn", budget_bits=20_000)
    before = {path: path.read_bytes() for path in (tmp_path / "held.atn", *lora.iterdir())}
    for out in (lora / "adapter_model.safetensors", lora / "adapter_config.json"):
        with pytest.raises(ConfigError, match="is among what is read; give another file"):
            airtune.pack(lora, out, budget_bits=20_000)
    with pytest.raises(ConfigError, match="is among what is read; give another file"):
        airtune.pack(lora, tmp_path / "held.atn", budget_bits=20_000, since=[tmp_path / "held.atn"])
    assert {path: path.read_bytes() for path in before} == before
    airtune.pack(lora, lora / "beside.atn", budget_bits=20_000)


@pytest.mark.parametrize("bits", [40_000.5, float("nan"), True])
def test_a_budget_is_a_whole_number(folders, tmp_path: Path, bits):
    with pytest.raises(ConfigError, match=r"budget_bits is .*; give a whole number of bits"):
        airtune.pack(folders[1], tmp_path / "p.atn", budget_bits=bits)


def test_a_site_that_the_new_adapter_lacks_counts_while_the_receiver_has_it(folders, tmp_path: Path):
    """Held: all sites. New: the first alone, so that what is left of the others is error, here almost all of it."""
    held, fewer = tmp_path / "held.atn", tmp_path / "fewer"
    airtune.pack(folders[1], held, budget_bits=40_000)
    shutil.copytree(folders[1], fewer)
    tensors = load_file(fewer / "adapter_model.safetensors")
    sites = sorted({name.rsplit(".lora_")[0] for name in tensors})
    save_file({n: t for n, t in tensors.items() if n.startswith(f"{sites[0]}.")}, fewer / "adapter_model.safetensors")
    done = airtune.pack(fewer, tmp_path / "changes.atn", budget_bits=5_000, since=[held])
    assert len(done.sites) == len(sites)
    now = import_peft(airtune.unpack(tmp_path / "changes.atn", tmp_path / "out", since=[held])).factors
    new = import_peft(fewer).factors
    error = sum(((site.update() - (new[n].update() if n in new else 0)) ** 2).sum() for n, site in now.items())
    whole = sum((site.update() ** 2).sum() for site in new.values())
    assert done.kept == pytest.approx(1 - error / whole, abs=1e-4)
    assert done.kept < 0.999


def test_changes_keep_the_notes_of_what_is_held(folders, tmp_path: Path):
    airtune.pack(folders[1], tmp_path / "held.atn", budget_bits=20_000)
    other = tmp_path / "other"
    shutil.copytree(folders[1], other)
    record = json.loads((other / "adapter_config.json").read_text())
    for name, value, line in (
        ("task_type", "TOKEN_CLS", "kind is 'text', this one's 'classify-tokens'"),
        ("fan_in_fan_out", True, "fan_in_fan_out is 0, this one's 1"),
        ("revision", "step1000", "send one made for this base model"),
    ):
        (other / "adapter_config.json").write_text(json.dumps(record | {name: value}))
        with pytest.raises(PayloadError, match=line):
            airtune.pack(other, tmp_path / "p.atn", budget_bits=20_000, since=[tmp_path / "held.atn"])
    airtune.pack(other, tmp_path / "p.atn", budget_bits=20_000)
    assert PeftConfig.from_pretrained(str(airtune.unpack(tmp_path / "p.atn", tmp_path / "back"))).revision == "step1000"
    bound = [airtune.inspect(tmp_path / name).binding.base_sha256 for name in ("held.atn", "p.atn")]
    assert bound[0] != bound[1]


def test_training_on_needs_a_task_and_nothing_that_is_held(folders, tmp_path: Path):
    for more in ({}, {"model": str(folders[0])}, {"model": str(folders[0]), "task": "text", "tune_steps": -1}):
        with pytest.raises(
            ConfigError, match="steps of training on were asked for; give 0 or more, a model and a task"
        ):
            airtune.pack(folders[1], tmp_path / "p.atn", **{"budget_bits": 20_000, "tune_steps": 5, **more})
    assert not (tmp_path / "p.atn").exists()
