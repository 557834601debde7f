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


def test_copies_of_a_batch_have_the_halved_ranks_and_then_mixed_ones_for_every_item():
    sampler, caps = RankSampler(full=0.2, uniform=0.8, prefixes=6), RankVector((12, 12, 5, 2) * 3)
    draws = [draw.ranks for draw in sampler.draw(caps, 3, np.random.default_rng(4))]
    evens = [(12, 12, 5, 2) * 3, (6, 6, 5, 2) * 3, (3, 3, 3, 2) * 3, (1, 1, 1, 1) * 3]
    assert draws[:12] == [even for even in evens for _ in range(3)]
    assert len(set(draws[12:])) == 6
    assert all(1 <= rank <= cap for draw in draws[12:] for rank, cap in zip(draw, caps.ranks, strict=True))
    assert sampler.weights(caps) == pytest.approx([3 / 24, 4 / 24, 5 / 24, 6 / 24, 3 / 24, 3 / 24])
    assert RankSampler().weights(caps) == (1.0,)
    level = RankSampler(prefixes=4, rank_one_weight=1.0)
    assert level.weights(RankVector((8, 8))) == pytest.approx([1 / 4] * 4)


def test_copies_may_take_any_rank_from_one_halving_to_the_next():
    """At 12: 12 alone, 6 to 11, 3 to 5, 1 and 2, each evenly drawn; without it the halvings draw nothing."""
    sampler, caps, rng = RankSampler(prefixes=5, octaves=True), RankVector((12, 2)), np.random.default_rng(6)
    draws = np.array([draw.ranks for draw in sampler.draw(caps, 6000, rng)])
    for copy, (low, high) in enumerate(((12, 12), (6, 11), (3, 5), (1, 2))):
        counts = np.bincount(draws[6000 * copy : 6000 * (copy + 1), 0], minlength=13)
        assert counts[low : high + 1] == pytest.approx(np.full(high + 1 - low, 6000 / (high + 1 - low)), rel=0.12)
        assert counts.sum() == counts[low : high + 1].sum()
    assert draws[:, 1].max() == 2
    plain, other = np.random.default_rng(7), np.random.default_rng(7)
    RankSampler(prefixes=4).draw(caps, 5, plain)
    assert plain.random() == other.random()


def test_where_sites_are_switched_off_every_share_of_them_occurs_and_one_stays_on():
    """With a chance u of being off that is uniform over vectors, any number of 20 sites is off equally often."""
    sampler, caps, rng = RankSampler(full=0.0, uniform=0.0, off=0.5), RankVector((8,) * 20), np.random.default_rng(5)
    drawn = np.array([sampler.draw(caps, 1, rng)[0].ranks for _ in range(4000)])
    off = (drawn == 0).sum(axis=1)
    assert (off == 0).mean() == pytest.approx(0.5 + 0.5 / 21, abs=0.03)
    assert off.max() == 19
    assert np.bincount(off, minlength=20)[1:19] / 4000 == pytest.approx(np.full(18, 0.5 / 21), abs=0.012)
    sparse = drawn[off > 0]
    assert (sparse.max(axis=1) == 1).mean() > 2 * (drawn[off == 0].max(axis=1) == 1).mean()  # few bits are trained too
    assert drawn.max() == 8


@pytest.mark.parametrize(("full", "uniform"), [(-0.1, 0.5), (0.7, 0.5)])
def test_shares_that_are_no_shares_are_refused(full, uniform):
    with pytest.raises(ConfigError, match="sum to at most 1"):
        RankSampler(full=full, uniform=uniform)


def test_the_gradient_of_a_step_is_the_weighted_mean_over_ranks_of_that_of_plain_models_with_merged_prefixes(tmp_path):
    """Each item under each of its vectors by transformers' own loss, weights W + s P' diag(lam) Q of the prefix."""
    folder = str(save_tiny_model(tmp_path, "llama"))
    plain, base = load_base(folder, "text"), load_base(folder, "text")
    adapter = Adapter(base, 4, scale=1.5, generator=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    for name, value in adapter.parameters().items():
        with torch.no_grad():
            value.add_(torch.randn(value.shape, generator=rng) * (0.0 if name.endswith(".q") else 0.3))
    values = {name: value.detach().clone().requires_grad_() for name, value in adapter.parameters().items()}
    items = windows("the cat sat on a mat the dog ran fast and then " * 3, base.tokenizer, window=9)
    sampler, given = RankSampler(prefixes=4), list[RankVector]()

    def give(step: int, count: int) -> None:
        given.extend(sampler.draw(adapter.caps, count, np.random.default_rng(7)))
        adapter.set_item_ranks(given)

    plan = FitPlan(steps=1, batch_size=2, copies=sampler.weights(adapter.caps), clip_norm=1e9)
    (step,) = fit(base.model, adapter.parameters(), items, plan, rng=np.random.default_rng(2), before_step=give)

    (rows,) = items.schedule(1, 2, np.random.default_rng(2))
    loss = torch.zeros(())
    shares = [1 / 5.5, 1.5 / 5.5, 2 / 5.5, 1 / 5.5]  # ranks 4, 2, 1, mixed: 1, 1.5, 2 and 1 over their sum
    for row, ranks, share in zip([*rows] * 4, given, np.repeat(shares, 2).tolist(), strict=True):
        merged = {}
        for site, rank in zip(plain.sites, ranks.ranks, strict=True):
            p, lam, q = (values[f"{site.path}.{name}"][:rank] for name in ("p", "lam", "q"))
            weight = plain.model.get_submodule(site.path).weight.detach()
            merged[f"{site.path}.weight"] = weight + 1.5 * p.T @ torch.diag(lam) @ q
        ids = torch.from_numpy(items.ids[row])[None]
        own = torch.func.functional_call(plain.model, merged, kwargs={"input_ids": ids, "labels": ids}).loss
        loss = loss + share * own / len(rows)
    assert [ranks.ranks[0] for ranks in given[:6]] == [4, 4, 2, 2, 1, 1]
    assert step.loss == pytest.approx(loss.item(), rel=1e-6)
    assert step.tokens == 4 * 2 * 9
    loss.backward()
    for name, value in adapter.parameters().items():
        torch.testing.assert_close(value.grad, values[name].grad, rtol=1e-4, atol=1e-6)


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
