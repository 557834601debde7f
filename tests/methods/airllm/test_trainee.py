"""Training broken off and resumed, losses by transformers' own computation, an adapter lent and returned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from airtune.adapters import Adapter, RankSampler, RankVector
from airtune.adapters.gains import measure_gains
from airtune.codec import Factors
from airtune.errors import ModelError, RunError
from airtune.methods.airllm import trainee as trainee_module
from airtune.methods.airllm.trainee import Trainee
from airtune.models import FitPlan, Items, load_base, sentences, windows
from airtune.records import Measurements, generator
from airtune.workloads.parts import Parts
from tiny_models import WORDS, save_tiny_model

PLAN = FitPlan(steps=10, batch_size=4, learning_rate=1e-2, seed=5)
SAMPLER = RankSampler(full=0.2, uniform=0.3)
PER_ITEM = RankSampler(full=0, uniform=0.5, per_item=True)
LADDER = RankSampler(prefixes=4)
"""Ranks 4, 2, 1 and mixed ones."""


def some_sentences(count: int, seed: int) -> tuple[list[str], list[int]]:
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS[4:], rng.integers(3, 9))) for _ in range(count)]
    return texts, [int("red" in text or "cat" in text) for text in texts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("bert"), "bert", kind="classify")


def new_trainee(folder: Path, measurements: Path, kind: str = "classify") -> Trainee:
    base = load_base(str(folder), kind, labels=2, seed=3)
    adapter = Adapter(base, 4, scale=1.5, generator=torch.Generator().manual_seed(1))

    def items(count: int, seed: int) -> Items:
        texts, classes = some_sentences(count, seed)
        if kind == "text":
            return windows(" ".join(texts), base.tokenizer, window=8)
        return sentences(texts, classes, base.tokenizer, max_length=16)

    parts = Parts(train=items(24, 0), calibration=items(9, 1), dev=items(4, 2), test=items(4, 3), complexities=())
    return Trainee(adapter, parts, Measurements(measurements))


def train(trainee: Trainee, checkpoint: Path, *, stop_after: int = 10**9, plan: FitPlan = PLAN, sampler=SAMPLER):
    """Train; return (losses by step, ranks by step, step resumed at), or what there is when stopped."""
    losses, ranks, resumed = {}, {}, []

    def on_step(step) -> None:
        losses[step.index], ranks[step.index] = step.loss, trainee.adapter.ranks
        if len(losses) == stop_after:
            raise KeyboardInterrupt

    try:
        trainee.train(
            plan, sampler, orthogonality=0.01, checkpoint=checkpoint, on_step=on_step, on_resume=resumed.append
        )
    except KeyboardInterrupt:
        assert len(losses) == stop_after
    return losses, ranks, resumed


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """An unbroken training: (trainee, losses, ranks, checkpoint)."""
    place = tmp_path_factory.mktemp("unbroken")
    trainee = new_trainee(folder, place / "measurements.jsonl")
    losses, ranks, resumed = train(trainee, place / "checkpoint.safetensors")
    assert resumed == []
    assert list(losses) == list(range(10))
    return trainee, losses, ranks, place / "checkpoint.safetensors"


def state_of(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in adapter.parameters().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("stopped", "resumed_at"), [(3, []), (4, [4]), (6, [4]), (9, [8]), (10, [10])])
def test_a_resumed_training_is_bit_for_bit_the_unbroken_one(
    folder, trained, tmp_path, monkeypatch, stopped, resumed_at
):
    monkeypatch.setattr(trainee_module, "CHECKPOINT_EVERY", 4)
    whole, losses, ranks, _ = trained
    assert whole.adapter.base.model.config.hidden_dropout_prob == 0.1
    checkpoint = tmp_path / "checkpoint.safetensors"
    train(new_trainee(folder, tmp_path / "first.jsonl"), checkpoint, stop_after=stopped)
    torch.manual_seed(stopped)  # another process stands elsewhere in the global stream
    resumed = new_trainee(folder, tmp_path / "second.jsonl")
    rest, rest_ranks, at = train(resumed, checkpoint)
    start = at[0] if at else 0
    assert at == resumed_at
    assert rest == {step: losses[step] for step in range(start, 10)}
    assert rest_ranks == {step: ranks[step] for step in range(start, 10)}
    assert same(state_of(resumed.adapter), state_of(whole.adapter))
    assert all(np.array_equal(resumed.dense[name], whole.dense[name]) for name in whole.dense)


@pytest.mark.parametrize("sampler", [PER_ITEM, LADDER])
def test_a_resumed_training_at_several_ranks_is_bit_for_bit_the_unbroken_one(folder, tmp_path, monkeypatch, sampler):
    monkeypatch.setattr(trainee_module, "CHECKPOINT_EVERY", 4)
    whole, first, resumed = (new_trainee(folder, tmp_path / f"{name}.jsonl") for name in "abc")
    losses = train(whole, tmp_path / "whole.safetensors", sampler=sampler)[0]
    train(first, tmp_path / "broken.safetensors", stop_after=6, sampler=sampler)
    rest, _, at = train(resumed, tmp_path / "broken.safetensors", sampler=sampler)
    assert at == [4]
    assert rest == {step: losses[step] for step in range(4, 10)}
    assert same(state_of(resumed.adapter), state_of(whole.adapter))


def test_dropout_is_on_in_training_and_its_draws_count(folder, trained, tmp_path):
    """With dropout off the same steps end elsewhere: the test above does compare dropout's draws."""
    still = new_trainee(folder, tmp_path / "m.jsonl")
    for module in still.adapter.base.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    losses, ranks, _ = train(still, tmp_path / "checkpoint.safetensors")
    assert ranks == trained[2]
    assert losses[0] != trained[1][0]


