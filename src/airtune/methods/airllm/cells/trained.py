"""Cells that train a baseline at one rank: first a sweep that chooses on dev, then one training for each seed.

| kind                          | reads             | computes                                               |
|-------------------------------|-------------------|--------------------------------------------------------|
| `lora-sweep`, `adalora-sweep` | -                 | learning rate and alpha of least loss on dev           |
| `lora`, `adalora`             | the nearest sweep | the adapter, trained as long as the nested one         |
| `cores16`, ... 32, 64         | as those          | cores between that many singular vectors of a weight   |

The rank is `adapter.max_rank`, so a rank is trained once for every r_max above it; how many directions AdaLoRA is to
leave may stand beside it. Swept are powers of two. Knows no link, codec or policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from airtune.adapters import RankVector
from airtune.methods.airllm.baselines.adalora import INIT_OVER_FINAL, initial_rank, train_adalora
from airtune.methods.airllm.baselines.cores import train_cores
from airtune.methods.airllm.baselines.direct import lora_alphas, train_lora
from airtune.methods.airllm.baselines.kept import kept, load_adapter, save_adapter
from airtune.methods.airllm.baselines.sweep import FIRST_RATE, Tried, steadiest, sweep
from airtune.methods.airllm.baselines.training import TrainedAdapter, score_adapter
from airtune.methods.airllm.building import fit_plan, parts_of, suited_rate
from airtune.methods.airllm.cells.opening import Settings, adapter_settings
from airtune.methods.airllm.config import config_from
from airtune.models import BaseModel, FitPlan
from airtune.records.cells import Done, Outcome, Value
from airtune.workloads.opening import open_reader
from airtune.workloads.parts import Parts

ADAPTER = "adapter.safetensors"
TOTAL = "total_rank"
"""Where settings hold how many directions AdaLoRA is to leave, if not `adapter.max_rank` at every site."""
SWEEP_SEED = 0
"""Searched on; those after it have a say on the best found. All trainings are as long as those that are reported:
shorter ones prefer rates that are too high (docs/log.md)."""
CORE_SIZES = (16, 32, 64)
"""Singular vectors of a site's weight between which cores are trained (`adapters/derived`)."""

Train = Callable[[BaseModel, Parts, FitPlan, int, float], TrainedAdapter]


def ranks_to_train(max_rank: int) -> list[int]:
    """Powers of two below r_max, and r_max."""
    return [*(2**power for power in range((max_rank - 1).bit_length())), max_rank]


def nearest_swept(rank: float) -> int:
    """The rank whose sweep serves another: the nearest power of two, by ratio, 1 at least."""
    return int(2 ** max(0, round(math.log2(rank))))


@dataclass(frozen=True, slots=True)
class Baseline:
    """How an adapter of a size is trained, from base model, data, plan, size and alpha.

    Args:
        alphas: Those to try at a rank, the likeliest first.
        size: From a rank everywhere, as whoever trains counts it.
        scale_rank: What alpha is divided by at a size, so that a scale found at one serves others.
    """

    train: Train
    alphas: Callable[[int], Sequence[float]]
    size: Callable[[BaseModel, int], int]
    scale_rank: Callable[[BaseModel, int], int]


def _lora(base: BaseModel, parts: Parts, plan: FitPlan, rank: int, alpha: float) -> TrainedAdapter:
    return train_lora(base, parts, plan, rank, alpha=alpha)


def _cores(size: int, base: BaseModel, parts: Parts, plan: FitPlan, rank: int, alpha: float) -> TrainedAdapter:
    return train_cores(base, parts, plan, size, rank, alpha=alpha)


def _adalora(base: BaseModel, parts: Parts, plan: FitPlan, total: int, alpha: float) -> TrainedAdapter:
    return train_adalora(base, parts, plan, total, alpha=alpha)


def _adalora_alphas(rank: int) -> list[float]:
    """Scales alpha / init_r of about 8 and 16."""
    return [8 * INIT_OVER_FINAL * rank, 16 * INIT_OVER_FINAL * rank]


BASELINES: Mapping[str, Baseline] = {
    "lora": Baseline(_lora, lora_alphas, lambda base, rank: rank, lambda base, rank: rank),
    "adalora": Baseline(
        _adalora,
        _adalora_alphas,
        lambda base, rank: RankVector.uniform(base.sites, rank).total,
        lambda base, total: initial_rank(len(base.sites), total),
    ),
    **{
        f"cores{size}": Baseline(partial(_cores, size), lora_alphas, lambda base, rank: rank, lambda base, rank: rank)
        for size in CORE_SIZES
    },
}


