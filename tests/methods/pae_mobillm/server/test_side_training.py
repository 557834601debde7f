"""Training on cached samples: its first step by hand, cached against not cached, resumed against unbroken, failures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from server_material import at_wire_precision, body, drawn, identity

from airtune.errors import DataError, RunError
from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.pivots import identity_of, read_pivots
from airtune.methods.pae_mobillm.server.cache import ActivationCache
from airtune.methods.pae_mobillm.server.checkpoint import Epoch
from airtune.methods.pae_mobillm.server.training import Training, TrainingPlan
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import Samples, encode_samples
from airtune.models import BaseModel, Items, load_base
from airtune.records import generator, seed_for
from tiny_models import save_tiny_model

PLAN = TrainingPlan(
    seed=3, bottleneck=4, temperature=1.0, batch_size=4, learning_rate=0.02, weight_decay=0.1, loss="mse"
)
IDENTITY = identity(bits=(32, 32))


class Arrays:
    """Samples of one pivot, straight from arrays."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def ids(self) -> np.ndarray:
        return np.sort(self._samples.ids)

    def rows(self, ids: np.ndarray) -> Samples:
        at = [self._samples.ids.tolist().index(one) for one in ids.tolist()]
        found = self._samples
        return Samples(ids, found.counts[at], found.activations[at], found.differences[at])


def samples(n: int = 10, of=IDENTITY) -> Samples:
    return drawn(range(n), of)


def train(folder: Path, source, epochs: int, plan: TrainingPlan = PLAN, of=IDENTITY) -> Training:
    training = Training(folder, of, plan)
    list(training.until(source, epochs))
    return training


def weights(training: Training) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in training.network.state_dict().items()}


def assert_equal_bits(one: Training, other: Training) -> None:
    for name, value in weights(one).items():
        np.testing.assert_array_equal(value, weights(other)[name], err_msg=name)
    assert one.history == other.history


def test_the_first_step_by_hand(tmp_path):
    """At the start only W_out and b_out have a gradient: -2 / (n C) times h_K^T Dy, and times the sum of Dy."""
    given = samples(4)
    training = train(tmp_path, Arrays(given), 1)
    state = (given.activations[:, 0] + given.activations[:, 1]) / 2  # mu_2 is sigmoid(0)
    gradients = {
        "out": -2 / given.differences.size * state.T @ given.differences,
        "bias": -2 / given.differences.size * given.differences.sum(axis=0),
    }
    for name, gradient in gradients.items():  # AdamW's first step: m / sqrt(v) is g / |g|
        np.testing.assert_allclose(weights(training)[name], -0.02 * gradient / (np.abs(gradient) + 1e-8), rtol=1e-5)
    assert not weights(training)["up"].any()
    assert not weights(training)["alpha"].any()
    draw = torch.Generator().manual_seed(seed_for(3, "pae side network"))
    first = SideNetwork(2, 6, 4, 3, generator=draw).down.detach().numpy()
    np.testing.assert_allclose(weights(training)["down"], first * (1 - 0.02 * 0.1), rtol=1e-6)
    assert training.history == (Epoch(1, pytest.approx(np.mean(given.differences**2.0)), 4, 4),)


def test_huber_is_its_formula_and_takes_outliers_less_seriously(tmp_path):
    given = samples(4)
    given.differences[0, 0] = 100.0
    training = train(tmp_path, Arrays(given), 1, replace(PLAN, loss="huber"))
    size = np.abs(given.differences.astype(np.float64))
    expected = np.where(size <= 1, size**2 / 2, size - 0.5).mean()
    assert training.history[0].loss == pytest.approx(expected)


def test_epochs_take_each_sample_once_in_the_order_of_seed_and_epoch(tmp_path):
    seen: list[list[int]] = []

    class Watched(Arrays):
        def rows(self, ids: np.ndarray) -> Samples:
            seen.append(ids.tolist())
            return super().rows(ids)

    train(tmp_path, Watched(samples()), 2)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    for epoch, batches in ((1, seen[:3]), (2, seen[3:])):
        order = [one for batch in batches for one in batch]
        assert order == generator(3, "pae epoch", epoch).permutation(10).tolist()


def test_an_epochs_loss_is_the_mean_over_its_rows(tmp_path):
    """With no learning, batches of 4, 4 and 2 must give the mean over all 10."""
    given = samples()
    training = train(tmp_path, Arrays(given), 1, replace(PLAN, learning_rate=1e-30))
    assert training.history[0].loss == pytest.approx(np.mean(given.differences**2.0), rel=1e-6)