def test_ranks_of_a_step_are_drawn_from_seed_and_step_alone(folder, trained, tmp_path):
    trainee, _, ranks, _ = trained
    caps = trainee.adapter.caps
    assert ranks == {step: SAMPLER.draw(caps, 4, generator(PLAN.seed, "nested-ranks", step))[0] for step in range(10)}
    assert len(set(ranks.values())) > 3
    other_seed = FitPlan(steps=10, batch_size=4, learning_rate=1e-2, seed=6)
    other = train(new_trainee(folder, tmp_path / "m.jsonl"), tmp_path / "c.safetensors", plan=other_seed)[1]
    assert other != ranks


def test_every_item_is_passed_once_under_one_rank_vector_also_in_a_smaller_last_batch(folder, tmp_path, monkeypatch):
    """What a step says it cost is what goes through the model: no item is passed twice for the sake of nesting."""
    trainee, passed, vectors, steps = new_trainee(folder, tmp_path / "m.jsonl"), [], [], []
    model, adapter = trainee.adapter.base.model, trainee.adapter
    watched = model.register_forward_pre_hook(
        lambda _, args, named: passed.append(named["input_ids"]), with_kwargs=True
    )
    give = adapter.set_item_ranks
    monkeypatch.setattr(adapter, "set_item_ranks", lambda given: (vectors.append(len(given)), give(given)))
    plan = FitPlan(steps=5, batch_size=5, learning_rate=1e-2)  # 24 items: four batches of 5 and one of 4
    trainee.train(plan, PER_ITEM, orthogonality=0, checkpoint=tmp_path / "c.safetensors", on_step=steps.append)
    watched.remove()
    assert sorted(vectors) == [4, 5, 5, 5, 5]
    assert vectors == [len(ids) for ids in passed]
    assert [step.tokens for step in steps] == [ids.numel() for ids in passed]


def test_copies_of_a_batch_are_passed_together_each_under_its_own_ranks(folder, tmp_path, monkeypatch):
    trainee, passed, vectors, steps = new_trainee(folder, tmp_path / "m.jsonl"), [], [], []
    model, adapter = trainee.adapter.base.model, trainee.adapter
    watched = model.register_forward_pre_hook(
        lambda _, args, named: passed.append(named["input_ids"]), with_kwargs=True
    )
    give = adapter.set_item_ranks
    monkeypatch.setattr(adapter, "set_item_ranks", lambda given: (vectors.append(given), give(given)))
    plan = FitPlan(steps=5, batch_size=5, learning_rate=1e-2)  # 24 items: four batches of 5 and one of 4
    trainee.train(plan, LADDER, orthogonality=0, checkpoint=tmp_path / "c.safetensors", on_step=steps.append)
    watched.remove()
    assert sorted(map(len, vectors)) == [16, 20, 20, 20, 20]
    for ids, given in zip(passed, vectors, strict=True):
        count = len(ids) // 4
        assert torch.equal(ids, ids[:count].repeat(4, 1))
        assert [ranks.ranks[0] for ranks in given[: 3 * count]] == [4] * count + [2] * count + [1] * count
    assert [step.tokens for step in steps] == [ids.numel() for ids in passed]


def test_factors_have_unit_norms_and_the_trained_update(trained):
    trainee, _, _, checkpoint = trained
    raw = load_file(checkpoint)
    for site in trainee.adapter.sites:
        found = trainee.factors[site.path]
        assert np.linalg.norm(found.p, axis=0) == pytest.approx(1, abs=1e-6)
        assert np.linalg.norm(found.q, axis=1) == pytest.approx(1, abs=1e-6)
        p, lam, q = (raw[f"{site.path}.{name}"].double().numpy() for name in ("p", "lam", "q"))
        assert np.abs(p).max() > 1e-3  # something was learned here
        assert (found.p * found.lam) @ found.q == pytest.approx(1.5 * p.T @ np.diag(lam) @ q, abs=1e-6)
    for name, value in trainee.dense.items():
        assert np.array_equal(value, raw[name].numpy())


