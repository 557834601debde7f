"""Ranks drawn while training, and that nested training makes prefixes usable where truncation does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from airtune.adapters import Adapter, RankSampler, RankVector
from airtune.errors import ConfigError
from airtune.models import FitPlan, fit, load_base, score, windows
from tiny_models import save_tiny_model

CAPS = RankVector((8, 8, 4, 2))


def test_draws_stay_within_caps_and_keep_their_shares():
    rng = np.random.default_rng(0)
    draws = [draw.ranks for draw in RankSampler(full=0.3, uniform=0.4, per_item=True).draw(CAPS, 4000, rng)]
    assert all(1 <= rank <= cap for draw in draws for rank, cap in zip(draw, CAPS.ranks, strict=True))
    full = np.mean([draw == CAPS.ranks for draw in draws])
    even = np.mean([draw[0] == draw[1] and draw[2] == min(draw[0], 4) and draw[3] == min(draw[0], 2) for draw in draws])
    assert 0.3 < full < 0.42  # 0.3, plus even draws of 8: 0.4 log(9/8)/log(9) = 0.02
    assert even > 0.68


def test_every_batch_holds_the_shares_to_within_one_item():
    caps = RankVector((1000,) * 8)  # where a mixed draw is never full or even
    rng = np.random.default_rng(2)
    first = []
    for _ in range(200):
        draws = [draw.ranks for draw in RankSampler(full=0.25, uniform=0.5, per_item=True).draw(caps, 10, rng)]
        assert sum(draw == caps.ranks for draw in draws) in (2, 3)
        assert sum(len(set(draw)) == 1 for draw in draws) in (7, 8)
        first.append(draws[0] == caps.ranks)
    assert 0.15 < np.mean(first) < 0.35  # the first item is no more often full than any other


def test_a_uniform_draw_of_k_is_log_uniform():
    rng = np.random.default_rng(1)
    draws = RankSampler(full=0, uniform=1, per_item=True).draw(RankVector((8,)), 20_000, rng)
    first = np.array([draw.ranks[0] for draw in draws])
    for k in range(1, 9):
        assert np.mean(first == k) == pytest.approx(np.log((k + 1) / k) / np.log(9), abs=0.012)


def test_unless_items_have_their_own_one_vector_is_drawn_by_the_shares():
    rng = np.random.default_rng(3)
    draws = [RankSampler(full=0.3, uniform=0).draw(RankVector((1000,) * 4), 32, rng) for _ in range(2000)]
    assert {len(drawn) for drawn in draws} == {1}
    assert np.mean([drawn[0].ranks == (1000,) * 4 for drawn in draws]) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(("full", "uniform"), [(-0.1, 0.5), (0.7, 0.5)])
def test_shares_that_are_no_shares_are_refused(full, uniform):
    with pytest.raises(ConfigError, match="sum to at most 1"):
        RankSampler(full=full, uniform=uniform)


def test_nested_prefixes_beat_prefixes_of_ordinary_training(tmp_path):
    folder = str(save_tiny_model(tmp_path, "llama"))
    text = "the cat sat on a mat the dog ran fast and then it was not slow red log blue log " * 40

    def loss_at_rank_1(sampler: RankSampler) -> float:
        base = load_base(folder, "text")
        adapter = Adapter(base, 8, generator=torch.Generator().manual_seed(0))
        items, rng = windows(text, base.tokenizer, window=20), np.random.default_rng(0)
        steps = fit(
            base.model,
            adapter.parameters(),
            items,
            FitPlan(steps=150, batch_size=8, learning_rate=1e-2),
            rng=np.random.default_rng(1),
            before_step=lambda step, items: adapter.set_item_ranks(sampler.draw(adapter.caps, items, rng)),
        )
        assert sum(1 for _ in steps) == 150
        adapter.set_ranks(RankVector.uniform(adapter.sites, 1))
        return score(base.model, items).loss

    assert loss_at_rank_1(RankSampler()) < loss_at_rank_1(RankSampler(full=1, uniform=0)) - 0.1