def trained_settings(settings: Settings) -> Settings:
    """What an adapter trained at one rank depends on; nothing of links, codec, policy or nested training."""
    found = adapter_settings(settings)
    adapter, task = settings["adapter"], found["task"]
    return {
        **{name: found[name] for name in ("seed", "model", "software")},
        "adapter": {name: adapter[name] for name in ("max_rank", "steps", "batch_size", "clip_norm")},
        **({TOTAL: settings[TOTAL]} if TOTAL in settings else {}),
        "task": {name: value for name, value in task.items() if name != "test_items"},
    }


def sweep_of(settings: Settings, name: str) -> Mapping[str, Settings]:
    """The one sweep that every seed, and every rank near it, reads."""
    adapter = settings["adapter"]
    near = {**adapter, "max_rank": nearest_swept(adapter["max_rank"])}
    return {f"{name}-sweep": {**_without_total(settings), "adapter": near, "seed": SWEEP_SEED}}


def compute_sweep(settings: Settings, work: Path, needs: Mapping[str, Done], *, name: str) -> Outcome:
    """Values: `learning_rate` and `alpha`, chosen on dev; `tried`, dev loss by rate (at) and alpha (x), of the seed
    that was searched on; `confirmed`, the same of other seeds.

    Trainings that ended before an interruption are not repeated.
    """
    base, parts, plan, rank = _opened(settings)
    baseline = BASELINES[name]

    def train(plan: FitPlan, alpha: float) -> TrainedAdapter:
        file = work / f"rate {plan.learning_rate:.6g}, alpha {alpha:.6g}, seed {plan.seed}.safetensors"
        return kept(file, lambda: baseline.train(base, parts, plan, baseline.size(base, rank), alpha))

    first = FIRST_RATE * plan.learning_rate
    found = sweep(base, parts.dev, plan, train, rate=first, alphas=baseline.alphas(rank))
    chosen, by_seed = steadiest(base, parts.dev, plan, train, found)
    values = [Value("learning_rate", chosen.learning_rate), Value("alpha", chosen.alpha)]
    values += [_value("tried", tried) for tried in found.tried if math.isfinite(tried.dev_loss)]
    files = []
    for seed, row in by_seed.items():
        if seed != plan.seed:
            at = f", seed {seed}"
            values += [_value("confirmed", tried, at) for tried in row if math.isfinite(tried.dev_loss)]
        if math.isfinite(row[0].dev_loss):
            of_seed = replace(plan, learning_rate=chosen.learning_rate, seed=seed)
            save_adapter(work / swept_file(seed), train(of_seed, chosen.alpha))
            files.append(swept_file(seed))
    return Outcome(tuple(values), files=tuple(files))


def swept_file(seed: int) -> str:
    """The adapter that a sweep trained with what it chose, of one of its seeds."""
    return f"adapter-{seed}.safetensors"


def _value(measure: str, tried: Tried, seed: str = "") -> Value:
    return Value(measure, tried.dev_loss, tried.alpha, at=f"rate {tried.learning_rate:.6g}{seed}")


def compute_trained(settings: Settings, work: Path, needs: Mapping[str, Done], *, name: str) -> Outcome:
    """Values: `dev_loss` by size (x), unquantised, and the mean loss of every 20 training steps (x)."""
    base, parts, plan, rank = _opened(_without_total(settings))
    baseline, sweep = BASELINES[name], needs[f"{name}-sweep"]
    chosen = {value.measure: value.value for value in sweep.values}
    plan = replace(plan, learning_rate=chosen["learning_rate"])
    swept = baseline.size(base, nearest_swept(rank))
    size = settings.get(TOTAL, baseline.size(base, rank))
    if size == swept and (file := sweep.work / swept_file(plan.seed)).exists():
        save_adapter(work / ADAPTER, load_adapter(file))  # the very same training
    alpha = chosen["alpha"] * baseline.scale_rank(base, size) / baseline.scale_rank(base, swept)
    trained = kept(work / ADAPTER, lambda: baseline.train(base, parts, plan, size, alpha))
    dev = score_adapter(base, trained.factors, trained.dense, parts.dev, keep_logits=0)
    values = [Value("dev_loss", dev.loss, size)]
    for start in range(0, len(trained.losses), 20):
        recent = trained.losses[start : start + 20]
        values.append(Value("train_loss", sum(recent) / len(recent), start + len(recent)))
    return Outcome(tuple(values), files=(ADAPTER,))


def _without_total(settings: Settings) -> Settings:
    return {name: value for name, value in settings.items() if name != TOTAL}


def _opened(settings: Mapping[str, Any]) -> tuple[BaseModel, Parts, FitPlan, int]:
    config = config_from(settings)
    reader = open_reader(config)
    hidden = reader.base.hidden_size
    plan = replace(fit_plan(config, hidden), learning_rate=suited_rate(hidden))
    return reader.base, parts_of(config, reader), plan, config.adapter.max_rank
