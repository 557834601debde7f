"""PAE MobiLLM's cells on a tiny BERT: against a run of the same settings, the model's own outputs, bytes by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from airtune.methods.pae_mobillm.building import samples_of
from airtune.methods.pae_mobillm.cells import KINDS
from airtune.methods.pae_mobillm.cells.reading import open_reading
from airtune.methods.pae_mobillm.cells.side import by_labels, plan_of
from airtune.methods.pae_mobillm.config import config_from, load_config
from airtune.records.cells import CellStore, Done
from airtune.workloads.opening import open_reader
from services.tiny_runs import classify_settings

OFS = ("backbone", "pae", "labels", "probe", "mobillm")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return load_config("tiny", classify_settings(tmp_path_factory.mktemp("cells") / "classify")).as_dict()


@pytest.fixture(scope="module")
def cells(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    store, keys = CellStore(tmp_path_factory.mktemp("store")), {}
    for name in ("reading", "side"):
        kind = KINDS[name]
        needed = {other: keys[other] for other in kind.needs}
        keys[name] = kind.key(settings, needed)
        work = store.folder(name, keys[name]) / "work"
        outcome = kind.compute(settings, work, {other: store.read(other, key) for other, key in needed.items()})
        store.write(kind, keys[name], settings, outcome, 1.0)
    return {name: store.read(name, key) for name, key in keys.items()}


def values(done: Done, measure: str) -> dict[str, float]:
    return {v.of: v.value for v in done.values if v.measure == measure}


def test_what_is_read_is_the_model_s_own(cells, settings):
    config = config_from(settings)
    reader = open_reader(config)
    items, read = samples_of(config, reader), open_reading(cells["reading"])["train"]
    with torch.inference_mode():
        for row in (0, 40, 95):
            batch = items.batch(np.array([row]))
            found = reader.base.model(batch.input_ids, batch.attention_mask, output_hidden_states=True)
            hidden = torch.stack([one[0, 0] for one in found.hidden_states[1:]])
            np.testing.assert_allclose(read.states[row], hidden.numpy(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(read.logits[row], found.logits[0].numpy(), rtol=1e-4, atol=1e-5)
            assert read.targets[row] == items.classes[row]


def test_scores_are_means_of_their_items_and_every_way_has_its_bytes(cells, settings):
    """96 samples: 8 bytes of id, 2 layers of 16 numbers at 2 bytes, 2 differences of 4; MobiLLM by tokens, epochs."""
    done = cells["side"]
    for of in OFS:
        assert values(done, "score")[of] == pytest.approx(done.items[f"score/{of}/"].mean())
    up, down = values(done, "up_bytes"), values(done, "down_bytes")
    tokens = next(v.value for v in cells["reading"].values if v.measure == "tokens")
    side = 4 * (2 * (2 * 16 * 8 + 1) + (16 + 1) * 2)
    assert up["pae"] == 96 * (8 + 2 * 16 * 2 + 2 * 4)
    assert up["labels"] == 96 * (8 + 2 * 16 * 2 + 4)
    assert up["mobillm"] == 2 * (tokens * 2 * 16 * 2 + 96 * 4)
    assert (up["probe"], up["backbone"], down["probe"]) == (0, 0, 0)
    assert down["pae"] == down["mobillm"] == side
    rate = 2.43e6 * np.log2(1 + 10**0.5)
    assert values(done, "seconds")["pae"] == pytest.approx(8 * (up["pae"] + side) / rate)
    assert values(done, "score")["mobillm"] == values(done, "score")["labels"]


def test_before_any_epoch_a_network_by_labels_is_the_backbone_and_training_lowers_its_loss(cells, settings):
    read = open_reading(cells["reading"])["train"]
    plan = plan_of(config_from(settings))

    def loss(epochs: int) -> float:
        scores = torch.from_numpy(read.logits + by_labels(read.states, read, plan, epochs).differences(read.states))
        return float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(read.targets)))

    plain = torch.nn.functional.cross_entropy(torch.from_numpy(read.logits), torch.from_numpy(read.targets))
    assert loss(0) == pytest.approx(float(plain))
    assert loss(30) < 0.8 * float(plain)


def test_seeds_share_a_reading_and_paths_count_by_content(settings, tmp_path: Path):
    plain = KINDS["reading"].key(settings, {})
    assert KINDS["reading"].key({**settings, "seed": 3}, {}) == plain
    assert KINDS["side"].key({**settings, "seed": 3}, {}) != KINDS["side"].key(settings, {})
    moved = tmp_path / "rows.csv"
    moved.write_bytes(Path(settings["task"]["data"]).read_bytes())
    task = {**settings["task"], "data": str(moved)}
    assert KINDS["reading"].key({**settings, "task": task}, {}) == plain
    moved.write_text(moved.read_text() + "one more,cat\n")
    assert KINDS["reading"].key({**settings, "task": task}, {}) != plain