class Fresh:
    """Not cached: the backbone runs over every batch again, in the batches of this epoch."""

    def __init__(self, base: BaseModel, items: Items) -> None:
        self._base, self._items = base, items
        self.passes = 0

    def ids(self) -> np.ndarray:
        return np.arange(len(self._items), dtype=np.uint64)

    def rows(self, ids: np.ndarray) -> Samples:
        self.passes += 1
        read = read_pivots(self._base, self._items, ids.astype(int), (1, 2))
        differences = prediction_differences(read.logits, read.targets, space="logit", scale=4.0)
        return Samples(ids, read.counts, read.activations, differences)


@pytest.mark.parametrize(("bits", "within"), [(32, 1e-5), (16, 2**-10), (8, 2 / 127)])  # twice the wire's rounding
def test_training_from_the_cache_is_training_on_passes_through_the_backbone_in_every_epoch(tmp_path, bits, within):
    base = load_base(str(save_tiny_model(tmp_path / "bert", "bert", kind="classify")), "classify", labels=3)
    rng = np.random.default_rng(0)
    items = Items(tuple(rng.integers(4, 22, rng.integers(2, 9)) for _ in range(20)), rng.integers(0, 3, 20), 0)
    of = identity_of(base, (1, 2), (bits, bits), length=10)
    fresh = Fresh(base, items)
    uncached = train(tmp_path / "uncached", fresh, 6, of=of)
    assert fresh.passes == 6 * 5
    with ActivationCache(tmp_path / "cache.db", of) as cache:
        for rows in items.in_order(8):  # as a device sends them, each once
            read = fresh.rows(rows.astype(np.uint64))
            cache.put(encode_samples(read, of), len(rows), now=0.0)
        cached = train(tmp_path / "cached", cache, 6, of=of)
    losses = [[epoch.loss for epoch in one.history] for one in (cached, uncached)]
    np.testing.assert_allclose(*losses, rtol=within)
    assert losses[0][-1] < 0.9 * losses[0][0]


@pytest.mark.parametrize("memory_mb", [0.0, 1.0])
@pytest.mark.parametrize("bits", [(32, 32), (16, 8)])
def test_training_from_the_cache_is_training_on_what_crossed_the_wire(tmp_path, bits, memory_mb):
    of = identity(bits=bits)
    given = samples(10, of)
    crossed = np.stack([at_wire_precision(given.activations[:, at], some) for at, some in enumerate(bits)], axis=1)
    direct = train(tmp_path / "direct", Arrays(replace(given, activations=crossed)), 3, of=of)
    with ActivationCache(tmp_path / "cache.db", of, memory_mb=memory_mb) as cache:
        for some in ([7, 2, 9], [0, 1, 3, 4], [8, 6, 5]):  # in no order: it does not show
            cache.put(body(some, of), len(some), now=0.0)
        cached = train(tmp_path / "cached", cache, 3, of=of)
    assert_equal_bits(cached, direct)
    assert (bits == (32, 32)) == np.array_equal(crossed, given.activations)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("parts", [(1, 4), (3, 3, 4), (4, 4)])
def test_a_resumed_training_is_an_unbroken_one(tmp_path, parts: Sequence[int], layers):
    of = identity(bits=(32,) * layers)
    source = Arrays(samples(10, of))
    unbroken = train(tmp_path / "unbroken", source, 4, of=of)
    for part in parts:
        resumed = train(tmp_path / "resumed", source, part, of=of)
    assert_equal_bits(resumed, unbroken)
    assert len(list((tmp_path / "resumed").iterdir())) == 2


def test_it_learns_what_can_be_learned(tmp_path):
    """A linear map of the last hidden state: least squares would find it, so must 60 epochs nearly."""
    given = drawn(range(40), IDENTITY)
    target = given.activations[:, 1] @ np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    plan = replace(PLAN, weight_decay=0.0, learning_rate=0.05, batch_size=10)
    training = train(tmp_path, Arrays(replace(given, differences=target)), 60, plan)
    assert training.history[-1].loss < 0.02 * training.history[0].loss
    found = training.network.differences(given.activations)
    assert np.mean((found - target) ** 2) < 0.02 * np.mean(target**2)


def test_samples_that_arrive_later_come_in_with_the_next_epoch(tmp_path):
    with ActivationCache(tmp_path / "cache.db", IDENTITY) as cache:
        cache.put(body(range(3), IDENTITY), 3, now=0.0)
        training = Training(tmp_path, IDENTITY, PLAN)
        for epoch in training.until(cache, 3):
            ids = range(10 * epoch.epoch, 10 * epoch.epoch + 2)
            cache.put(body(ids, IDENTITY, counts=[1, 2]), 2, several=True, now=0.0)
    assert [(one.samples, one.rows) for one in training.history] == [(3, 3), (5, 6), (7, 9)]


