"""Every step of the environment is one of fine-tuning; evaluations, stop and checkpoint fall where they should."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from torch.nn import functional

from airtune.adapters import Adapter, RankVector
from airtune.errors import ModelError, RunError
from airtune.links import Link
from airtune.methods.airllm.allocators import Random, Uniform
from airtune.methods.airllm.environment import AllocationEnv
from airtune.methods.airllm.paper import training
from airtune.methods.airllm.paper.adaptive import STRONGER, SteppedAdaLora
from airtune.methods.airllm.paper.rivals import Rival
from airtune.methods.airllm.paper.stepping import SteppedAdapter
from airtune.methods.airllm.paper.stopping import EarlyStop
from airtune.methods.airllm.paper.training import Course, train
from airtune.methods.airllm.trainee import Trainee
from airtune.models import FitPlan, load_base, new_optimiser, sentences
from airtune.records import Measurements, generator
from airtune.tasks import Complexity
from airtune.workloads.parts import Parts
from tiny_models import WORDS, save_tiny_model

PLAN = FitPlan(steps=12, batch_size=4, learning_rate=1e-2, warmup_share=0.0, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("opt"), "opt", kind="classify")


def new_trainee(folder: Path, at: Path) -> Trainee:
    base = load_base(str(folder), "classify", labels=2, seed=3)
    adapter = Adapter(base, 4, generator=torch.Generator().manual_seed(1))

    def items(count: int, seed: int):
        rng = np.random.default_rng(seed)
        texts = [" ".join(rng.choice(WORDS[4:], rng.integers(3, 9))) for _ in range(count)]
        return sentences(texts, [int("red" in t or "cat" in t) for t in texts], base.tokenizer, max_length=16)

    parts = Parts(train=items(24, 0), calibration=items(9, 1), dev=items(12, 2), test=items(4, 3), complexities=())
    return Trainee(adapter, parts, Measurements(at / "measurements.jsonl"))


def stepped(trainee: Trainee, plan: FitPlan = PLAN, **more) -> SteppedAdapter:
    learner = SteppedAdapter(trainee, plan, orthogonality=0.0, on_step=more.get("on_step", lambda step: None))
    learner.begin(0)
    return learner


def weights(trainee: Trainee) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainee.adapter.parameters().items()}


def test_a_try_is_one_optimiser_step_on_the_next_batch(folder, tmp_path):
    """Against the same steps by hand: forward, backward, clip, AdamW; the loss told is the batch's, before the step."""
    trainee, by_hand = new_trainee(folder, tmp_path), new_trainee(folder, tmp_path)
    learner, ranks = stepped(trainee), [RankVector((4,) * 12), RankVector((1, 2) * 6)]
    for model in (trainee.adapter.base.model, by_hand.adapter.base.model):
        for module in model.modules():
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
    parameters = by_hand.adapter.parameters()
    optimiser, schedule = new_optimiser(list(parameters.values()), PLAN), by_hand.parts.train
    batches = schedule.schedule(PLAN.steps, 4, generator(PLAN.seed, "batches"))
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    for step, asked in enumerate(ranks):
        before = weights(trainee)
        trial = learner.try_ranks(asked)
        by_hand.adapter.set_ranks(asked)
        batch = schedule.batch(batches[step])
        logits = by_hand.adapter.base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        loss = functional.cross_entropy(logits, batch.labels)
        assert trial.loss == pytest.approx(float(loss.detach()), rel=1e-6)
        assert trial.ranks == asked
        optimiser.param_groups[0]["lr"] = 1e-2 * PLAN.rate_factor(step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 0.3)
        optimiser.step()
        after = weights(trainee)
        assert all(torch.allclose(after[name], p, atol=1e-6) for name, p in parameters.items())
        assert any(not torch.equal(after[name], before[name]) for name in after)


def environment(trainee: Trainee, learner, course: Course, horizon: int = 3) -> AllocationEnv:
    def bits(ranks: RankVector) -> int:
        return 32 * ranks.parameters(trainee.adapter.sites, count="paper", hidden_size=16)

    return AllocationEnv(
        learner,
        trainee.adapter.caps,
        bits,
        [Link(1e5, 0.0), Link(1e5, 10.0)],
        [Complexity(5.0, 0.1, 50)],
        deadline_s=1.0,
        cost_weight=0.1,
        horizon=horizon,
        soft=True,
        on_executed=course.hear,
    )


def uniform(env: AllocationEnv) -> Rival:
    return Rival(env, lambda _: Uniform(env.caps), seed=0)


