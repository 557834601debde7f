"""What trained baselines send: which rank fits which budget, cut or whole, and values as `rows` has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from airtune.adapters import RankVector
from airtune.errors import ConfigError, DeadlineError
from airtune.methods.airllm.baselines.kept import load_adapter
from airtune.methods.airllm.baselines.training import score_adapter
from airtune.methods.airllm.building import new_trainee, parts_of
from airtune.methods.airllm.cells import KINDS
from airtune.methods.airllm.cells.baselines import Ladder, ladders, largest_that_fits
from airtune.methods.airllm.cells.trained import ADAPTER, nearest_swept, ranks_to_train
from airtune.methods.airllm.config import config_from
from airtune.methods.airllm.packing import block_packer
from airtune.methods.airllm.plan import plan
from airtune.methods.airllm.sizes import adapter_overhead_bits
from airtune.records import Measurements
from airtune.records.cells import Value, kind_of
from airtune.workloads.opening import open_reader

SNRS = (8.0, 12.0, 15.0)


@pytest.mark.parametrize(
    ("most", "ranks"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_powers_of_two_and_the_largest_are_trained(most: int, ranks: list[int]):
    assert ranks_to_train(most) == ranks


@pytest.mark.parametrize(("budget", "rank"), [(99, 0), (100, 1), (179.9, 1), (180, 2), (339, 2), (340, 4), (9999, 4)])
def test_the_largest_rank_within_the_budget_is_sent(budget: float, rank: int):
    assert largest_that_fits({1: 100, 2: 180, 4: 340}, budget) == rank


def test_each_link_has_trainings_of_what_it_has_room_for(settings: dict[str, Any]):
    """14 sites; rank 2 takes 12.7 kbit on the air, rank 3 about 15.5, and 15 dB holds 13.6. AdaLoRA leaves 80 %."""
    settings = {**settings, "adapter": {**settings["adapter"], "max_rank": 3}}
    found = ladders(settings)
    assert {name: its["adapter"]["max_rank"] for name, its in found.items() if name[:5] == "lora "} == {
        **{"lora 1": 1, "lora 2": 2, "lora 3": 3},
    }
    totals = {its["total_rank"]: its["adapter"]["max_rank"] for name, its in found.items() if name[:7] == "adalora"}
    assert [f"adalora {total}" for total in totals] == [name for name in found if name[:7] == "adalora"]
    most = [row.total_rank for row in plan(config_from({**settings, "seed": 0, "policy": {}})).rows]
    assert list(totals) == [8 * total // 10 for total in most]
    assert 1 <= most[0] < 14 / 2 < 14 < most[1] < 28 < most[2] < 42
    assert list(totals.values()) == [1, 1, 2]  # the sweep nearest to their mean rank


@pytest.mark.parametrize(("rank", "swept"), [(0.1, 1), (1.4, 1), (1.5, 2), (3, 4), (5, 4), (5.7, 8), (12, 16)])
def test_the_nearest_sweep_is_so_by_ratio(rank: float, swept: int):
    assert nearest_swept(rank) == swept


def test_coded_numbers_are_refused(settings: dict[str, Any]):
    with pytest.raises(ConfigError, match=r"codec\.name is 'coded', but trained baselines .*; choose blockwise"):
        KINDS["baselines"].key({**settings, "codec": {"name": "coded", "bits": 3.0}}, {})


@pytest.fixture(scope="module")
def trained(settings, store):
    return {
        name: load_adapter(store.done(kind_of(name), its).work / ADAPTER) for name, its in ladders(settings).items()
    }


@pytest.fixture(scope="module")
def done(settings, store):
    return store.done("baselines", settings)


@pytest.fixture
def ladder(settings, trained, tmp_path):
    config = config_from({**settings, "adapter": {**settings["adapter"], "max_rank": 3}})  # AdaLoRA's start
    reader = open_reader(config)
    trainee = new_trainee(config, reader, parts_of(config, reader), Measurements(tmp_path / "m.jsonl"))
    return Ladder(trained, trainee, 4)


def sent_bits(ladder: Ladder, name: str, trained, ranks: RankVector) -> int:
    """On the air, by the bytes that are really made."""
    packer = block_packer(ladder.hold(name).adapter.base, trained[name].factors, trained[name].dense, 4)
    return 8 * len(packer.encode(ranks).data) + adapter_overhead_bits()


def test_a_payload_fits_to_the_bit(ladder: Ladder, trained):
    sites = len(trained["lora 1"].ranks)
    bits = {rank: sent_bits(ladder, f"lora {rank}", trained, RankVector((rank,) * sites)) for rank in (1, 2)}
    assert ladder.whole("lora", bits[2]) == ("lora 2", RankVector((2,) * sites))
    assert ladder.whole("lora", bits[2] - 1) == ("lora 1", RankVector((1,) * sites))
    assert ladder.whole("lora", bits[1] - 1) == ("lora 1", RankVector((0,) * sites))
    none = sent_bits(ladder, "lora 1", trained, RankVector((0,) * sites))
    assert ladder.whole("lora", none)[1].total == 0
    with pytest.raises(DeadlineError, match="head and container alone need"):
        ladder.whole("lora", none - 1)


def test_adalora_is_cut_further_only_where_dev_likes_it(ladder: Ladder, trained, monkeypatch):
    *_, small, large = sorted((name for name in trained if name[:4] == "adal"), key=lambda name: int(name.split()[1]))
    whole = trained[small].ranks
    assert [trained[name].ranks.total for name in (small, large)] == [int(name.split()[1]) for name in (small, large)]
    budget = sent_bits(ladder, large, trained, trained[large].ranks) - 1
    cut = ladder.cut(large, budget)
    assert whole.total < cut[1].total < trained[large].ranks.total
    assert sent_bits(ladder, *cut[:1], trained, cut[1]) <= budget
    losses = {(small, whole): 2.0, cut: 1.5}
    monkeypatch.setattr(ladder, "_dev_loss", lambda name, ranks: losses[name, ranks])
    assert ladder.better("adalora", budget) == cut
    losses[cut] = 2.5
    assert ladder.better("adalora", budget) == (small, whole)
    losses[large, trained[large].ranks] = 3.0
    assert ladder.better("adalora", budget + 1) == (large, trained[large].ranks)  # nothing is above it


def values(done, measure: str, of: str) -> dict[float | None, float]:
    return {v.x: v.value for v in done.values if (v.measure, v.of, v.at) == (measure, of, "")}


@pytest.mark.parametrize("of", ["lora", "adalora", "svd"])
def test_values_are_in_time_and_means_of_their_items(done, settings, of: str):
    weight, deadline_s = settings["policy"]["cost_weight"], settings["link"]["deadline_s"]
    for snr_db in SNRS:
        loss = values(done, "loss", of)[snr_db]
        assert loss == pytest.approx(float(done.items[Value("loss", 0, snr_db, of).item_name].mean()), rel=1e-6)
        assert values(done, "score", of)[snr_db] == pytest.approx(np.exp(loss))
        eta = values(done, "airtime_s", of)[snr_db] / deadline_s
        assert eta <= 1
        expected = -values(done, "loss_calibration", of)[snr_db] - weight * eta
        assert values(done, "reward", of)[snr_db] == pytest.approx(expected)


def test_what_fits_is_sent_at_each_snr(done, settings, trained):
    """Ranks 0, 1, 2 take 6.9, 10.0, 12.7 kbit; 2.7 kHz log2(1 + SNR) 1 s at 8, 12, 15 dB is 7.7, 11.0, 13.6 kbit."""
    ranks = {x: [v.value for v in done.values if (v.measure, v.of, v.x) == ("rank", "lora", x)] for x in SNRS}
    assert set(ranks[15.0]) == {2}
    assert set(ranks[8.0]) in ({0}, {0, 1})  # the head alone, or that of rank 1 cut, by dev
    assert set(ranks[12.0]) in ({1}, {0, 1, 2}, {1, 2}, {0, 2})  # that of rank 1, or that of rank 2 cut, by dev
    config = config_from(settings)
    reader = open_reader(config)
    parts, lora = parts_of(config, reader), trained["lora 2"]
    packer = block_packer(reader.base, lora.factors, lora.dense, 4)
    decoded = packer.decode(packer.encode(lora.ranks))
    tested = score_adapter(reader.base, decoded.factors, decoded.dense, parts.test)
    assert values(done, "loss", "lora")[15.0] == pytest.approx(tested.loss, rel=1e-5)
    calibrated = score_adapter(reader.base, lora.factors, lora.dense, parts.calibration)
    assert values(done, "loss_calibration", "lora")[15.0] == pytest.approx(calibrated.loss, rel=1e-5)
    assert values(done, "loss", "svd")[15.0] == values(done, "loss", "lora")[15.0]  # nothing to cut there


def test_dev_losses_of_all_ranks_are_passed_on(done, settings, store):
    for name, its in ladders(settings).items():
        (dev,) = (v for v in store.done(kind_of(name), its).values if v.measure == "dev_loss")
        assert values(done, "dev_loss", kind_of(name))[int(name.split()[1])] == dev.value


def test_an_interrupted_cell_measures_nothing_twice(done, settings, store, tmp_path, monkeypatch):
    needs = {name: store.done(kind_of(name), its) for name, its in ladders(settings).items()}
    work = tmp_path / "cell" / "work"
    whole = KINDS["baselines"].compute(settings, work, needs)
    assert whole.values == done.values
    monkeypatch.setattr("airtune.methods.airllm.trainee.Trainee._measure", lambda *given: pytest.fail("asked again"))
    assert KINDS["baselines"].compute(settings, work, needs).values == whole.values


def test_keys_follow_link_codec_and_lambda_and_no_policy(settings, store):
    def key(group: str, **changed: object) -> str:
        return store.key("baselines", {**settings, group: {**settings[group], **changed}})

    plain = store.key("baselines", settings)
    assert key("policy", width=64) == key("policy", measurements=9) == key("adapter", full_share=0.1) == plain
    read = {
        key("codec", bits=8),
        key("link", deadline_s=2.0),
        key("policy", cost_weight=1.0),
        key("adapter", max_rank=4),
    }
    assert len(read | {plain, key("task", test_items=9)}) == 6
