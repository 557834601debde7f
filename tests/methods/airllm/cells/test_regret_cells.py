"""The `search` and `regret` cells where every allocation can be tried: nobody is nearer to the best than the oracle."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from airtune.adapters import RankVector
from airtune.methods.airllm.cells.opening import opened
from tiny_models import save_tiny_model

SMALL = {"rounds": 2, "env_steps": 16, "updates": 2, "warm_start_updates": 2, "sample_steps": 3}


@pytest.fixture(scope="module")
def few(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two layers of four projections, at rank 1 or without: 256 allocations."""
    model = save_tiny_model(tmp_path_factory.mktemp("few") / "gpt2", "gpt2")
    return {
        **settings,
        "model": {**settings["model"], "name": str(model)},
        "adapter": {**settings["adapter"], "max_rank": 1},
        "policy": {**settings["policy"], **SMALL},
    }


def rewards(done, of: str) -> dict[float | None, float]:
    return {value.x: value.value for value in done.values if (value.measure, value.of) == ("reward", of)}


def test_the_oracle_has_the_least_cost_of_all_that_fit(few, store, tmp_path: Path):
    done = store.done("search", few)
    with opened(few, tmp_path / "work", store.done("adapter", few)) as found:
        weight = few["policy"]["cost_weight"]
        for link in found.links:
            budget, best = found.budget(link), float("inf")
            for ranks in map(RankVector, product((0, 1), repeat=8)):
                if (bits := found.packer.air_bits(ranks)) <= budget:
                    best = min(best, found.trainee.try_ranks(ranks).loss + weight * bits / budget)
            assert -rewards(done, "oracle")[link.snr_db] == pytest.approx(best, rel=1e-4)


def test_regret_is_read_from_the_oracle_where_there_is_one(few, settings, store):
    done = store.done("regret", few)
    regret = {(value.of, value.x): value.value for value in done.values if value.measure == "regret"}
    assert all(value == 0 for (of, _), value in regret.items() if of == "oracle")
    assert min(regret.values()) == 0
    assert max(regret.values()) > 0
    assert "oracle" not in {value.of for value in store.done("search", settings).values}
