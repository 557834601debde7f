"""AirLLM, start to end: fine-tune, decide ranks for the channel, send in time, apply and score at the edge.

START HERE. The paper's order: data and its complexity -> nested adapter (Eqs. 1-3) -> link (Eqs. 4-5) -> policy
(Eqs. 10-19, Algorithm 1) -> for every SNR: decide, project (Eq. 7), encode, send, score. All lands in the run folder.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from airtune.adapters import RankVector, export_peft
from airtune.ledger import Ledger
from airtune.links import Link
from airtune.methods.airllm.allocation import AllocationEnv, Trial, decision_budget
from airtune.methods.airllm.allocators import AirLLM, Allocator, Greedy, Random, Uniform, mean_reward
from airtune.methods.airllm.building import (
    check_links,
    fit_plan,
    new_env,
    new_trainee,
    open_links,
    open_reader,
    parts_of,
    rank_sampler,
)
from airtune.methods.airllm.coarse import CoarseLatent
from airtune.methods.airllm.config import AirLLMConfig
from airtune.methods.airllm.packing import Packer
from airtune.methods.airllm.policy import train_policy
from airtune.methods.airllm.roles import check_edge
from airtune.methods.airllm.rounds import Rounds, Row, notes_on
from airtune.methods.airllm.surrogate import LossSurrogate, held_out_error, probes
from airtune.methods.airllm.trainee import Trainee
from airtune.models import FitPlan, Score, Step, head_only, score
from airtune.records import Measurements, Progress, RunFolder, generator, write_bytes
from airtune.transport import Transport

SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Shares of the full adapter around which allocations are measured, beside those that the asked SNRs allow."""
RIVAL_EPISODES = 128
"""Episodes over which the rewards of uniform and random are averaged, to stand beside the policy's."""
GREEDY_MOVES = 4
"""Exchange moves that `greedy` measures at each SNR."""


@dataclass
class Session:
    """What the stages of one run hand on: settings, folder, costs, and who watches."""

    config: AirLLMConfig
    folder: RunFolder
    progress: Progress
    ledger: Ledger
    stage_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.stage_s[stage] = time.perf_counter() - begun
        self.ledger.book("compute_seconds", self.stage_s[stage], role="cloud", what=stage)
        self.folder.write_ledger(self.ledger)


def run(config: AirLLMConfig, folder: RunFolder, edge: Transport, progress: Progress) -> dict[str, Any]:
    """Run the main job; return its summary, which is also in the folder.

    Args:
        folder: Takes everything; a resumed one repeats no fine-tuning step and no loss measurement.
        edge: Reaches a role made by `edge_role` from the same settings.
    """
    begun = time.perf_counter()
    session = Session(config, folder, progress, folder.read_ledger())  # costs from before an interruption count
    earlier_s = session.ledger.total("compute_seconds")
    with session.timed("load"), progress.stage("Loading model and task"):
        reader = open_reader(config)
        parts = parts_of(config, reader)
        trainee = new_trainee(config, reader, parts, Measurements(folder.path / "measurements.jsonl"))
        check_links(config, trainee)
        check_edge(edge, reader.base, parts.test)

    plan = fit_plan(config, reader.base.hidden_size)
    with session.timed("train"):
        fine_tune(session, trainee, plan)  # Eqs. 1-3
    with session.timed("reference"):
        reference = score_references(session, trainee, plan)

    packer = Packer(reader.base, trainee.factors, trainee.dense, config.codec.bits)
    caps = trainee.adapter.caps
    links, reason = open_links(config.link, packer, caps)  # Eqs. 4-5
    progress.say(f"Bandwidth {links[0].bandwidth_hz / 1e3:.1f} kHz: {reason}.")

    with session.timed("measure"):
        surrogate, quality = learn_surrogate(session, trainee, packer, links)
    greedy = Greedy(
        caps,
        packer.air_bits,
        packer.direction_bits,
        surrogate.predict,
        trainee,
        moves=GREEDY_MOVES,
    )
    with session.timed("policy"):
        env = new_env(config, surrogate, packer, caps, links, parts)
        policy = learn_policy(session, env, CoarseLatent.of(trainee.adapter.sites), greedy)  # Algorithm 1
    for rival in (Uniform(caps), Random(caps, generator(config.seed, "random", "reward"))):
        folder.metric(rival.name, reward_mean=mean_reward(env, rival, episodes=RIVAL_EPISODES, seed=config.seed))

    allocators: list[Allocator] = [Uniform(caps), Random(caps, generator(config.seed, "random")), greedy, policy]
    rounds = Rounds(
        trainee,
        packer,
        edge,
        session.ledger,
        parts.complexity,
        metric=reader.task.metric,
        deadline_s=config.link.deadline_s,
        cost_weight=config.policy.cost_weight,
        late_share=config.link.late_share,
        run_id=secrets.randbits(64),  # after a resume too: the edge may remember the messages from before
    )
    with session.timed("rounds"):
        rows = send_all(session, rounds, allocators, links)  # Eq. 7, and over the air

    new_losses = trainee.measured - session.ledger.total("loss_evaluations")
    session.ledger.book("loss_evaluations", new_losses, role="cloud", what="calibration")
    summary = {
        "method": "airllm",
        "mode": config.mode,
        "seed": config.seed,
        "model": config.model.name,
        "task": config.task.name,
        "wall_s": earlier_s + time.perf_counter() - begun,
        "stage_s": session.stage_s,
        "versions": folder.versions,
        "sites": [
            {"layer": site.layer, "module": site.module, "in": site.fan_in, "out": site.fan_out, "cap": cap}
            for site, cap in zip(trainee.adapter.sites, caps.ranks, strict=True)
        ],
        "link": {"fading": config.link.fading, "bandwidth_reason": reason},
        "reference": reference,
        "surrogate": quality,
        "notes": notes_on(rows),
        "rows": [row.as_dict() for row in rows],
    }
    folder.write_ledger(session.ledger)
    folder.write_summary(summary)
    return summary


