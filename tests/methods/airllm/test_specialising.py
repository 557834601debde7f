"""Training on at the ranks of a link: against AdamW by hand, broken off and resumed, and whole runs of both formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_trainee import PLAN, folder, new_trainee, same, some_sentences, state_of, train, trained  # noqa: F401

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm import trainee as trainee_module
from airtune.methods.airllm.config import config_from, load_config
from airtune.models import item_outcomes
from airtune.records import RunFolder, generator
from services.tiny_runs import classify_settings, outcome, run_here, text_settings

FEW = replace(PLAN, steps=6, learning_rate=3e-3)


@pytest.fixture
def ranks(trained) -> RankVector:  # noqa: F811
    """None at the first site, one at the second, all at the others."""
    return RankVector((0, 1, *trained[0].adapter.caps.ranks[2:]))


def test_it_is_adamw_at_those_ranks_and_nothing_is_left_of_it(folder, tmp_path: Path, ranks):  # noqa: F811
    """Without dropout; torch's own AdamW, warm-up and decay worked out by hand."""
    subject, by_hand = (new_trainee(folder, tmp_path / f"{name}.jsonl") for name in "ab")
    for one in (subject, by_hand):
        one.adapter.base.model.requires_grad_(False)
        train(one, tmp_path / "nested.safetensors")
        for module in one.adapter.base.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    before = state_of(subject.adapter), subject.factors, subject.identity, subject.try_ranks(ranks).loss
    with subject.specialised(ranks, FEW, tmp_path / "special.safetensors"):
        found, head, inside = dict(subject.factors), dict(subject.dense), subject.try_ranks(ranks).loss
        assert subject.identity != before[2]
        assert subject.score_trained(ranks, subject.parts.calibration).loss == pytest.approx(inside, rel=1e-6)
    assert same(state_of(subject.adapter), before[0])
    assert (subject.factors, subject.identity, subject.try_ranks(ranks).loss) == before[1:]

    adapter, parameters = by_hand.adapter, by_hand.adapter.parameters()
    adapter.set_ranks(ranks)
    optimiser = torch.optim.AdamW(parameters.values(), lr=FEW.learning_rate, weight_decay=0.01)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    rows = by_hand.parts.train.schedule(6, 4, generator(FEW.seed, "specialising"))
    for step, share in enumerate((1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5)):  # one step of warm-up, then down to 0
        for group in optimiser.param_groups:
            group["lr"] = FEW.learning_rate * share
        adapter.base.model.train()
        loss = item_outcomes(adapter.base.model, by_hand.parts.train.batch(rows[step]))[0].mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), FEW.clip_norm)
        optimiser.step()
    expected = adapter.factors()
    for (path, site), rank in zip(expected.items(), ranks.ranks, strict=True):
        assert found[path].rank == rank
        np.testing.assert_allclose(found[path].update(), site.prefix(rank).update(), rtol=1e-4, atol=1e-7)
    for name, value in adapter.dense().items():
        np.testing.assert_allclose(head[name], value, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("stopped", [2, 4])
def test_broken_off_it_goes_on_where_it_stood(folder, trained, tmp_path: Path, monkeypatch, ranks, stopped: int):  # noqa: F811
    monkeypatch.setattr(trainee_module, "CHECKPOINT_EVERY", 2)
    whole = trained[0]
    with whole.specialised(ranks, FEW, tmp_path / "whole.safetensors"):
        expected = whole.identity
    first, second = (new_trainee(folder, tmp_path / f"{name}.jsonl") for name in "ab")
    for one in (first, second):
        one.hold(whole.factors, whole.dense)
    taken = []

    def stops(*given, **more):
        trainee_module_save(*given, **more)
        taken.append(given[-1])
        if given[-1] == stopped:
            raise KeyboardInterrupt

    trainee_module_save = trainee_module.save_steps
    monkeypatch.setattr(trainee_module, "save_steps", stops)
    with pytest.raises(KeyboardInterrupt), first.specialised(ranks, FEW, tmp_path / "broken.safetensors"):
        pass
    assert first.identity == whole.identity  # what was held is held again
    assert same(state_of(first.adapter), state_of(whole.adapter))
    taken.clear()
    with second.specialised(ranks, FEW, tmp_path / "broken.safetensors"):
        assert second.identity == expected
    assert taken == [step for step in (2, 4, 6) if step > stopped]


@pytest.mark.parametrize(
    ("made", "codec"),
    [
        (text_settings, {}),
        (text_settings, {"codec.name": "blockwise", "codec.bits": "4"}),
        (classify_settings, {}),
    ],
)
def test_a_run_sends_what_was_trained_on_in_time(made, codec, tmp_path: Path):
    settings = made(tmp_path / "in") | codec
    nested = run_here(settings | {"adapter.steps": "7"}, tmp_path / "nested")
    longer = run_here(settings | {"adapter.specialise_share": "0.4"}, tmp_path / "longer")
    for before, row in zip(nested["rows"], longer["rows"], strict=True):
        assert row["deadline_met"]
        assert all(mine <= cap for mine, cap in zip(row["ranks"], before["ranks"], strict=True))
        assert row["max_abs_logit_diff"] == 0
        assert row["score_cloud"] == row["score_edge"]
        assert (row["loss"] != before["loss"]) == (row["total_rank"] > 0)
        if codec:  # sizes are known before
            assert (row["ranks"], row["air_bits"]) == (before["ranks"], before["air_bits"])
    checkpoints = list((tmp_path / "longer").glob("specialised-*.safetensors"))
    assert len(checkpoints) == len({tuple(row["ranks"]) for row in nested["rows"] if row["total_rank"]})
    assert all(load_file(path) for path in checkpoints)
    RunFolder.open(tmp_path / "longer")
    again = run_here(settings | {"adapter.specialise_share": "0.4"}, tmp_path / "again")
    assert outcome(again) == outcome(longer)


def test_paper_mode_has_ranks_of_its_own():
    with pytest.raises(ConfigError, match=r"adapter\.specialise_share is 0\.3; mode is 'paper'.*leave it out"):
        load_config("cpu-paper", {"adapter.specialise_share": 0.3})


@pytest.mark.parametrize("share", [-0.1, 0.95, 1.0])
def test_a_step_is_left_for_the_nested_adapter(share: float):
    line = rf"adapter\.specialise_share is {share}; choose 0 to 0\.9, which leaves a step before"
    with pytest.raises(ConfigError, match=line):
        config_from({"adapter": {"specialise_share": share, "steps": 10}})
    assert config_from({"adapter": {"specialise_share": 0.9, "steps": 10}}).adapter.specialise_steps == 9


def test_the_sentences_differ():
    """The training above has something to learn: both classes occur."""
    assert set(some_sentences(24, 0)[1]) == {0, 1}
