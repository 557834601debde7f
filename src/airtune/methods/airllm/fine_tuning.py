"""The first stages of a run: train the nested adapter (Eqs. 1-3), and score what its payloads stand beside."""

from __future__ import annotations

from airtune.adapters import RankVector, export_peft
from airtune.methods.airllm.building import rank_sampler
from airtune.methods.airllm.session import Session
from airtune.methods.airllm.trainee import Trainee
from airtune.models import FitPlan, Score, Step, head_only, score
from airtune.records import generator
from airtune.workloads.settings import require


def fine_tune(session: Session, trainee: Trainee, plan: FitPlan) -> None:
    """Train the nested adapter, and export it, unconstrained, as plain PEFT.

    Raises:
        ConfigError: the settings ask for another mode, as those of a study may.
    """
    folder, mode = session.folder, session.config.mode
    require(mode == "nested", "mode", mode, "this trains a nested adapter, as every study does; choose 'nested'")
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
    export(session, trainee)


def export(session: Session, trainee: Trainee) -> None:
    """Keep the trained adapter, all directions, unquantised, as plain PEFT in the run folder."""
    folder, base = session.folder, trainee.adapter.base
    if not (folder.adapter / "adapter_config.json").exists():
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