def test_nothing_to_train_on_is_refused(tmp_path):
    with ActivationCache(tmp_path / "cache.db", IDENTITY) as cache:
        training = Training(tmp_path, IDENTITY, PLAN)
        with pytest.raises(DataError, match="nothing is cached"):
            list(training.until(cache, 1))
        assert list(training.until(cache, 0)) == []


def test_a_loss_that_is_not_finite_names_epoch_and_samples_and_keeps_the_last_epoch(tmp_path):
    given = samples(10)
    good = train(tmp_path / "good", Arrays(given), 2)
    training = train(tmp_path / "bad", Arrays(given), 2)
    damaged = replace(given, differences=given.differences.copy())
    damaged.differences[6] = 1e30  # its square is beyond float32
    batch = next(b for b in np.split(generator(3, "pae epoch", 3).permutation(10), [4, 8]) if 6 in b)
    named = ", ".join(str(one) for one in batch)
    with pytest.raises(DataError, match=f"loss is inf in epoch 3 over samples {named}; epoch 2 is kept"):
        list(training.until(Arrays(damaged), 3))
    assert_equal_bits(training, good)
    assert_equal_bits(Training(tmp_path / "bad", IDENTITY, PLAN), good)
    list(training.until(Arrays(given), 3))
    assert_equal_bits(training, train(tmp_path / "good", Arrays(given), 3))


def test_a_failure_in_the_first_epoch_leaves_the_start(tmp_path):
    damaged = samples(4)
    damaged.differences[:] = 1e30
    training = Training(tmp_path, IDENTITY, PLAN)
    with pytest.raises(DataError, match="epoch 0 is kept"):
        list(training.until(Arrays(damaged), 1))
    assert training.history == ()
    assert not training.network.differences(damaged.activations).any()


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    """One step of decay by 1 - 3.3e38: what starts beyond 1.04 is no float32 afterwards."""
    plan = replace(PLAN, weight_decay=3.3e38 / 0.02, batch_size=100, bottleneck=40)
    training = Training(tmp_path, IDENTITY, plan)
    assert training.network.down.abs().max() > 1.04
    with pytest.raises(DataError, match="weight is no longer finite after epoch 1; epoch 0 is kept"):
        list(training.until(Arrays(samples()), 1))
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_torch_refuses_is_one_line(tmp_path):
    training = Training(tmp_path, IDENTITY, replace(PLAN, learning_rate=1e39))
    with pytest.raises(DataError, match=r"epoch 1 failed .*lower learning rate"):
        list(training.until(Arrays(samples()), 1))
    assert training.history == ()


def test_a_checkpoint_half_written_is_that_of_the_epoch_before(tmp_path, monkeypatch):
    source = Arrays(samples())
    two = train(tmp_path / "two", source, 2)
    training = train(tmp_path / "cut", source, 2)

    def fail(path: Path, text: str) -> None:
        raise RunError(f"cannot write {path}")

    monkeypatch.setattr("airtune.methods.pae_mobillm.server.checkpoint.write_text", fail)
    with pytest.raises(RunError, match="cannot write"):
        list(training.until(source, 3))
    monkeypatch.undo()
    assert_equal_bits(training, two)
    assert_equal_bits(Training(tmp_path / "cut", IDENTITY, PLAN), two)
    list(training.until(source, 3))
    assert_equal_bits(training, train(tmp_path / "two", source, 3))


def damage_tensors(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])


def lose_tensors(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    path.unlink()


def damage_record(folder: Path) -> None:
    (folder / "side.json").write_text("{")


def strange_record(folder: Path) -> None:
    record = json.loads((folder / "side.json").read_text())
    (folder / "side.json").write_text(json.dumps({**record, "history": [{"epoch": 1}]}))


@pytest.mark.parametrize("damage", [damage_tensors, lose_tensors, damage_record, strange_record])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    train(tmp_path, Arrays(samples()), 1)
    damage(tmp_path)
    with pytest.raises(RunError, match=r"side\.json is damaged .*delete it"):
        Training(tmp_path, IDENTITY, PLAN)


def test_a_checkpoint_of_another_size_is_refused(tmp_path):
    train(tmp_path, Arrays(samples()), 1)
    with pytest.raises(RunError, match="another network"):
        Training(tmp_path, IDENTITY, replace(PLAN, bottleneck=5))