def run(trainee: Trainee, checkpoint: Path, *, rule: EarlyStop | None = None, steps: int = 12, agent=uniform, **more):
    """Train in episodes of three steps, evaluated every two; (course, losses)."""
    losses: list[float] = []
    learner = stepped(trainee, on_step=lambda step: losses.append(step.loss))
    course = Course(learner, trainee.parts.dev, window=3, every=2)
    train(
        agent(environment(trainee, learner, course)),
        learner,
        course,
        rule or EarlyStop(0.1, 5, True),
        steps=steps,
        horizon=3,
        checkpoint=checkpoint,
        **more,
    )
    return course, losses


def test_steps_are_counted_and_evaluated_and_rewards_averaged_over_an_episode(folder, tmp_path):
    """12 sites of rank 4 are 48 ranks of 2 x 16 numbers of 32 bits: 49,152 bits. 1e5 Hz carry 1e5 bit/s at 0 dB and
    1e5 log2(11) at 10 dB."""
    heard: list[tuple[int, float]] = []
    course, losses = run(
        new_trainee(folder, tmp_path),
        tmp_path / "c",
        on_episode=lambda done, reward, loss: heard.append((done, reward)),
    )
    assert len(losses) == course.steps == 12
    assert [found.step for found in course.evaluations] == [2, 4, 6, 8, 10, 12]
    assert {found.total_rank for found in course.evaluations} == {48}
    assert [done for done, _ in heard] == [3, 6, 9, 12]
    slow, fast = 49_152 / 1e5, 49_152 / (1e5 * np.log2(11))
    for done, reward in heard:
        paid = -(reward + np.mean(losses[done - 3 : done])) / 0.1  # mean eta of three steps
        assert any(paid == pytest.approx((k * slow + (3 - k) * fast) / 3) for k in range(4))
    assert course.evaluations[2].reward == pytest.approx(heard[1][1])  # step 6: the second episode's


class Often(EarlyStop):
    """Stops at the third evaluation."""

    def stops(self, evaluations):
        return len(evaluations) >= 3


def test_the_stop_ends_training_with_the_episode_under_way(folder, tmp_path):
    course, losses = run(new_trainee(folder, tmp_path), tmp_path / "c", rule=Often(0.1, 5, True))
    assert [found.step for found in course.evaluations] == [2, 4, 6]
    assert course.steps == len(losses) == 6
    resumed: list[int] = []
    again, more = run(new_trainee(folder, tmp_path), tmp_path / "c", rule=Often(0.1, 5, True), on_resume=resumed.append)
    assert (resumed, more) == ([6], [])  # a stopped training stays stopped
    assert again.evaluations == course.evaluations


def chance(env: AllocationEnv) -> Rival:
    return Rival(env, lambda number: Random(env.caps, generator(0, "random", number), 1), seed=0)


class Breaks:
    """An agent that dies within an episode."""

    def __init__(self, agent: Rival, number: int) -> None:
        self._agent, self._number = agent, number
        self.name, self.kept = agent.name, agent.kept

    def episode(self, number: int) -> float:
        if number == self._number:
            self._agent._env.reset(seed=99)
            self._agent._env.advance(RankVector((1,) * 12))
            raise KeyboardInterrupt
        return self._agent.episode(number)

    def allocator(self):
        return self._agent.allocator()


@pytest.mark.parametrize("broken_at", [1, 3])
def test_a_resumed_training_is_the_unbroken_one(folder, tmp_path, monkeypatch, broken_at):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 3)
    whole = new_trainee(folder, tmp_path)
    course, losses = run(whole, tmp_path / "whole", agent=chance)
    with pytest.raises(KeyboardInterrupt):
        run(new_trainee(folder, tmp_path), tmp_path / "broken", agent=lambda env: Breaks(chance(env), broken_at))
    resumed: list[int] = []
    trainee = new_trainee(folder, tmp_path)
    again, rest = run(trainee, tmp_path / "broken", agent=chance, on_resume=resumed.append)
    assert resumed == [3 * broken_at]
    assert rest == losses[3 * broken_at :]
    assert again.evaluations == course.evaluations
    assert all(torch.equal(weights(trainee)[name], value) for name, value in weights(whole).items())


def test_a_loss_that_is_no_number_names_step_and_rows_and_keeps_the_checkpoint(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 3)
    trainee = new_trainee(folder, tmp_path)

    class Spoils(Breaks):
        def episode(self, number: int) -> float:
            if number == 2:
                with torch.no_grad():
                    next(iter(trainee.adapter.head().values())).fill_(float("nan"))
            return self._agent.episode(number)

    with pytest.raises(
        ModelError,
        match=r"^episode 2 \(steps 6 to 6\): the training loss is nan at step 6 \(rows \[.*; the checkpoint of step 6",
    ):
        run(trainee, tmp_path / "c", agent=lambda env: Spoils(uniform(env), 0))
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / "c").values())
    course, losses = run(new_trainee(folder, tmp_path), tmp_path / "c")
    assert course.steps == 12
    assert len(losses) == 6


