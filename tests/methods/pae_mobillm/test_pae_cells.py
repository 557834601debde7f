"""PAE MobiLLM's cells on a tiny BERT: against a device of the same settings, the model's own outputs, bytes by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from airtune.errors import ConfigError, ModelError
from airtune.ledger import Ledger
from airtune.methods.pae_mobillm.building import new_device, open_uplink, samples_of, server_role
from airtune.methods.pae_mobillm.cells import KINDS, memory
from airtune.methods.pae_mobillm.cells.choosing import Look, best_on_dev, epochs_looked_at
from airtune.methods.pae_mobillm.cells.labels import by_labels
from airtune.methods.pae_mobillm.cells.reading import base_of, open_reading
from airtune.methods.pae_mobillm.cells.sending import Sending
from airtune.methods.pae_mobillm.cells.side import Arrays, plan_of
from airtune.methods.pae_mobillm.config import config_from, load_config
from airtune.methods.pae_mobillm.peaks import WAYS, Peak
from airtune.methods.pae_mobillm.rivals import lora
from airtune.methods.pae_mobillm.server.training import Training
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.records import Silent
from airtune.records.cells import CellStore, Done
from airtune.studies.declaration import read_study
from airtune.transport import Loopback
from airtune.workloads.opening import open_reader
from services.tiny_runs import classify_settings

OFS = {
    "side": ("pae",),
    "labels": ("labels", "mobillm"),
    "probe": ("probe", "backbone"),
    "lora": ("lora",),
    "split": ("split",),
}
MIB = dict(zip(WAYS, (1, 2, 6, 5, 4, 3), strict=True))
"""What each way's processes are said to have needed."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return load_config("tiny", classify_settings(tmp_path_factory.mktemp("cells") / "classify")).as_dict()


def peaks_of(shape, *, repeats: int) -> dict[str, list[Peak]]:
    """Instead of processes: the shape is what the reading says."""
    assert (shape.labels, shape.samples) == (2, 32)
    return {way: [Peak(9, 0, 0), Peak(9, 1024 * mib, 0)] for way, mib in MIB.items()}


@pytest.fixture(scope="module")
def cells(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Done]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "rises", peaks_of)
        patch.setattr(memory, "CAN_MEASURE", True)
        yield computed(settings, CellStore(tmp_path_factory.mktemp("store")))


def computed(settings: dict[str, Any], store: CellStore) -> dict[str, Done]:
    """Every kind's cell."""
    keys: dict[str, str] = {}
    for name, kind in KINDS.items():
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


def test_every_way_is_told_by_the_same_measures(cells):
    """Scores are means of their items; processes said how much memory; what sends nothing waits for no link."""
    for kind, ofs in OFS.items():
        for of in ofs:
            found = {v.measure: v.value for v in cells[kind].values if v.of == of}
            assert found["score"] == pytest.approx(cells[kind].items[f"score/{of}/"].mean())
            assert ("epochs" in found) == (of != "backbone")
            assert found["wall_s"] >= found["link_s"]
            assert (found["link_s"] == 0) == (of in ("probe", "backbone", "lora"))
            assert found["device_mib"] == pytest.approx(
                {"backbone": 1, "mobillm": 6, "lora": 4, "split": 3, "probe": 2 + 96 * 16 * 4 / 2**20}.get(of, 2)
            )


def test_bytes_of_side_networks_by_hand(cells):
    """96 samples: 8 bytes of id, 2 layers of 16 numbers at 2 bytes, 2 differences of 4; MobiLLM by tokens, epochs."""
    done, read = cells["labels"], cells["reading"]
    tokens = next(v.value for v in read.values if v.measure == "tokens")
    side = 4 * (2 * (2 * 16 * 8 + 1) + (16 + 1) * 2)
    up, down = values(done, "up_bytes"), values(done, "down_bytes")
    assert values(cells["side"], "up_bytes") == {"pae": 96 * (8 + 2 * 16 * 2 + 2 * 4)}
    assert up["labels"] == 96 * (8 + 2 * 16 * 2 + 4)
    assert up["mobillm"] == values(done, "epochs")["mobillm"] * (tokens * 2 * 16 * 2 + 96 * 4)
    assert values(cells["side"], "down_bytes")["pae"] == down["labels"] == down["mobillm"] == side
    rate = 2.43e6 * np.log2(1 + 10**0.5)
    assert values(cells["side"], "link_s")["pae"] == pytest.approx(8 * (96 * 80 + side) / rate)
    assert values(done, "score")["mobillm"] == values(done, "score")["labels"]