def loss_of_merged_weights(folder: Path, kind: str, trainee: Trainee, ranks: RankVector) -> float:
    """transformers' own loss on the calibration items, item by item, of a plain model whose weights hold the update."""
    base = load_base(str(folder), kind, labels=2, seed=3)
    with torch.no_grad():
        for site, rank in zip(base.sites, ranks.ranks, strict=True):
            found = trainee.factors[site.path]
            update = (found.p[:, :rank].astype(np.float64) * found.lam[:rank]) @ found.q[:rank]
            weight = base.model.get_submodule(site.path).weight
            weight.add_(torch.from_numpy(update.astype(np.float32)))
        for name, value in trainee.dense.items():
            base.model.get_parameter(name).copy_(torch.from_numpy(value))
        items, losses = trainee.parts.calibration, []
        for row, ids in enumerate(items.ids):
            tokens = torch.from_numpy(ids)[None]
            labels = tokens if items.classes is None else torch.tensor([items.classes[row]])
            losses.append(float(base.model(input_ids=tokens, labels=labels).loss))
    return float(np.mean(losses))


def test_a_tried_loss_is_that_of_a_plain_model_with_merged_weights(folder, trained, tmp_path):
    trainee = trained[0]
    caps = trainee.adapter.caps
    mixed = RankVector.of(np.random.default_rng(0).integers(0, caps.ranks, endpoint=True))
    losses = []
    for ranks in (caps, RankVector((0,) * len(caps)), mixed):
        trial = trainee.try_ranks(ranks)
        assert (trial.ranks, trial.measured) == (ranks, True)
        assert trial.loss == pytest.approx(loss_of_merged_weights(folder, "classify", trainee, ranks), abs=1e-5)
        losses.append(trial.loss)
    assert len({round(loss, 4) for loss in losses}) == 3  # the ranks made a difference


def test_a_tried_loss_of_a_text_model_is_that_of_merged_weights(tmp_path):
    folder = save_tiny_model(tmp_path / "opt", "opt")
    trainee = new_trainee(folder, tmp_path / "m.jsonl", kind="text")
    train(trainee, tmp_path / "c.safetensors", plan=FitPlan(steps=4, batch_size=4, learning_rate=1e-2))
    ranks = RankVector((2,) * len(trainee.adapter.sites))
    expected = loss_of_merged_weights(folder, "text", trainee, ranks)
    assert trainee.try_ranks(ranks).loss == pytest.approx(expected, abs=1e-5)


def test_a_loss_is_measured_once_also_by_another_process(folder, trained, tmp_path):
    whole, path = trained[0], tmp_path / "losses.jsonl"
    first = Trainee(whole.adapter, whole.parts, Measurements(path))
    ranks = [RankVector((rank,) * len(whole.adapter.sites)) for rank in (1, 2, 1)]
    losses = [first.try_ranks(asked).loss for asked in ranks]
    assert losses[0] == losses[2] != losses[1]
    assert first.measured == 2
    later = new_trainee(folder, path)  # not even trained: it has to remember
    assert [later.try_ranks(asked).loss for asked in ranks] == losses
    assert later.measured == 2


@pytest.mark.parametrize("answer", [None, "0.5", True, [1]])
def test_a_remembered_loss_that_is_no_number_is_refused(folder, tmp_path, answer):
    trainee = new_trainee(folder, tmp_path / "m.jsonl")
    caps = trainee.adapter.caps
    Measurements(tmp_path / "m.jsonl").put({"of": "", "ranks": list(caps.ranks)}, answer)
    again = new_trainee(folder, tmp_path / "m.jsonl")
    with pytest.raises(RunError, match=r"holds the loss .* remove that line and resume"):
        again.try_ranks(caps)