def fine_tune(session: Session, trainee: Trainee, plan: FitPlan) -> None:
    """Train the nested adapter, and export it, unconstrained, as plain PEFT."""
    folder, adapter = session.folder, trainee.adapter
    with session.progress.stage("Fine-tuning the nested adapter", total=plan.steps) as stage:
        recent: list[float] = []

        def on_step(step: Step) -> None:
            recent.append(step.loss)
            if (step.index + 1) % 20 == 0 or step.index + 1 == plan.steps:
                folder.metric("train", step=step.index + 1, loss=sum(recent) / len(recent))
                stage.advance(len(recent), f"loss {sum(recent) / len(recent):.3f}")
                recent.clear()

        trainee.train(
            plan,
            rank_sampler(session.config),
            orthogonality=session.config.adapter.orthogonality,
            checkpoint=folder.path / "checkpoint.safetensors",
            on_step=on_step,
            on_resume=lambda done: stage.advance(done, f"resumed at step {done}"),
        )
    if not (folder.adapter / "adapter_config.json").exists():
        base = adapter.base
        export_peft(
            folder.adapter,
            trainee.factors,
            trainee.dense,
            kind=base.kind,
            base_model=base.name,
            fan_in_fan_out=base.fan_in_fan_out,
        )


def score_references(session: Session, trainee: Trainee, plan: FitPlan) -> dict[str, dict[str, float]]:
    """What the rows stand beside: the unconstrained adapter, and the base model without one (with a trained head)."""
    parts, adapter = trainee.parts, trainee.adapter
    with session.progress.stage("Scoring the references", total=3) as stage:
        on_dev = trainee.score(adapter.caps, parts.dev)
        stage.advance()
        found = {"unconstrained": _as_reference(on_dev, trainee.score(adapter.caps, parts.test))}
        stage.advance()
        adapter.set_ranks(RankVector((0,) * len(adapter.sites)))
        if adapter.base.head:
            rng = generator(session.config.seed, "batches")
            scores = head_only(adapter.base, parts.train, parts.dev, parts.test, plan, rng)
            found["head_only"] = _as_reference(*scores)
        else:
            found["base"] = _as_reference(*(score(adapter.base.model, part) for part in (parts.dev, parts.test)))
        stage.advance()
    return found


def _as_reference(dev: Score, test: Score) -> dict[str, float]:
    on_dev = {"dev_score": dev.metric, "dev_loss": dev.loss, "dev_items": len(dev.losses)}
    return {"score": test.metric, "loss": test.loss, "items": len(test.losses)} | on_dev


def learn_surrogate(
    session: Session, trainee: Trainee, packer: Packer, links: Sequence[Link]
) -> tuple[LossSurrogate, dict[str, float]]:
    """Measure allocations around the budgets that will be asked for, and learn to predict their losses."""
    config, caps = session.config, trainee.adapter.caps
    full = packer.air_bits(caps)
    budgets = [decision_budget(link, link.mean_state, config.link.deadline_s, config.link.late_share) for link in links]
    allowed = [min(1.0, budget / full) for budget in budgets]
    asked = probes(caps, (*SHARES, *allowed), config.policy.measurements, generator(config.seed, "probes"))
    trials: list[Trial] = []
    with session.progress.stage("Measuring losses of allocations", total=len(asked)) as stage:
        for ranks in asked:
            trials.append(trainee.try_ranks(ranks))
            stage.advance(note=f"loss {trials[-1].loss:.3f}")
    latent = CoarseLatent.of(trainee.adapter.sites)
    surrogate = LossSurrogate(caps, [latent.layer_of, latent.kind_of])
    error, explained = held_out_error(surrogate, trials)
    quality = {"measurements": len(trials), "held_out_rmse": error, "held_out_r2": explained}
    session.folder.metric("surrogate", **quality)
    return surrogate, quality


def learn_policy(session: Session, env: AllocationEnv, latent: CoarseLatent, greedy: Greedy) -> AirLLM:
    """Train PPO and the refiner by turns (Algorithm 1)."""
    config, folder = session.config, session.folder
    with session.progress.stage("Training the policy", total=config.policy.rounds) as stage:

        def on_round(env_steps: int, reward: float, loss: float) -> None:
            folder.metric("policy", env_steps=env_steps, reward_mean=reward, refiner_loss=loss)
            stage.advance(note=f"reward {reward:.3f}")

        return train_policy(env, latent, config.policy, greedy.propose, seed=config.seed, on_round=on_round)


def send_all(session: Session, rounds: Rounds, allocators: Sequence[Allocator], links: Sequence[Link]) -> list[Row]:
    """One round for every SNR and allocator; payloads are kept in the folder."""
    folder, rows = session.folder, []
    with session.progress.stage("Sending adapters and scoring", total=len(links) * len(allocators)) as stage:
        for link in links:
            for allocator in allocators:
                draws = generator(session.config.seed, "channel", f"{link.snr_db:g}")  # the same blocks for all
                row, payload = rounds.run(allocator, link, draws)
                write_bytes(folder.payload_at(allocator.name, link.snr_db), payload.data)
                if isinstance(allocator, AirLLM) and link is links[-1]:
                    write_bytes(folder.payload, payload.data)
                rows.append(row)
                folder.write_ledger(session.ledger)
                stage.advance(note=f"{allocator.name} at {link.snr_db:g} dB: {row.air_bits / 1e3:.1f} kbit")
    return rows