def test_operations_and_bytes_of_what_trains_the_backbone(cells):
    """PAE passes once, MobiLLM once an epoch; split learning sends each token's 16 numbers each way in every epoch."""
    once = next(v.value for v in cells["reading"].values if v.measure == "flops")
    tokens = next(v.value for v in cells["reading"].values if v.measure == "tokens")
    assert values(cells["side"], "device_flops")["pae"] == once
    epochs = values(cells["labels"], "epochs")["mobillm"]
    assert values(cells["labels"], "device_flops") == {"labels": once, "mobillm": epochs * once}
    alone, split = (cells[kind] for kind in ("lora", "split"))
    passes = values(alone, "epochs")["lora"]
    assert (
        2 < values(alone, "device_flops")["lora"] / (passes * once) < 5
    )  # backward, and factors half as wide as blocks
    assert 0.4 < values(split, "device_flops")["split"] / values(alone, "device_flops")["lora"] < 0.5
    assert (values(alone, "up_bytes")["lora"], values(alone, "down_bytes")["lora"]) == (0, 0)
    assert values(split, "epochs")["split"] == passes
    assert values(split, "up_bytes")["split"] == passes * (tokens * 16 * 2 + 96 * 4 + 3 * 4)


def test_rate_and_epochs_are_the_earliest_of_the_best_on_dev():
    """Right shares by rate and epoch; one rate breaks down after its first look."""
    shares = {(0.1, 1): 0.5, (0.1, 2): 0.7, (0.2, 1): 0.7, (0.3, 1): 0.6}

    def train(rate: float) -> Iterator[Look[list[float]]]:
        model = [rate, 0.0]
        for epochs in (1, 2):
            if (rate, epochs) not in shares:
                raise ModelError("the loss is nan; lower the rate")
            model[1] = epochs
            yield Look(model, epochs, 10.0 * epochs)

    found = best_on_dev((0.1, 0.2, 0.3), train, lambda model: shares[model[0], int(model[1])])
    assert (found.rate, found.look.epochs, found.look.seconds, found.dev_score) == (0.1, 2, 20.0, 0.7)
    assert found.look.model == [0.1, 2.0]
    with pytest.raises(ModelError, match="none of 1 rates could be trained at"):
        best_on_dev((0.4,), train, lambda model: 0.0)
    assert (epochs_looked_at(20), epochs_looked_at(2), epochs_looked_at(1)) == ([5, 10, 20], [1, 2], [1])


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_sent_under_a_defence_is_what_a_device_sends(settings, cells, tmp_path: Path, bits: int):
    """Rotation, noise and fewer layers: a device of these settings, over its own reading of the backbone."""
    privacy = {**settings["privacy"], "rotate_to": 5, "epsilon": 30.0}
    device = {**settings["device"], "layers": "uniform", "layer_count": 1, "bits": bits}
    config = config_from({**settings, "privacy": privacy, "device": device})
    reader = open_reader(config)
    items, read = samples_of(config, reader), open_reading(cells["reading"])["train"]
    server = Loopback(server_role(config, tmp_path))
    built = new_device(config, reader.base, items, open_uplink(config), server, Ledger(), Silent())
    sending = Sending.chosen(config, read, lambda: base_of(settings))
    sent = built.device.samples(items, np.arange(96), np.arange(96, dtype=np.uint64))
    states, differences = sending.sent(read)
    assert (states.shape, differences.shape) == ((96, 1, 16), (96, 5))
    assert sending.identity.layers == built.identity.layers == (2,)
    np.testing.assert_allclose(differences, sent.differences, rtol=1e-3, atol=1e-3)
    step = np.abs(sent.activations).max() * (2**-10 if bits == 16 else 1 / 127)
    np.testing.assert_allclose(states, sent.activations, rtol=0, atol=1.01 * step)


def test_the_page_names_the_grid_that_lora_is_chosen_from(cells):
    """Two rates and five epochs; what was chosen is among them."""
    noted = " ".join(read_study("pae_mobillm", "pae").notes)
    rates, last = re.search(r"LoRA \(rank 8 .*?\) at (\S+ and \S+) after 1 to (\d) epochs", noted).groups()
    tried = [float(rate) for rate in rates.split(" and ")]
    assert (tried, int(last)) == (list(lora.RATES), lora.EPOCHS) == ([1e-3, 3e-3], 5)
    assert values(cells["lora"], "rate")["lora"] in tried
    assert values(cells["lora"], "epochs")["lora"] in range(1, 6)