def test_weights_that_are_no_numbers_do_not_reach_the_checkpoint(folder, tmp_path, monkeypatch):
    """A step can leave them behind with its own loss still finite."""
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 3)
    trainee = new_trainee(folder, tmp_path)

    class Spoils(Breaks):
        def episode(self, number: int) -> float:
            loss = self._agent.episode(number)
            if number == 1:
                with torch.no_grad():
                    next(iter(trainee.adapter.parameters().values())).fill_(float("nan"))
            return loss

    with pytest.raises(ModelError, match=r"episode 1 \(steps 3 to 6\): adapter/.* not finite; .*checkpoint of step 3"):
        run(trainee, tmp_path / "c", agent=lambda env: Spoils(uniform(env), 0))
    with safe_open(tmp_path / "c", framework="pt") as file:
        assert json.loads(file.metadata()["course"])["steps"] == 3


def test_a_checkpoint_of_something_else_is_one_clear_line(folder, tmp_path):
    trainee = new_trainee(folder, tmp_path)
    run(trainee, tmp_path / "c", steps=3)
    tensors = load_file(tmp_path / "c")
    name = next(name for name in tensors if name.endswith(".lam"))
    save_file(tensors | {name: torch.ones(2)}, tmp_path / "c", {"course": json.dumps({"steps": 3})})
    for spoil in (None, b"nothing"):
        if spoil:
            (tmp_path / "c").write_bytes(spoil)
        with pytest.raises(RunError, match=r"^checkpoint c cannot be read \(.*; remove it to train from the start$"):
            run(new_trainee(folder, tmp_path), tmp_path / "c")


# AdaLoRA


def adalora(trainee: Trainee, checkpoint: Path, **more):
    """Train down to 24 directions at 12 sites; (course, losses, trainee with its factors, ranks)."""
    losses: list[float] = []
    base = trainee.adapter.base
    trainee.adapter.detach()
    with SteppedAdaLora(
        base, trainee.parts, PLAN, 24, scale=1 / STRONGER, on_step=lambda step: losses.append(step.loss)
    ) as learner:
        course = Course(learner, trainee.parts.dev, window=3, every=2)
        env = environment(trainee, learner, course)
        agent = more.pop("agent", uniform)(env)
        rule = more.pop("rule", EarlyStop(0.1, 5, True))
        train(agent, learner, course, rule, steps=12, horizon=3, checkpoint=checkpoint, **more)
        dev = learner.score(trainee.parts.dev)
        trained, ranks = learner.trained(Measurements(checkpoint.with_suffix(".jsonl")))
    return course, losses, dev, trained, ranks


def test_adalora_does_not_stop_while_it_has_more_directions_than_it_may_send(folder, tmp_path):
    at_once = SimpleNamespace(stops=lambda evaluations: True)
    course, _, _, _, ranks = adalora(new_trainee(folder, tmp_path), tmp_path / "c", rule=at_once)
    assert ranks.total == 24
    assert 3 < course.steps < 12


def test_adalora_is_pefts_own_training_and_hands_over_what_it_scored(folder, tmp_path):
    from airtune.methods.airllm.baselines.adalora import train_adalora

    trainee = new_trainee(folder, tmp_path)
    course, losses, dev, trained, ranks = adalora(trainee, tmp_path / "c")
    assert ranks.total == 24
    assert course.evaluations[0].total_rank == 36  # 1.5 times 2, before the first cut
    assert trained.score(ranks, trained.parts.dev).losses == pytest.approx(dev.losses, abs=1e-5)
    bare = new_trainee(folder, tmp_path)
    bare.adapter.detach()
    assert train_adalora(bare.adapter.base, bare.parts, PLAN, 24, alpha=3.0).losses == tuple(losses)


def test_a_resumed_adalora_is_the_unbroken_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 3)
    course, losses, dev, _, ranks = adalora(new_trainee(folder, tmp_path), tmp_path / "whole")
    for at in (1, 3):  # before and after the cut
        broken = tmp_path / f"broken{at}"
        with pytest.raises(KeyboardInterrupt):
            adalora(new_trainee(folder, tmp_path), broken, agent=lambda env, at=at: Breaks(uniform(env), at))
        again, rest, same, _, left = adalora(new_trainee(folder, tmp_path), broken)
        assert rest == losses[3 * at :]
        assert again.evaluations == course.evaluations
        assert np.array_equal(same.losses, dev.losses)
        assert left == ranks
