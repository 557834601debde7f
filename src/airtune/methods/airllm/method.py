"""AirLLM, start to end: fine-tune, decide ranks for the channel, send in time, apply and score at the edge.

START HERE. The paper's order: data and its complexity -> nested adapter (Eqs. 1-3) -> link (Eqs. 4-5) -> policy
(Eqs. 10-19, Algorithm 1) -> for every SNR: decide, project (Eq. 7), encode, send, score. All lands in the run folder.
In `paper` mode adapter and policy learn together, which is `paper/run`.
"""

from __future__ import annotations

from typing import Any

from airtune.methods.airllm.allocators import Allocator, Random, Uniform, mean_reward
from airtune.methods.airllm.building import (
    check_links,
    fit_plan,
    given_policy,
    new_env,
    new_packer,
    new_trainee,
    open_links,
    parts_of,
    practice_links,
)
from airtune.methods.airllm.config import AirLLMConfig
from airtune.methods.airllm.fine_tuning import fine_tune, score_references
from airtune.methods.airllm.finishing import new_rounds, send_all, summarise
from airtune.methods.airllm.learning import keep_policy, learn_policy, learn_surrogate, settle
from airtune.methods.airllm.paper.run import run_paper
from airtune.methods.airllm.policy.priors import CoarseLatent
from airtune.methods.airllm.roles import check_edge
from airtune.methods.airllm.rounds import notes_on
from airtune.methods.airllm.search.greedy import Greedy
from airtune.methods.airllm.session import Session
from airtune.records import Measurements, Progress, RunFolder, generator
from airtune.transport import Transport
from airtune.workloads.opening import open_reader

RIVAL_EPISODES = 128
"""Episodes over which the rewards of uniform and random are averaged, to stand beside the policy's."""
GREEDY_EVALUATIONS = 6
"""Losses that `greedy` measures at each SNR, at most, beside those that the surrogate learned from."""


def run(config: AirLLMConfig, folder: RunFolder, edge: Transport, progress: Progress) -> dict[str, Any]:
    """Run the main job; return its summary, which is also in the folder.

    Args:
        folder: Takes everything; a resumed one repeats no fine-tuning step and no loss measurement.
        edge: Reaches a role made by `edge_role` from the same settings.
    """
    if config.note:
        progress.say(config.note)
    session = Session(config, folder, progress, folder.read_ledger())  # costs from before an interruption count
    return run_paper(session, edge) if config.mode == "paper" else run_nested(session, edge)


def run_nested(session: Session, edge: Transport) -> dict[str, Any]:
    """Nested mode: one adapter, of which every prefix works, then a decision per channel state."""
    config, folder, progress = session.config, session.folder, session.progress
    with session.timed("load"), progress.stage("Loading model and task"):
        reader = open_reader(config)
        parts = parts_of(config, reader)
        trainee = new_trainee(config, reader, parts, Measurements(folder.path / "measurements.jsonl"))
        check_links(config, trainee)
        given = given_policy(config, trainee.adapter)
        check_edge(edge, reader.base, parts.test)

    plan = fit_plan(config, reader.base.hidden_size)
    with session.timed("train"):
        fine_tune(session, trainee, plan)  # Eqs. 1-3
    with session.timed("reference"):
        reference = score_references(session, trainee, plan)

    with session.timed("quantise"):
        packer = new_packer(config, trainee)
    caps = trainee.adapter.caps
    links, reason = open_links(config.link, packer, caps)  # Eqs. 4-5
    progress.say(f"Bandwidth {links[0].bandwidth_hz / 1e3:.1f} kHz: {reason}.")

    with session.timed("measure"):
        surrogate, acquisition, quality = learn_surrogate(session, trainee, packer, links)
        greedy = Greedy(acquisition, evaluations=GREEDY_EVALUATIONS, cost_weight=config.policy.cost_weight)
        settle(session, greedy, links)
    with session.timed("policy"):
        practice = practice_links(links, config.policy.bandwidth_factors)
        env = new_env(config, surrogate, packer, caps, practice, parts)
        policy = given or learn_policy(session, env, CoarseLatent.of(trainee.adapter.sites), greedy)  # Algorithm 1
        if given is None:
            keep_policy(session, policy, trainee, packer, practice)
    for rival in (Uniform(caps), Random(caps, generator(config.seed, "random", "reward"))):
        folder.metric(rival.name, reward_mean=mean_reward(env, rival, episodes=RIVAL_EPISODES, seed=config.seed))

    allocators: list[Allocator] = [Uniform(caps), Random(caps, generator(config.seed, "random")), greedy, policy]
    rounds = new_rounds(session, trainee, packer, edge, reader.task.metric)
    with session.timed("rounds"):
        rows = send_all(session, rounds, allocators, links)  # Eq. 7, and over the air

    notes = [config.note] * bool(config.note) + notes_on(rows)
    return summarise(session, trainee, rows, reason, reference, notes, surrogate=quality)
