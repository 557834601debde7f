"""Loading, batching, fitting and scoring, against transformers' own numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from airtune.errors import ConfigError, DataError, ModelError
from airtune.models import FitPlan, Items, fit, head_only, load_base, score, sentences, windows
from tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("bert"), "bert", kind="classify")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("llama"), "llama")


TEXTS = ["the cat sat on the mat", "the dog ran", "a red log", "it was not fast and then it sat", "blue dog"]


def test_the_same_folder_has_the_same_identity_and_other_weights_another(bert, tmp_path):
    first, again = load_base(str(bert), "classify", labels=3), load_base(str(bert), "classify", labels=3, seed=7)
    other = load_base(str(save_tiny_model(tmp_path, "bert", kind="classify", seed=1)), "classify", labels=3)
    assert first.sha256 == again.sha256 != other.sha256
    assert first.tokenizer_sha256 == again.tokenizer_sha256
    assert first.head == ("classifier.bias", "classifier.weight")


def test_the_head_is_drawn_from_the_seed_and_leaves_the_global_generator_alone(bert):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, three = (load_base(str(bert), "classify", seed=seed).model.classifier.weight for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


@pytest.mark.parametrize("name", ["./nowhere", "no-such-owner/no-such-model"])
def test_a_model_that_is_not_there_is_one_clear_line(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError) as caught:
        load_base(name, "classify")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_score_is_the_models_own_cross_entropy_item_by_item(bert):
    base = load_base(str(bert), "classify", labels=2)
    items = sentences(TEXTS, [0, 1, 0, 1, 1], base.tokenizer, max_length=16)
    found = score(base.model, items, batch_size=2)
    for row, text in enumerate(TEXTS):
        encoded = base.tokenizer(text, return_tensors="pt")
        out = base.model(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            labels=torch.tensor([items.classes[row]]),
        )
        assert found.losses[row] == pytest.approx(float(out.loss), abs=1e-5)
        assert found.logits[row] == pytest.approx(out.logits[0].detach().numpy(), abs=1e-5)
    assert found.loss == pytest.approx(found.losses.mean())
    assert found.metric == pytest.approx(np.mean(found.logits.argmax(1) == items.classes))


def test_perplexity_of_a_text_is_exp_of_transformers_own_loss(llama):
    base = load_base(str(llama), "text")
    items = windows(" ".join(TEXTS * 4), base.tokenizer, window=12)
    found = score(base.model, items)
    ids = torch.from_numpy(np.stack(items.ids))
    expected = float(base.model(input_ids=ids, labels=ids).loss)
    assert found.loss == pytest.approx(expected, abs=1e-5)
    assert found.metric == pytest.approx(math.exp(expected), rel=1e-5)


def test_windows_cover_the_text_once_and_a_short_text_is_refused(llama):
    base = load_base(str(llama), "text")
    items = windows("the cat sat on a mat and then", base.tokenizer, window=3)
    ids = base.tokenizer("the cat sat on a mat and then", add_special_tokens=False)["input_ids"]
    assert [list(window) for window in items.ids] == [ids[0:3], ids[3:6]]
    with pytest.raises(DataError, match="1 tokens"):
        windows("cat", base.tokenizer, window=3)


def test_a_schedule_uses_every_row_once_per_pass_and_batches_like_lengths():
    lengths = np.random.default_rng(0).integers(2, 60, 640)
    items = Items(tuple(np.arange(n) for n in lengths), np.zeros(640, dtype=int), 0)
    schedule = items.schedule(20, 32, np.random.default_rng(1))
    assert sorted(np.concatenate(schedule)) == list(range(640))
    bucketed = sum(len(rows) * lengths[rows].max() for rows in schedule)
    shuffled = sum(32 * lengths[start : start + 32].max() for start in range(0, 640, 32))
    assert bucketed < 0.65 * shuffled


def test_fitting_learns_and_leaves_everything_frozen(bert):
    base = load_base(str(bert), "classify", labels=2)
    items = sentences(
        ["red cat", "red dog", "blue cat", "blue dog"] * 4, [0, 0, 1, 1] * 4, base.tokenizer, max_length=8
    )
    plan = FitPlan(steps=80, batch_size=8, learning_rate=1e-2)
    everything = dict(base.model.named_parameters())
    losses = [step.loss for step in fit(base.model, everything, items, plan, rng=np.random.default_rng(0))]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_a_loss_that_is_not_finite_stops_with_the_step(bert):
    base = load_base(str(bert), "classify", labels=2)
    with torch.no_grad():
        base.model.classifier.weight[0, 0] = float("nan")
    items = sentences(TEXTS, [0, 1, 0, 1, 1], base.tokenizer, max_length=8)
    head = {name: base.model.get_parameter(name) for name in base.head}
    with pytest.raises(ModelError, match="nan at step 0"):
        list(fit(base.model, head, items, FitPlan(steps=2, batch_size=2), rng=np.random.default_rng(0)))


def test_a_gradient_that_is_not_finite_stops_before_any_weight_takes_it_up(bert):
    """The root of a zero: a penalty of 0 whose slope is none."""
    base = load_base(str(bert), "classify", labels=2)
    items = sentences(TEXTS, [0, 1, 0, 1, 1], base.tokenizer, max_length=8)
    head = {name: base.model.get_parameter(name) for name in base.head}
    before = {name: parameter.detach().clone() for name, parameter in head.items()}
    weight = head["classifier.weight"]

    def penalty() -> torch.Tensor:
        return (weight.sum() - weight.sum().detach()).abs().sqrt()

    with pytest.raises(ModelError, match=r"gradient's norm is nan at step 0 \(rows \[.*; lower the learning rate"):
        list(
            fit(base.model, head, items, FitPlan(steps=2, batch_size=2), rng=np.random.default_rng(0), penalty=penalty)
        )
    assert all(torch.equal(parameter, before[name]) for name, parameter in head.items())


def test_rate_rises_over_the_warm_up_and_falls_to_zero():
    plan = FitPlan(steps=100, warmup_share=0.1)
    rates = [plan.rate_factor(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == 0.0
    with pytest.raises(ConfigError, match="steps is 0"):
        FitPlan(steps=0)


@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "gpt2"])
def test_the_probe_fits_what_the_features_hold_and_puts_the_head_back(family, tmp_path):
    base = load_base(str(save_tiny_model(tmp_path, family, kind="classify")), "classify", labels=2)
    items = sentences(["red", "blue"] * 8, [0, 1] * 8, base.tokenizer, max_length=8)
    before = {name: base.model.get_parameter(name).clone() for name in base.head}
    other = sentences(["blue", "red", "blue"], [1, 0, 0], base.tokenizer, max_length=8)
    dev, test = head_only(base, items, other, items, FitPlan(steps=150, batch_size=8), np.random.default_rng(0))
    assert test.metric == 1.0
    np.testing.assert_array_equal(dev.hits, [True, True, False])
    assert all(torch.equal(before[name], base.model.get_parameter(name)) for name in base.head)
