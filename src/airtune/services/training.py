"""Train the adapter that `pack` sends: plain LoRA of one rank everywhere, or cores between bases of the base model.

Knows models, tasks and PEFT folders; not budgets or codes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from airtune.adapters.export import export_peft
from airtune.errors import ConfigError, RunError
from airtune.methods.airllm.baselines.cores import train_cores
from airtune.methods.airllm.baselines.direct import lora_alphas, train_lora
from airtune.methods.airllm.baselines.kept import kept
from airtune.methods.airllm.baselines.sweep import FIRST_RATE, Tried, sweep
from airtune.methods.airllm.baselines.training import TrainedAdapter, score_adapter
from airtune.methods.airllm.building import fit_plan, parts_of, suited_rate
from airtune.methods.airllm.cells.trained import trained_settings
from airtune.methods.airllm.config import AirLLMConfig, load_config
from airtune.models import FitPlan, Score, Step
from airtune.records import Progress, Silent
from airtune.records.plain import canonical_json
from airtune.workloads.opening import open_reader


@dataclass(frozen=True, slots=True)
class TrainedFolder:
    """A trained adapter as PEFT writes it.

    Args:
        tried: Rates and alphas in their order, with their losses on dev in nat; `chosen` has the least.
        test: Loss and metric of the adapter as it is, unrounded.
    """

    folder: Path
    chosen: Tried
    tried: tuple[Tried, ...]
    test: Score


def train(
    out: str | Path,
    *,
    model: str = "minilm",
    task: str = "pydocs",
    data: str = "",
    rank: int = 1,
    core_size: int = 0,
    steps: int = 0,
    seed: int = 0,
    overrides: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> TrainedFolder:
    """Fine-tune an adapter of one rank at every site into a new PEFT folder; learning rate and scale are chosen on dev.

    What was trained before an interruption lies beside `out` until all is done, and is not trained again.

    Args:
        out: New folder.
        model, task, data: As `run` takes them.
        rank: Of every site, or of its core.
        core_size: Train a core of that rank between so many singular vectors of each weight instead (LoRA-XS): for
            `pack` with the same `core_size`, where bits are few.
        steps: Of each of the trainings; 0 takes preset `default`'s.
        seed: Draws the start and the batches.
        overrides: Settings over preset `default`, as `run` takes them: ``{"adapter.batch_size": 8}``.

    Raises:
        ConfigError: a rank below 1, or a setting out of bounds or without use here.
        RunError: the folder exists. DataError, ModelError: as `run`.
    """
    if rank < 1 or core_size < 0:
        between = f" between {core_size} singular vectors" if core_size else ""
        raise ConfigError(f"rank {rank}{between} is asked for; give 1 at least, and 0 or more vectors")
    out = Path(out)
    if out.exists():
        raise RunError(f"{out} exists; expected a new folder; choose another or remove it")
    named = {"model.name": model, "task.name": task, "seed": seed, "task.data": data, "adapter.steps": steps}
    config = _config(dict(overrides or {}), {key: value for key, value in named.items() if value not in ("", 0)})
    reader = open_reader(config)
    base, parts = reader.base, parts_of(config, reader)
    plan, rate = fit_plan(config, base.hidden_size), FIRST_RATE * suited_rate(base.hidden_size)
    asked = {**trained_settings(config.as_dict()), "rank": rank, "core_size": core_size}
    beside = out.parent / f".{out.name}.{sha256(canonical_json(asked).encode()).hexdigest()[:12]}"
    progress = progress or Silent()

    def train_one(plan: FitPlan, alpha: float) -> TrainedAdapter:
        name = f"rate {plan.learning_rate:.6g}, alpha {alpha:.6g}"
        with progress.stage(f"Training, {name}", total=plan.steps) as stage:

            def on_step(step: Step) -> None:
                stage.advance(note=f"loss {step.loss:.3f}")

            file = beside / f"{name}.safetensors"
            if core_size:
                return kept(file, lambda: train_cores(base, parts, plan, core_size, rank, alpha=alpha, on_step=on_step))
            return kept(file, lambda: train_lora(base, parts, plan, rank, alpha=alpha, on_step=on_step))

    found = sweep(base, parts.dev, plan, train_one, rate=rate, alphas=lora_alphas(rank))
    best = found.best
    test = score_adapter(base, best.factors, best.dense, parts.test, keep_logits=0)
    export_peft(out, best.factors, best.dense, kind=base.kind, base_model=base.name, fan_in_fan_out=base.fan_in_fan_out)
    shutil.rmtree(beside)
    return TrainedFolder(out, found.chosen, found.tried, test)


def _config(overrides: Mapping[str, object], named: Mapping[str, object]) -> AirLLMConfig:
    """Preset `default` with these. Raises `ConfigError` for a setting given twice, or that no training reads."""
    if twice := sorted(set(overrides) & set(named)):
        raise ConfigError(f"{twice[0]} is given as a setting and by an option of its own; leave one of them out")
    config = load_config("default", {**overrides, **named})
    for key in overrides:
        without = load_config("default", {**{name: overrides[name] for name in overrides if name != key}, **named})
        if without != config and trained_settings(without.as_dict()) == trained_settings(config.as_dict()):
            raise ConfigError(f"setting {key} changes nothing in a training of one rank; leave it out")
    return config
