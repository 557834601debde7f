"""The stage in which adapter and policy learn together: the environment, the learner and the agent, from settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from airtune.adapters import RankVector
from airtune.links import Link
from airtune.methods.airllm.allocators import Allocator, Random, Uniform
from airtune.methods.airllm.building import practice_links
from airtune.methods.airllm.encoding import decode
from airtune.methods.airllm.environment import AllocationEnv
from airtune.methods.airllm.paper.adaptive import SteppedAdaLora
from airtune.methods.airllm.paper.algorithm import Agent, Algorithm1
from airtune.methods.airllm.paper.rivals import Holding, Rival
from airtune.methods.airllm.paper.stepping import Learner, SteppedAdapter
from airtune.methods.airllm.paper.stopping import EarlyStop, Evaluation
from airtune.methods.airllm.paper.training import Course, train
from airtune.methods.airllm.policy.priors import CoarseLatent
from airtune.methods.airllm.session import Session
from airtune.methods.airllm.trainee import Trainee
from airtune.models import FitPlan, Step
from airtune.records import Measurements, generator

BITS = 32
"""Bits per number in eta (Eq. 6)."""
LOGGED_EVERY = 20
"""Training steps whose mean loss is one line of the metrics."""


@dataclass(frozen=True)
class Learned:
    """What the stage hands on."""

    trainee: Trainee
    """Its adapter trained, with its factors as they are sent."""
    allocator: Allocator
    """How the method decides now."""
    course: Course


def learn(
    session: Session, trainee: Trainee, plan: FitPlan, links: Sequence[Link], measurements: Measurements
) -> Learned:
    """Train by the method that the settings choose, from the checkpoint in the run folder where there is one."""
    config, adapter = session.config, trainee.adapter
    on_step = _logging(session)
    if config.paper.method == "adalora":
        adapter.detach()
        most, scale = adapter.caps.total, config.adapter.scale
        with SteppedAdaLora(adapter.base, trainee.parts, plan, most, scale=scale, on_step=on_step) as adaptive:
            held = Holding("adalora", lambda: adaptive.ranks)
            course = _train(session, trainee, adaptive, links, lambda env: Rival(env, lambda _: held, seed=plan.seed))[
                1
            ]
            trained, ranks = adaptive.trained(measurements)
        return Learned(trained, Holding("adalora", lambda: ranks), course)
    stepped = SteppedAdapter(trainee, plan, orthogonality=config.adapter.orthogonality, on_step=on_step)
    agent, course = _train(session, trainee, stepped, links, lambda env: _agent(session, trainee, env))
    return Learned(stepped.trained(), agent.allocator(), course)


def _train(
    session: Session,
    trainee: Trainee,
    learner: Learner,
    links: Sequence[Link],
    new_agent: Callable[[AllocationEnv], Agent],
) -> tuple[Agent, Course]:
    config, folder, parts = session.config, session.folder, trainee.parts
    paper, steps = config.paper, config.adapter.steps
    with session.progress.stage("Training adapter and policy", total=steps) as stage:

        def on_evaluation(found: Evaluation) -> None:
            values = {"loss": found.loss, "score": found.score, "reward": found.reward}
            folder.metric("evaluation", step=found.step, total_rank=found.total_rank, **values)

        def on_episode(done: int, reward: float, loss: float) -> None:
            folder.metric("episode", env_steps=done, reward_mean=reward, refiner_loss=loss)
            stage.advance(paper.horizon, f"reward {reward:.3f}")

        course = Course(
            learner, parts.calibration, window=paper.horizon, every=paper.evaluate_every, on_evaluation=on_evaluation
        )
        agent = new_agent(_environment(session, trainee, learner, links, course))
        train(
            agent,
            learner,
            course,
            EarlyStop(config.policy.cost_weight, paper.patience, by_accuracy=parts.calibration.classes is not None),
            steps=steps,
            horizon=paper.horizon,
            checkpoint=folder.path / "checkpoint.safetensors",
            on_resume=lambda done: stage.advance(done, f"resumed at step {done}"),
            on_episode=on_episode,
        )
    return agent, course


def _environment(
    session: Session, trainee: Trainee, learner: Learner, links: Sequence[Link], course: Course
) -> AllocationEnv:
    """A step of it is one of fine-tuning; nothing is cut to the deadline, and eta is of the asked count of numbers."""
    config, adapter = session.config, trainee.adapter
    paper, width = config.paper, adapter.base.hidden_size

    def bits(ranks: RankVector) -> int:
        return BITS * ranks.parameters(adapter.sites, count=paper.count, hidden_size=width)

    return AllocationEnv(
        learner,
        adapter.caps,
        bits,
        practice_links(links, config.policy.bandwidth_factors),
        trainee.parts.complexities,
        deadline_s=config.link.deadline_s,
        cost_weight=config.policy.cost_weight,
        horizon=paper.horizon,
        soft=True,
        decoder=_decoder(session),
        on_executed=course.hear,
    )


def _agent(session: Session, trainee: Trainee, env: AllocationEnv) -> Agent:
    config, caps, seed = session.config, trainee.adapter.caps, session.config.seed
    match config.paper.method:
        case "uniform":
            return Rival(env, lambda _: Uniform(caps), seed=seed)
        case "random":
            least = config.paper.min_rank
            return Rival(env, lambda number: Random(caps, generator(seed, "random", number), least), seed=seed)
    latent = CoarseLatent.of(trainee.adapter.sites)
    return Algorithm1(env, latent, config.policy, seed=seed, decoder=_decoder(session))


def _decoder(session: Session) -> partial:
    paper = session.config.paper
    return partial(decode, rule=paper.rounding, least=paper.min_rank)


def _logging(session: Session) -> Callable[[Step], None]:
    recent: list[float] = []

    def on_step(step: Step) -> None:
        recent.append(step.loss)
        if (step.index + 1) % LOGGED_EVERY == 0:
            session.folder.metric("train", step=step.index + 1, loss=sum(recent) / len(recent))
            recent.clear()

    return on_step
