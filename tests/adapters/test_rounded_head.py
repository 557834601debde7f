"""A head in its codes, trained on with the adapter: against dense matrices, and put back as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from airtune.adapters.rounded import RoundedAdapter, tune
from airtune.codec import Coded, CodedSite, CodedTensor, tables_of
from airtune.models import BaseModel, FitPlan, load_base, score, sentences
from tiny_models import save_tiny_model

WEIGHT, BIAS = "classifier.weight", "classifier.bias"


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return load_base(str(save_tiny_model(tmp_path, "bert", kind="classify")), "classify", labels=2)


def some_codes(base: BaseModel) -> Coded:
    draw = np.random.default_rng(0)
    sites = {
        site.path: CodedSite.of(
            draw.integers(-1, 2, (1, site.fan_out)).astype(np.int16),
            draw.integers(-1, 2, (1, site.fan_in)).astype(np.int16),
            np.full(1, -16, np.int16),  # 2^-4
        )
        for site in base.sites
    }
    rows = draw.integers(-5, 6, base.model.classifier.weight.shape).astype(np.int16)
    bias = np.array([[3, -2]], np.int16)
    return Coded(
        sites,
        {
            WEIGHT: CodedTensor(rows, np.array([-16, -12], np.int16), tables_of(rows), rows.shape),
            BIAS: CodedTensor(bias, np.array([-8], np.int16), tables_of(bias), (2,)),
        },
    )


def test_the_head_computes_what_its_codes_and_scales_say(base: BaseModel):
    """Codes move by their row's root mean square, scales by quarters of an octave: half an octave up, 2^-3.5."""
    coded = some_codes(base)
    before = coded.dense[WEIGHT].codes.astype(float)
    adapter = RoundedAdapter(base, coded)
    own = adapter.parameters()
    with torch.no_grad():
        own[f"{WEIGHT}.codes"][0] += 0.5
        own[f"{WEIGHT}.scales"][0] += 0.55
        own[f"{BIAS}.codes"] += 0.01  # rounds to nothing
    codes = np.stack([np.round(before[0] + 0.5 * np.sqrt(np.mean(before[0] ** 2))), before[1]])
    weight, bias = codes * np.array([[2.0**-3.5], [2.0**-3]]), np.array([3, -2]) * 2.0**-2
    x = torch.randn(4, weight.shape[1], generator=torch.Generator().manual_seed(0))
    expected = x.numpy() @ weight.T + bias
    np.testing.assert_allclose(base.model.classifier(x).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    found = adapter.coded().dense
    assert np.array_equal(found[WEIGHT].codes, codes)
    assert found[WEIGHT].scales.tolist() == [-14, -12]
    assert np.array_equal(found[WEIGHT].tables, tables_of(codes.astype(np.int16)))
    np.testing.assert_allclose(found[WEIGHT].tensor(), weight, rtol=1e-6)
    assert np.array_equal(found[BIAS].tensor(), bias)
    adapter.detach()
    np.testing.assert_allclose(base.model.classifier.weight.detach().numpy(), weight, rtol=1e-6)


def test_detached_the_head_is_a_parameter_of_its_model_again(base: BaseModel):
    weight, names = base.model.classifier.weight, [name for name, _ in base.model.named_parameters()]
    RoundedAdapter(base, some_codes(base)).detach()
    assert base.model.classifier.weight is weight
    assert type(base.model.classifier) is torch.nn.Linear
    assert sorted(name for name, _ in base.model.named_parameters()) == sorted(names)


def test_the_heads_bits_count(base: BaseModel):
    coded = some_codes(base)
    with_head = RoundedAdapter(base, coded).bits()
    expected = 0.0
    for row in (*coded.dense[WEIGHT].codes, *coded.dense[BIAS].codes):
        spread = np.sqrt(np.mean(row.astype(float) ** 2) + 1 / 12)
        expected += len(row) * norm(scale=spread).entropy() / np.log(2)
    without = sum(
        len(vector) * norm(scale=np.sqrt(np.mean(vector.astype(float) ** 2) + 1 / 12)).entropy() / np.log(2)
        for site in coded.sites.values()
        for vector in (*site.p.T, *site.q)
    )
    assert float(with_head) == pytest.approx(expected + without, rel=1e-5)


def test_training_on_moves_the_head_to_what_it_is_trained_for(base: BaseModel):
    texts = ["red cat", "red dog", "blue cat", "blue dog"] * 4
    items = sentences(texts, [0, 0, 1, 1] * 4, base.tokenizer, max_length=8)
    coded = some_codes(base)
    found = tune(base, coded, items, FitPlan(steps=60, batch_size=8), rng=np.random.default_rng(0))
    assert not np.array_equal(found.dense[WEIGHT].codes, coded.dense[WEIGHT].codes)
    assert np.array_equal(found.dense[WEIGHT].codes, np.round(found.dense[WEIGHT].codes))
    np.testing.assert_array_equal(base.model.classifier.weight.detach().numpy(), found.dense[WEIGHT].tensor())
    adapter = RoundedAdapter(base, found)
    after = score(base.model, items).loss
    adapter.detach()
    adapter = RoundedAdapter(base, coded)
    assert after < score(base.model, items).loss - 0.05
    adapter.detach()