def test_layers_that_a_study_cannot_choose_are_refused(settings, cells):
    read = open_reading(cells["reading"])["train"]

    def chosen(layers: str) -> Sending:
        config = config_from({**settings, "device": {**settings["device"], "layers": layers}})
        return Sending.chosen(config, read, lambda: base_of(settings))

    np.testing.assert_array_equal(chosen("1").own(read)[:, 0], read.states[:, 0].astype("f2").astype("f4"))
    with pytest.raises(ConfigError, match=r"device\.layers is greedy, which studies do not measure"):
        chosen("greedy")


def test_the_gap_is_paired_item_by_item_and_stands_at_the_number_of_classes(cells):
    scores = {of: values(cells[kind], "score")[of] for kind, of in (("labels", "labels"), ("side", "pae"))}
    (gap,) = cells["gap"].values
    assert (gap.measure, gap.at) == ("gap", "2 classes")
    assert gap.value == pytest.approx(scores["labels"] - scores["pae"])
    assert set(np.unique(cells["gap"].items["gap/gap/"])) <= {-1, 0, 1}


def test_what_was_sent_plainly_tells_every_label(cells):
    """The largest entry of a plain difference is its class, by construction; two clusters are the two classes."""
    found, chance = ({v.measure: v.value for v in cells["leaks"].values if v.of == of} for of in ("found", "chance"))
    assert (found["label_argmax"], found["purity"]) == (1, 1)
    assert 0.5 <= chance["label_argmax"] < 1
    assert found["score"] == values(cells["side"], "score")["pae"]
    assert {"nearest_first", "nearest_last", "words_first", "words_last", "membership", "label_named"} <= set(found)


def test_labels_and_differences_start_alike_and_see_the_same_batches(cells, settings, tmp_path: Path, monkeypatch):
    """Weights before the first step, and the rows of every step of two epochs, beside the server's own training."""
    read = open_reading(cells["reading"])["train"]
    config = config_from(settings)
    plan, seen = plan_of(config), list[tuple[torch.Tensor, torch.Tensor]]()
    forward = SideNetwork.forward

    def noted(self: SideNetwork, rows: torch.Tensor) -> torch.Tensor:
        seen.append((self.down.detach().clone(), rows.clone()))
        return forward(self, rows)

    sending = Sending.chosen(config, read, lambda: base_of(settings))
    monkeypatch.setattr(SideNetwork, "forward", noted)
    for _ in Training(tmp_path, sending.identity, plan).until(Arrays(*sending.sent(read)), 2):
        pass
    by_differences, seen[:] = list(seen), []
    for _ in by_labels(sending.own(read), read, plan, plan.learning_rate, [2]):
        pass
    assert len(seen) == len(by_differences) == 2 * 3
    assert torch.equal(seen[0][0], by_differences[0][0])
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(seen, by_differences, strict=True))


def test_training_by_labels_lowers_their_loss(cells, settings):
    read = open_reading(cells["reading"])["train"]
    plan = plan_of(config_from(settings))
    plain = torch.nn.functional.cross_entropy(torch.from_numpy(read.logits), torch.from_numpy(read.targets))
    losses = {}
    for look in by_labels(read.states, read, plan, plan.learning_rate, [1, 40]):
        scores = torch.from_numpy(read.logits + look.model.differences(read.states))
        losses[look.epochs] = float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(read.targets)))
    assert losses[40] < 0.8 * float(plain)
    assert losses[40] < losses[1] < 1.1 * float(plain)


def test_seeds_share_a_reading_and_paths_count_by_content(settings, tmp_path: Path):
    plain = KINDS["reading"].key(settings, {})
    assert KINDS["reading"].key({**settings, "seed": 3}, {}) == plain
    for name in ("side", "labels", "probe", "lora", "split", "leaks"):
        assert KINDS[name].key({**settings, "seed": 3}, {}) != KINDS[name].key(settings, {})
    assert KINDS["memory"].key({**settings, "seed": 3}, {}) == KINDS["memory"].key(settings, {})
    hidden = {**settings, "privacy": {**settings["privacy"], "epsilon": 8.0}}
    assert KINDS["side"].key(hidden, {}) != KINDS["side"].key(settings, {})
    assert KINDS["labels"].key(hidden, {}) == KINDS["labels"].key(settings, {})  # who sends labels hides nothing
    moved = tmp_path / "rows.csv"
    moved.write_bytes(Path(settings["task"]["data"]).read_bytes())
    task = {**settings["task"], "data": str(moved)}
    assert KINDS["reading"].key({**settings, "task": task}, {}) == plain
    moved.write_text(moved.read_text() + "one more,cat\n")
    assert KINDS["reading"].key({**settings, "task": task}, {}) != plain