def test_gains_are_measured_once_and_count_as_the_losses_they_are_the_work_of(folder, trained, tmp_path):
    """At caps of 4: gradients at 3 points from rank 0 to 1, one each to 2 and 4; 15 losses' work on half of them."""
    whole, path = trained[0], tmp_path / "losses.jsonl"
    first = Trainee(whole.adapter, whole.parts, Measurements(path))
    gains = first.gains()
    assert first.measured == 8
    first.try_ranks(whole.adapter.caps)
    assert first.measured == 9
    later = new_trainee(folder, path)
    for gain, again in zip(gains, later.gains(), strict=True):
        np.testing.assert_array_equal(gain, again)
    assert later.measured == 9
    expected = measure_gains(whole.adapter, whole.parts.calibration)
    for gain, found in zip(gains, expected, strict=True):
        np.testing.assert_allclose(gain, found, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("answer", [None, "gains", [1.0], [[0.1]] * 12, [[float("nan")] * 4] * 12])
def test_remembered_gains_that_are_not_of_these_sites_are_refused(folder, tmp_path, answer):
    Measurements(tmp_path / "m.jsonl").put({"of": "", "what": "gains"}, answer)
    with pytest.raises(RunError, match=r"holds gains that are .* remove that line and resume"):
        new_trainee(folder, tmp_path / "m.jsonl").gains()


def test_a_loss_that_is_not_finite_is_refused_and_not_remembered(folder, tmp_path):
    trainee = new_trainee(folder, tmp_path / "m.jsonl")
    with torch.no_grad():
        trainee.adapter.base.model.classifier.bias[0] = float("nan")
    with pytest.raises(ModelError, match=r"is nan; expected a finite number") as caught:
        trainee.try_ranks(trainee.adapter.caps)
    assert "\n" not in str(caught.value)
    assert trainee.measured == 0
    assert len(Measurements(tmp_path / "m.jsonl")) == 0


def other_factors(trainee: Trainee, rank: int) -> dict[str, Factors]:
    rng = np.random.default_rng(rank)
    return {
        site.path: Factors(
            p=rng.normal(size=(site.fan_out, rank)).astype(np.float32),
            lam=rng.normal(size=rank).astype(np.float32),
            q=rng.normal(size=(rank, site.fan_in)).astype(np.float32),
        )
        for site in trainee.adapter.sites
    }


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("broken", [False, True])
def test_a_borrowed_adapter_comes_back_bit_for_bit(trained, rank, broken):
    trainee = trained[0]
    before = state_of(trainee.adapter)
    caps, dense = trainee.adapter.caps, {name: value + 1 for name, value in trainee.dense.items()}

    def borrow() -> None:
        with trainee.borrowed():
            trainee.adapter.load(other_factors(trainee, rank), dense)
            assert not same(state_of(trainee.adapter), before)
            if broken:
                raise ZeroDivisionError

    if broken:
        with pytest.raises(ZeroDivisionError):
            borrow()
    else:
        borrow()
    assert same(state_of(trainee.adapter), before)
    assert trainee.adapter.ranks == caps


def broken_checkpoints(whole: Path) -> dict[str, bytes]:
    """Ways in which a checkpoint can be wrong, from one that is right."""
    tensors, place = load_file(whole), whole.with_name("broken.safetensors")

    def written(changed: dict[str, torch.Tensor], metadata: dict[str, str] | None) -> bytes:
        save_file(changed, place, metadata=metadata)
        return place.read_bytes()

    done = {"steps_done": "4"}
    lam = next(name for name in tensors if name.endswith(".lam") and not name.startswith("optimiser"))
    return {
        "cut off": whole.read_bytes()[:-10],
        "empty": b"",
        "other bytes": b"not a checkpoint at all" * 9,
        "no count of steps": written(tensors, None),
        "a count that is none": written(tensors, {"steps_done": "four"}),
        "a tensor missing": written({name: value for name, value in tensors.items() if name != lam}, done),
        "a moment missing": written({n: v for n, v in tensors.items() if n != f"optimiser.exp_avg.{lam}"}, done),
        "another rank": written(tensors | {lam: tensors[lam][:1].clone()}, done),  # which would broadcast
        "another moment": written(tensors | {f"optimiser.exp_avg.{lam}": torch.zeros(1)}, done),
    }


def test_a_checkpoint_that_is_not_this_runs_is_refused_in_one_line(folder, trained, tmp_path):
    for name, data in broken_checkpoints(trained[3]).items():
        checkpoint = tmp_path / "checkpoint.safetensors"
        checkpoint.write_bytes(data)
        trainee = new_trainee(folder, tmp_path / "m.jsonl")
        with pytest.raises(
            RunError, match=r"^checkpoint checkpoint\.safetensors cannot be read \(.*remove it"
        ) as caught:
            train(trainee, checkpoint)
        assert "\n" not in str(caught.value), name


def test_scores_are_of_the_ranks_asked_for(trained):
    """Scoring at one rank leaves no trace on the next."""
    trainee = trained[0]
    caps, none = trainee.adapter.caps, RankVector((0,) * len(trainee.adapter.sites))
    full = trainee.score(caps, trainee.parts.test)
    bare = trainee.score(none, trainee.parts.test)
    assert not np.allclose(full.logits, bare.logits)
    assert np.array_equal(trainee.score(caps, trainee.parts.test).logits, full.logits)
    assert trainee.adapter.ranks == caps
