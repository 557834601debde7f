"""LoRA trained by peft: the same logits in our adapter, the nested adapter's own batches, the base model untouched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from baseline_material import PLAN, tiny
from torch import nn
from transformers.pytorch_utils import Conv1D

from airtune.adapters import Adapter, RankSampler, RankVector
from airtune.errors import ConfigError, ModelError
from airtune.methods.airllm.baselines.adalora import train_adalora
from airtune.methods.airllm.baselines.direct import train_lora
from airtune.methods.airllm.baselines.training import score_adapter
from airtune.methods.airllm.packing import block_packer
from airtune.methods.airllm.trainee import Trainee
from airtune.models import Items, score, weights_hash
from airtune.records import Measurements, generator
from tiny_models import CONFIGS

IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 10, 11, 3]])


@torch.no_grad()
def logits_of(base) -> torch.Tensor:
    base.model.eval()
    return base.model(input_ids=IDS).logits


def loaded_logits(base, trained) -> torch.Tensor:
    """What our own layers make of the factors, on the bare model."""
    adapter = Adapter(base, max(1, *trained.ranks.ranks), generator=torch.Generator())
    adapter.load(trained.factors, trained.dense)
    found = logits_of(base)
    adapter.detach()
    return found


@pytest.mark.parametrize(
    ("family", "kind"), [*((family, "text") for family in CONFIGS), ("bert", "classify"), ("gpt2", "classify")]
)
@pytest.mark.parametrize("rslora", [False, True])
def test_the_factors_give_the_logits_of_pefts_own_layers(family, kind, rslora, tmp_path):
    base, parts = tiny(tmp_path, family, kind)
    bare, seen = logits_of(base), []
    trained = train_lora(
        base, parts, PLAN, 4, alpha=12, rslora=rslora, on_step=lambda step: seen.append(logits_of(base))
    )
    assert len(seen) == len(trained.losses) == PLAN.steps
    assert (seen[-1] - bare).abs().max() > 1e-2  # something was learned
    assert (loaded_logits(base, trained) - seen[-1]).abs().max() < 1e-5
    assert trained.ranks == RankVector.uniform(base.sites, 4)
    assert list(trained.factors) == [site.path for site in base.sites]


def test_a_rank_above_a_sites_smaller_side_is_that_side(tmp_path):
    base, parts = tiny(tmp_path, "llama")
    seen = []
    trained = train_lora(base, parts, PLAN, 12, alpha=12, on_step=lambda step: seen.append(logits_of(base)))
    assert set(trained.ranks.ranks) == {8, 12}  # keys and values of grouped queries are 8 wide
    assert (loaded_logits(base, trained) - seen[-1]).abs().max() < 1e-5


def test_rslora_divides_alpha_by_the_root_of_the_rank(tmp_path):
    """8 / sqrt(4) = 4 = 16 / 4: the same scale, so the same training; alpha / r = 2 is another."""
    base, parts = tiny(tmp_path, "opt")
    rooted = train_lora(base, parts, PLAN, 4, alpha=8, rslora=True)
    assert rooted.losses == train_lora(base, parts, PLAN, 4, alpha=16).losses
    assert rooted.losses != train_lora(base, parts, PLAN, 4, alpha=8).losses


def recorded_rows(monkeypatch) -> list[np.ndarray]:
    rows, batch = [], Items.batch
    monkeypatch.setattr(Items, "batch", lambda items, chosen: rows.append(np.asarray(chosen)) or batch(items, chosen))
    return rows


def test_every_baseline_sees_the_batches_of_the_nested_adapter_in_their_order(tmp_path, monkeypatch):
    base, parts = tiny(tmp_path / "base", "bert", "classify")  # with dropout, drawn from seed and step
    rows = recorded_rows(monkeypatch)
    adapter = Adapter(base, 2, generator=torch.Generator().manual_seed(0))
    trainee, losses = Trainee(adapter, parts, Measurements(tmp_path / "m.jsonl")), []
    trainee.train(
        PLAN,
        RankSampler(),
        orthogonality=0.0,
        checkpoint=tmp_path / "c.safetensors",
        on_step=lambda step: losses.append(step.loss),
    )
    nested = [list(row) for row in rows]
    assert len(nested) == PLAN.steps
    adapter.detach()
    with torch.no_grad():  # the nested run trained the head
        fresh = tiny(tmp_path / "again", "bert", "classify")[0]
        for name in base.head:
            base.model.get_parameter(name).copy_(fresh.model.get_parameter(name))
    for train in (train_lora, train_adalora):
        rows.clear()
        total = 2 if train is train_lora else 2 * len(base.sites)
        trained = train(base, parts, PLAN, total, alpha=4)
        assert [list(row) for row in rows] == nested
        assert trained.losses[0] == pytest.approx(losses[0], abs=1e-6)  # all start at the base model


def state_of(base) -> tuple[str, list[tuple[str, type]], bool, bool]:
    kinds = [(name, type(module)) for name, module in base.model.named_modules()]
    return (
        weights_hash(base.model),  # the head's too
        kinds,
        any(parameter.requires_grad for parameter in base.model.parameters()),
        base.model.training,
    )


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("baseline", ["lora", "adalora"])
def test_the_base_model_is_left_as_it_was_found(family, baseline, tmp_path):
    base, parts = tiny(tmp_path, family, "classify")
    before, logits = state_of(base), logits_of(base)
    inside = []
    for seed in (0, 1):  # a second training starts from the same model
        plan = replace(PLAN, seed=seed)

        def look(step) -> None:
            inside.append(state_of(base)[1])

        if baseline == "lora":
            trained = train_lora(base, parts, plan, 2, alpha=4, on_step=look)
        else:
            trained = train_adalora(base, parts, plan, 2 * len(base.sites), alpha=4, on_step=look)
        assert inside[-1] != before[1]
        assert state_of(base) == before
        assert torch.equal(logits_of(base), logits)
        assert not hasattr(base.model, "peft_config")
        assert set(trained.dense) == set(base.head)
        assert all(isinstance(base.model.get_submodule(site.path), nn.Linear | Conv1D) for site in base.sites)


def test_training_that_diverges_names_the_step_and_leaves_the_base_model(tmp_path):
    base, parts = tiny(tmp_path, "opt")
    before = state_of(base)
    for train in (train_lora, train_adalora):
        with pytest.raises(ModelError, match=r"at step \d+ .*lower the learning rate") as caught:
            train(base, parts, replace(PLAN, learning_rate=1e30), 24, alpha=1e30)
        assert "\n" not in str(caught.value)
        assert state_of(base) == before


def test_a_factor_that_breaks_in_the_last_step_is_noticed_though_no_loss_shows_it(tmp_path):
    base, parts = tiny(tmp_path, "opt")

    @torch.no_grad()
    def poison(step) -> None:
        if step.index + 1 == PLAN.steps:
            base.model.get_submodule(base.sites[3].path).lora_B["default"].weight[0, 0] = float("nan")

    with pytest.raises(ModelError, match=f"{base.sites[3].path} are no longer finite after step 5"):
        train_lora(base, parts, PLAN, 2, alpha=4, on_step=poison)


def test_a_weight_changed_behind_the_training_is_noticed(tmp_path):
    base, parts = tiny(tmp_path, "gpt2")

    @torch.no_grad()
    def tamper(step) -> None:
        base.model.get_input_embeddings().weight[0, 0] += 1

    with pytest.raises(ModelError, match="changed the base model's own weights"):
        train_lora(base, parts, PLAN, 2, alpha=4, on_step=tamper)


def test_another_adapter_on_the_model_and_senseless_settings_are_refused(tmp_path):
    base, parts = tiny(tmp_path, "llama")
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="alpha is"):
            train_lora(base, parts, PLAN, 2, alpha=bad)
    with pytest.raises(ConfigError, match="r_max is 0"):
        train_lora(base, parts, PLAN, 0, alpha=4)
    adapter = Adapter(base, 2, generator=torch.Generator())
    with pytest.raises(ModelError, match="without another adapter"):
        train_lora(base, parts, PLAN, 2, alpha=4)
    adapter.detach()


def test_factors_and_head_travel_in_a_payload_and_score_alike(tmp_path):
    base, parts = tiny(tmp_path, "bert", "classify")
    trained = train_lora(base, parts, PLAN, 2, alpha=8)
    packer = block_packer(base, trained.factors, trained.dense, 32)
    payload = packer.encode(trained.ranks)
    assert payload.bits == packer.payload_bits(trained.ranks)
    decoded = packer.decode(payload)
    before = state_of(base)
    sent = score_adapter(base, decoded.factors, decoded.dense, parts.test)
    assert state_of(base) == before
    adapter = Adapter(base, 2, generator=torch.Generator())
    adapter.load(trained.factors, trained.dense)
    assert np.array_equal(sent.logits, score(base.model, parts.test).logits)
    adapter.detach()


def test_the_seed_draws_start_and_batches(tmp_path):
    base, parts = tiny(tmp_path, "llama")  # no dropout
    one, same, other = (train_lora(base, parts, replace(PLAN, seed=seed), 2, alpha=4) for seed in (1, 1, 2))
    assert one.losses == same.losses != other.losses
    first = parts.train.schedule(PLAN.steps, PLAN.batch_size, generator(1, "batches"))[0]
    with torch.no_grad():
        tokens = parts.train.batch(first).input_ids
        expected = float(base.model(input_ids=tokens, labels=tokens).loss)
    assert one.losses[0] == pytest.approx(expected, abs=1e-5)  # transformers' own loss of the bare model
