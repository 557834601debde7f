"""A run of `paper` mode, start to end: one method trains by its own choice of ranks, then sends at every SNR.

START HERE. Data and links -> Algorithm 1 (or a rival) with one fine-tuning step per environment step, evaluated on dev
and stopped as in section V-A -> for every SNR: decide, encode, send, score. Ranks are not cut to the deadline: it acts
through eta alone, and rows say whether it was met.
"""

from __future__ import annotations

from typing import Any

from airtune.methods.airllm.building import fit_plan, new_packer, new_trainee, open_links, parts_of, planned_sizes
from airtune.methods.airllm.config import AirLLMConfig
from airtune.methods.airllm.fine_tuning import export, score_references
from airtune.methods.airllm.finishing import new_rounds, send_all, summarise
from airtune.methods.airllm.paper.learn import learn
from airtune.methods.airllm.paper.training import Course
from airtune.methods.airllm.roles import check_edge
from airtune.methods.airllm.rounds import notes_on_late
from airtune.methods.airllm.session import Session
from airtune.models import BaseModel
from airtune.records import Measurements
from airtune.transport import Transport
from airtune.workloads.opening import open_reader

PAPERS_STEPS = 15_000
"""Table II."""
PAPERS_MODEL = ("opt", 2048, 24)
"""Type, width and layers of OPT-1.3B."""


def run_paper(session: Session, edge: Transport) -> dict[str, Any]:
    """Run `paper` mode; return its summary, which is also in the folder."""
    config, folder, progress = session.config, session.folder, session.progress
    measurements = Measurements(folder.path / "measurements.jsonl")
    with session.timed("load"), progress.stage("Loading model and task"):
        reader = open_reader(config)
        parts = parts_of(config, reader)
        trainee = new_trainee(config, reader, parts, measurements)
        check_edge(edge, reader.base, parts.test)
    if illustration := illustration_of(config, reader.base):
        progress.say(f"This is an {illustration}.")
    plan = fit_plan(config, reader.base.hidden_size)
    adapter = trainee.adapter
    packer = planned_sizes(config, adapter)
    links, reason = open_links(config.link, packer, adapter.caps)
    progress.say(f"Bandwidth {links[0].bandwidth_hz / 1e3:.1f} kHz: {reason}.")

    with session.timed("train"):
        learned = learn(session, trainee, plan, links, measurements)
    trainee, allocator, course = learned.trainee, learned.allocator, learned.course
    export(session, trainee)
    with session.timed("reference"):
        reference = score_references(session, trainee, plan)

    packer = new_packer(config, trainee)
    rounds = new_rounds(session, trainee, packer, edge, reader.task.metric, soft=True)
    with session.timed("rounds"):
        rows = send_all(session, rounds, [allocator], links)
    notes = [*notes_of(config, allocator.name, course, illustration), *notes_on_late(rows)]
    told = {"method": allocator.name, "steps_asked": config.adapter.steps, **course.as_dict()}
    return summarise(session, trainee, rows, reason, reference, notes, paper=told, illustration=illustration)


def illustration_of(config: AirLLMConfig, base: BaseModel) -> str:
    """What a run is that is shorter than the paper's, or on something smaller; nothing for one that is neither."""
    anatomy = base.model.config
    found = (anatomy.model_type, anatomy.hidden_size, anatomy.num_hidden_layers)
    elsewhere = found != PAPERS_MODEL or config.task.name != "sst2"
    if config.adapter.steps >= PAPERS_STEPS and not elsewhere:
        return ""
    where = f"{config.adapter.steps:,} of the paper's {PAPERS_STEPS:,} steps"
    return f"illustration of Algorithm 1: {where}" + (", on another model or task" if elsewhere else "")


def notes_of(config: AirLLMConfig, method: str, course: Course, illustration: str) -> list[str]:
    """What a reader of the table must be told."""
    notes = [config.note] * bool(config.note)
    if illustration:
        notes.append(f"This is an {illustration}. Its numbers do not reproduce the paper's.")
    if course.steps < config.adapter.steps:
        notes.append(f"{method} stopped early, at step {course.steps:,} of {config.adapter.steps:,}.")
    else:
        notes.append(f"{method} trained all {course.steps:,} steps: the early stop did not come first.")
    return [*notes, "One run trains one method, from one seed; `airtune report RUN RUN` lays runs side by side."]
