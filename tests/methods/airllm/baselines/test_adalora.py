"""AdaLoRA by peft: ranks do change, by its schedule; the sliced factors give its masked logits; its penalty apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from baseline_material import PLAN, tiny
from peft import AdaLoraConfig, AdaLoraModel, get_peft_model

from airtune.adapters import Adapter
from airtune.errors import ConfigError, ModelError
from airtune.methods.airllm.baselines import adalora
from airtune.methods.airllm.baselines.adalora import train_adalora
from airtune.methods.airllm.baselines.direct import train_lora
from tiny_models import CONFIGS

LONGER = replace(PLAN, steps=40)
IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 10, 11, 3]])


def left_at(base) -> list[int]:
    """Directions that peft has not masked, site by site."""
    return [int((base.model.get_submodule(site.path).lora_E["default"] != 0).sum()) for site in base.sites]


@pytest.mark.parametrize(
    ("family", "kind"), [*((family, "text") for family in CONFIGS), ("bert", "classify"), ("gpt2", "classify")]
)
def test_ranks_change_and_the_sliced_factors_give_pefts_masked_logits(family, kind, tmp_path):
    base, parts = tiny(tmp_path, family, kind)
    counts, logits = [], []

    def look(step) -> None:
        counts.append(left_at(base))
        base.model.eval()
        with torch.no_grad():
            logits.append(base.model(input_ids=IDS).logits)

    total = 2 * len(base.sites)
    trained = train_adalora(base, parts, LONGER, total, alpha=12, on_step=look)
    assert counts[0] == [3] * len(base.sites)
    assert list(trained.ranks.ranks) == counts[-1]
    assert trained.ranks.total == total
    assert len(set(trained.ranks.ranks)) > 1  # not what it started with, nor the same everywhere
    adapter = Adapter(base, 3, generator=torch.Generator())
    adapter.load(trained.factors, trained.dense)
    with torch.no_grad():
        bare_difference = (logits[0] - logits[-1]).abs().max()
        found = base.model(input_ids=IDS).logits
    adapter.detach()
    assert bare_difference > 1e-2
    assert (found - logits[-1]).abs().max() < 1e-5


def test_the_budget_falls_by_the_cubic_schedule(tmp_path, monkeypatch):
    """Zhang et al. 2023, Eq. 12: b(t) = b_T + (b_0 - b_T) (1 - (t - t_i) / (T - t_f - t_i))^3."""
    monkeypatch.setattr(adalora, "STEPS_BETWEEN_CUTS", 1)
    base, parts = tiny(tmp_path, "opt")
    totals = []
    train_adalora(base, parts, LONGER, 31, alpha=12, on_step=lambda step: totals.append(sum(left_at(base))))
    warmup, end, start = 4, 24, 4 * 12  # of 40 steps; ceil(1.5 * 31 / 12) = 4 directions at each of 12 sites
    expected = [
        start if t <= warmup else 31 if t >= end else int((start - 31) * (1 - (t - warmup) / (end - warmup)) ** 3 + 31)
        for t in range(40)
    ]
    assert totals == expected
    assert len(set(totals)) > 8


@pytest.mark.parametrize(("total", "init"), [(12, 2), (24, 3), (25, 4), (48, 6), (5, 1), (96, 12)])
def test_it_starts_half_as_wide_again_and_at_least_one_wider(total, init, tmp_path):
    base, parts = tiny(tmp_path, "opt")
    first = []
    trained = train_adalora(
        base, parts, replace(PLAN, steps=8), total, alpha=12, on_step=lambda step: first.append(left_at(base))
    )
    assert first[0] == [init] * 12
    assert trained.ranks.total == total


def test_the_scale_is_alpha_over_the_rank_at_the_start(tmp_path):
    base, parts = tiny(tmp_path, "opt")
    seen = []

    def look(step) -> None:
        layer = base.model.get_submodule(base.sites[3].path)
        seen.append(layer.get_delta_weight("default").detach().numpy())  # peft's own update, masked

    trained = train_adalora(base, parts, replace(LONGER, seed=1), 24, alpha=12, on_step=look)
    assert trained.factors[base.sites[3].path].update() == pytest.approx(seen[-1], abs=1e-6)


def test_the_penalty_is_pefts_own_and_not_in_the_reported_loss(tmp_path):
    base, parts = tiny(tmp_path, "opt")
    with torch.no_grad():
        bare = float(base.model(input_ids=IDS, labels=IDS).loss)
    torch.manual_seed(0)
    paths = [site.path for site in base.sites]
    config = AdaLoraConfig(init_r=3, total_step=10, orth_reg_weight=0.7, target_modules=paths)
    model = get_peft_model(base.model, config)
    with torch.no_grad():
        added = float(model.base_model(input_ids=IDS, labels=IDS).loss) - bare  # E is 0: the rest is the penalty
        ours = sum(float(adalora._departure(base.model.get_submodule(path))) for path in paths) / len(paths)
    model.unload()
    assert added == pytest.approx(0.7 * ours, rel=1e-5)
    assert added > 1
    losses = {weight: train_adalora(base, parts, PLAN, 12, alpha=4, orthogonality=weight).losses for weight in (0, 0.5)}
    assert losses[0.5][0] == losses[0][0] == train_lora(base, parts, PLAN, 1, alpha=4).losses[0]
    assert losses[0.5] != losses[0]  # but it is trained


def test_without_the_call_nothing_is_cut_and_that_is_an_error(tmp_path, monkeypatch):
    base, parts = tiny(tmp_path, "llama")
    monkeypatch.setattr(AdaLoraModel, "update_and_allocate", lambda self, step: None)
    with pytest.raises(ModelError, match=r"left 42 directions of 42, 28 were asked for"):
        train_adalora(base, parts, LONGER, 28, alpha=12)


def test_too_few_steps_or_ranks_are_refused(tmp_path):
    base, parts = tiny(tmp_path, "opt")
    with pytest.raises(ConfigError, match="total rank is 0"):
        train_adalora(base, parts, PLAN, 0, alpha=12)
    with pytest.raises(ConfigError, match="1 steps; choose at least"):
        train_adalora(base, parts, replace(PLAN, steps=1), 12, alpha=12)
    assert train_adalora(base, parts, replace(PLAN, steps=3), 12, alpha=12).ranks.total == 12
