"""The `bits` cell: what it chooses fits, is chosen on dev and read on test, and what it reads is in its key."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from airtune.adapters.receiver import Receiver, about
from airtune.codec import Draft, code_adapter, decode
from airtune.methods.airllm.baselines.kept import load_adapter
from airtune.methods.airllm.baselines.training import score_adapter
from airtune.methods.airllm.bits.families import TIMES_FEWER, Scored
from airtune.methods.airllm.bits.grid import grid
from airtune.methods.airllm.bits.ours import Ours, trained_on
from airtune.methods.airllm.building import parts_of
from airtune.methods.airllm.cells.bits import WHOLE_RATES, trainings
from airtune.methods.airllm.cells.trained import ADAPTER
from airtune.methods.airllm.config import config_from
from airtune.models import FitPlan
from airtune.records.cells import Value
from airtune.workloads.opening import open_reader

WAYS = ("grid", "calibrated", "cut", "blockwise", "ternary", "whole", "others")
FAMILIES = (*WAYS, "ours", "tuned", "cores", "either", "longer", "again")
CORES = {"cores16 1", "cores32 1", "cores64 1"}


@pytest.fixture(scope="module")
def done(settings, store):
    return store.done("bits", settings)


def values(done, measure: str, of: str) -> dict[float | None, float]:
    return {v.x: v.value for v in done.values if (v.measure, v.of) == (measure, of)}


@pytest.mark.parametrize("of", FAMILIES)
def test_what_is_chosen_fits_and_more_bits_are_never_worse_on_dev(done, of: str):
    """float32 at rank 2, without a head: 2 (out + in) numbers a site."""
    (float32,) = values(done, "float32_kbit", "").values()
    kbit, dev = values(done, "kbit", of), values(done, "dev_loss", of)
    assert set(kbit) <= set(TIMES_FEWER)
    assert all(size <= float32 / times * (1 + 1e-9) for times, size in kbit.items())
    falling = [dev[times] for times in sorted(dev, reverse=True)]
    assert falling == sorted(falling, reverse=True)
    for times, loss in values(done, "loss", of).items():
        if times in kbit:
            assert loss == pytest.approx(float(done.items[Value("loss", 0, times, of).item_name].mean()), rel=1e-6)
            assert values(done, "score", of)[times] == pytest.approx(np.exp(loss))


def test_float32_at_the_largest_rank_is_the_anchor(done, settings, store):
    reader = open_reader(config_from(settings))
    parts = parts_of(config_from(settings), reader)
    lora = load_adapter(store.done("lora", settings).work / ADAPTER)
    assert lora.ranks.ranks == (2,) * len(reader.base.sites)
    numbers = sum(2 * sum(site.shape) for site in lora.factors.values())
    assert values(done, "float32_kbit", "") == {None: pytest.approx(32 * numbers / 1e3)}
    tested = score_adapter(reader.base, lora.factors, lora.dense, parts.test)
    assert values(done, "loss", "grid")[1] == pytest.approx(tested.loss, rel=1e-5)


def test_fronts_are_read_on_some_items_of_test_spread_over_it(settings, store):
    """Of 13 items every third: 0, 3, 6, 9, 12. A candidate's loss there is the mean of those items' losses."""
    reader = open_reader(config_from(settings))
    parts = parts_of(config_from(settings), reader)
    thirteen = replace(parts, test=parts.test.chosen(np.arange(13)))
    lora = load_adapter(store.done("lora", settings).work / ADAPTER)
    best = max(grid({2: lora}), key=lambda each: each.bits)
    one, scored_before = (Scored(best, 0.0, reader.base, thirteen) for _ in range(2))
    some = one.front_loss(5)
    assert some == pytest.approx(one.test.losses[[0, 3, 6, 9, 12]].mean(), rel=1e-5)
    whole = scored_before.test.loss
    assert scored_before.front_loss(5) == pytest.approx(some, rel=1e-5)
    assert scored_before.front_loss(600) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("of", ["cores", "either", "ours", "tuned", "longer", "again", *WAYS])
def test_bits_saved_are_read_where_the_grid_reaches(done, of: str):
    """Over all others they are, where they are, read between the same losses."""
    reached = [values(done, measure, of) for measure in ("saved_from", "saved_to", "saved")]
    assert of != "grid" or reached == [{}, {}, {}]
    if all(reached):
        assert reached[0][None] < reached[1][None]
        assert reached[2][None] < 100
    assert not any(reached) or all(reached)
    assert not values(done, "saved_others", of) or (all(reached) and of not in WAYS)
    inner = [values(done, measure, of) for measure in ("saved_inner", "saved_others_inner", "saved_inner_to")]
    if inner[0]:  # up to the grid's smallest point but one
        assert inner[2][None] < reached[1][None] or inner[0][None] == pytest.approx(reached[2][None])
    assert not inner[1] or (inner[0] and of not in WAYS)


def test_ours_are_payloads_that_whoever_has_the_base_model_decodes(settings, store):
    reader = open_reader(config_from(settings))
    parts = parts_of(config_from(settings), reader)
    lora = load_adapter(store.done("lora", settings).work / ADAPTER)
    binding, meta = about(reader.base)
    numbers = sum(site.rank * sum(site.shape) for site in lora.factors.values())
    budgets = [width * numbers for width in (1.5, 2, 4, 5, 6)]
    ours = Ours({2: lora}, reader.base, parts.calibration, binding, meta)
    found = [one.candidate for one in ours.sent(budgets)]
    bits = [candidate.bits for candidate in found]
    assert all(0.9 * budget < size <= budget for size, budget in zip(bits, budgets, strict=True))
    errors = [
        sum(((site.update() - lora.factors[path].update()) ** 2).sum() for path, site in candidate.factors.items())
        for candidate in found
    ]
    assert errors[-1] < 0.05 * errors[0]
    draft = Draft(code_adapter(lora.factors, lora.dense, 1e-6, canonical=True), binding, meta, named=True)
    whole = decode(draft.encode(lora.ranks.ranks).data, binding, held=Receiver(reader.base).static_parts())
    assert whole.ranks == lora.ranks.ranks


def test_training_on_through_the_rounding_lowers_the_loss_it_trains(settings, store):
    """A fifth of 150 steps, at two bits a number."""
    config = config_from(settings)
    reader = open_reader(config)
    parts = parts_of(config, reader)
    lora = load_adapter(store.done("lora", settings).work / ADAPTER)
    ours = Ours({2: lora}, reader.base, parts.calibration, *about(reader.base))
    budget = 2 * sum(site.rank * sum(site.shape) for site in lora.factors.values())
    (sent,) = ours.sent([budget])
    plan = FitPlan(steps=150, batch_size=8)
    rng = np.random.default_rng(0)
    before, after = sent.candidate, trained_on(reader.base, sent, parts.train, plan, rng, share=0.2)
    assert after.score(reader.base, parts.train).loss < before.score(reader.base, parts.train).loss
    assert 0.9 * before.bits < after.bits <= budget
    for path, site in after.factors.items():
        assert site.rank == before.factors[path].rank
        assert np.array_equal(site.p, np.round(site.p))
        assert np.array_equal(site.q, np.round(site.q))


def test_every_rank_is_read_and_for_running_text_all_weights_and_small_cores(settings):
    assert set(trainings(settings)) == {"lora 1", "lora 2", "whole"} | CORES
    classify = {**settings, "task": {**settings["task"], "name": "classify"}}
    assert set(trainings(classify)) == {"lora 1", "lora 2", "cores64 1"}


def test_the_first_seed_chooses_the_rate_for_all_weights(settings, store):
    """By dev loss; another seed trains at that rate alone."""
    first = {value.x: value.value for value in store.done("whole", settings).values}
    other = {value.x: value.value for value in store.done("whole", {**settings, "seed": 1}).values}
    assert settings["seed"] == 0
    assert len(first) == len(WHOLE_RATES)
    assert list(other) == [min(first, key=first.__getitem__)]
    assert other[min(first, key=first.__getitem__)] != min(first.values())
