"""Tune a baseline on dev: learning rate and alpha, until nothing beside the best is better; then on other seeds.

Knows losses on dev; not what is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from airtune.errors import ConfigError, ModelError
from airtune.methods.airllm.baselines.training import TrainedAdapter, score_adapter
from airtune.models import BaseModel, FitPlan, Items

FIRST_RATE = 3.0
"""Learning rate tried first, over the one that suits the width; the nested adapter's own is not read."""
FARTHEST = 4
"""Rates are this many doubles or halves of the first at most."""
CONFIRMED, OTHER_SEEDS = 2, 2
"""The best settings of a sweep that are trained on other seeds, and on how many: the fastest rate that one seed bears
may break another."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One setting of a sweep: its loss on dev in nat, or infinity and the reason why there is none."""

    learning_rate: float
    alpha: float
    dev_loss: float
    failure: str = ""


@dataclass(frozen=True, eq=False)
class Sweep:
    """The best of the settings tried, by loss on dev, and all of them in their order."""

    best: TrainedAdapter
    chosen: Tried
    tried: tuple[Tried, ...]


def sweep(
    base: BaseModel,
    dev: Items,
    plan: FitPlan,
    train: Callable[[FitPlan, float], TrainedAdapter],
    *,
    rate: float,
    alphas: Sequence[float],
) -> Sweep:
    """Train at a learning rate and the first alpha, then at settings beside the best so far until none is left.

    Beside a setting are twice and half its rate, and the other alphas at its rate. So the rate that is chosen lies
    between two that are worse, unless `FARTHEST` ends the search.

    Args:
        train: A baseline: ``lambda plan, alpha: train_lora(base, parts, plan, 4, alpha=alpha)``.

    Returns:
        The adapter with the least loss on dev, unquantised.

    Raises:
        ConfigError: no alpha to try.
        ModelError: no setting stayed finite.
    """
    if not alphas:
        raise ConfigError("0 alphas to try; give one at least")
    tried: dict[tuple[int, float], Tried] = {}
    found: tuple[Tried, TrainedAdapter] | None = None
    setting: tuple[int, float] | None = 0, alphas[0]
    while setting is not None:
        doubles, alpha = setting
        tried[setting], trained = _try(base, dev, replace(plan, learning_rate=rate * 2.0**doubles), train, alpha)
        if trained and (found is None or tried[setting].dev_loss < found[0].dev_loss):
            found = tried[setting], trained
        best = min(tried, key=lambda one: (tried[one].dev_loss, one[0]))  # of those that broke, the lowest rate
        setting = next((one for one in _beside(best, alphas) if one not in tried), None)
    if found is None:
        raise ModelError(
            f"none of {len(tried)} settings gave a finite loss ({next(iter(tried.values())).failure or 'nan on dev'}); "
            "expected one at least; try lower learning rates"
        )
    return Sweep(found[1], found[0], tuple(tried.values()))


def steadiest(
    base: BaseModel, dev: Items, plan: FitPlan, train: Callable[[FitPlan, float], TrainedAdapter], found: Sweep
) -> tuple[Tried, Mapping[int, tuple[Tried, ...]]]:
    """Train the best settings of a sweep on the seeds after its own; the least mean loss on dev over all of them wins.

    Returns:
        The winner, as the sweep has it; and by seed what those settings came to, the winner first. Where each of them
        broke on some seed, the lower rate wins.
    """
    finite = (one for one in found.tried if math.isfinite(one.dev_loss))
    columns = [[one] for one in sorted(finite, key=lambda one: one.dev_loss)[:CONFIRMED]]
    for seed in range(plan.seed + 1, plan.seed + 1 + OTHER_SEEDS):
        for column in columns:
            other = replace(plan, learning_rate=column[0].learning_rate, seed=seed)
            column.append(_try(base, dev, other, train, column[0].alpha)[0])
    columns.sort(key=lambda column: (sum(one.dev_loss for one in column), column[0].learning_rate))
    return columns[0][0], {plan.seed + index: row for index, row in enumerate(zip(*columns, strict=True))}


def _try(
    base: BaseModel, dev: Items, plan: FitPlan, train: Callable[[FitPlan, float], TrainedAdapter], alpha: float
) -> tuple[Tried, TrainedAdapter | None]:
    try:
        trained = train(plan, alpha)
        loss = score_adapter(base, trained.factors, trained.dense, dev, keep_logits=0).loss
    except ModelError as error:
        return Tried(plan.learning_rate, alpha, math.inf, str(error)), None
    if not math.isfinite(loss):
        return Tried(plan.learning_rate, alpha, math.inf), None
    return Tried(plan.learning_rate, alpha, loss), trained


def _beside(setting: tuple[int, float], alphas: Sequence[float]) -> Iterator[tuple[int, float]]:
    """Doubles of the first rate and alpha of those next to a setting."""
    doubles, alpha = setting
    yield from ((near, alpha) for near in (doubles + 1, doubles - 1) if abs(near) <= FARTHEST)
    yield from ((doubles, other) for other in alphas if other != alpha)
