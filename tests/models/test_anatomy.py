"""Sites of every family, counted and measured against the models' own weights."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    OPTConfig,
    OPTForCausalLM,
)

from airtune.adapters import RankVector
from airtune.errors import ModelError
from airtune.models import find_sites
from tiny_models import CONFIGS, SITES_PER_LAYER


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("auto", [AutoModelForCausalLM, AutoModelForSequenceClassification])
def test_every_projection_of_every_block_is_a_site(family, auto):
    model = auto.from_config(CONFIGS[family])
    sites = find_sites(model)
    assert len(sites) == 2 * SITES_PER_LAYER[family]
    assert len({site.path for site in sites}) == len(sites)
    for site in sites:
        weight = model.get_submodule(site.path).weight
        assert {site.fan_in, site.fan_out} == set(weight.shape) or site.fan_in == site.fan_out == weight.shape[0]
        x = torch.randn(3, site.fan_in)
        assert model.get_submodule(site.path)(x).shape == (3, site.fan_out)


def test_opt_1_3b_has_the_papers_144_sites_and_both_counts():
    with torch.device("meta"):
        model = OPTForCausalLM(
            OPTConfig(
                hidden_size=2048, num_hidden_layers=24, num_attention_heads=32, ffn_dim=8192, word_embed_proj_dim=2048
            )
        )
    sites = find_sites(model)
    ranks = RankVector.uniform(sites, 8)
    assert len(sites) == 144
    assert ranks.parameters(sites) == 7_079_040  # 24 layers, 8 ranks: 4 (2048+2048+1) + 2 (2048+8192+1)
    assert ranks.parameters(sites, count="paper", hidden_size=2048) == 4_718_592  # Table IV, first row


def test_an_unknown_architecture_lists_what_was_looked_for():
    model = AutoModelForSequenceClassification.from_config(
        DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=32)
    )
    with pytest.raises(ModelError, match=r"distilbert.*bert, gpt2, llama"):
        find_sites(model)
