"""Cells of bits against loss: LoRA of one seed, trained at every rank, in every way to send it.

| kind    | reads                               | computes                                                    |
|---------|-------------------------------------|-------------------------------------------------------------|
| `whole` | that of the first seed              | fine-tuning of all weights, for running text (small models) |
| `bits`  | LoRA of all ranks, cores, `whole`   | the best on dev within each budget, read on test; its bits  |

Budgets are shares of what LoRA of the largest rank takes as float32. Knows settings and files; not studies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from airtune.errors import DataError
from airtune.methods.airllm.baselines.kept import load_adapter
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.bits.families import OTHERS, TIMES_FEWER, Families, Family, sizes_and_losses
from airtune.methods.airllm.bits.front import Saving, best_within, bits_saved, spread
from airtune.methods.airllm.bits.whole import train_whole
from airtune.methods.airllm.building import fit_plan, parts_of, suited_rate
from airtune.methods.airllm.cells.opening import Settings, adapter_settings
from airtune.methods.airllm.cells.trained import ADAPTER, CORE_SIZES, SWEEP_SEED, ranks_to_train, trained_settings
from airtune.methods.airllm.config import config_from
from airtune.models import Score
from airtune.records import write_bytes
from airtune.records.cells import Done, Outcome, Value
from airtune.workloads.opening import open_reader

CHANGE = "change.safetensors"
WHOLE_RATES = (0.1, 0.3, 1.0)
"""Learning rates that are tried for all weights, over the one that suits low-rank factors."""
CORE_RANK = 1
"""Rank at which cores are trained; above, LoRA has less loss for the bits (docs/log.md)."""
CURVE_APART = 1.15
"""Points of our fronts between which bits saved are read lie so far apart, so that test is not scored at every one."""
FEW = ("again",)
"""Ways of too few payloads for a front."""
FRONT_ITEMS = 300
"""Of test, at most, for those points; what is said of a budget is read on all of it."""


def whole_settings(settings: Settings) -> Settings:
    """What the change of all weights depends on; no rank."""
    found = trained_settings(settings)
    return {**found, "adapter": {name: value for name, value in found["adapter"].items() if name != "max_rank"}}


def first_whole(settings: Settings) -> Mapping[str, Settings]:
    """The one of the seed whose trainings choose the learning rate; nothing for that seed itself."""
    return {} if settings["seed"] == SWEEP_SEED else {"whole": {**settings, "seed": SWEEP_SEED}}


def compute_whole(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Value: `tried`, dev loss by learning rate (x)."""
    config = config_from(settings)
    reader = open_reader(config)
    rates, tried = [share * suited_rate(reader.base.hidden_size) for share in WHOLE_RATES], list[Value]()
    if first := needs.get("whole"):
        least = min(first.values, key=lambda one: one.value)
        rates = [rate for rate in rates if rate == least.x]
    change = train_whole(
        reader.base,
        parts_of(config, reader),
        fit_plan(config, reader.base.hidden_size),
        rates,
        lambda rate, loss: tried.append(Value("tried", loss, rate)),
    )
    write_bytes(work / CHANGE, save({name: np.ascontiguousarray(value) for name, value in change.items()}))
    return Outcome(tuple(tried), files=(CHANGE,))


def bits_settings(settings: Settings) -> Settings:
    """What sizes and losses depend on, beside the trainings' cells: their data and steps, and the whole test part."""
    return {**trained_settings(settings), "task": adapter_settings(settings)["task"]}


def trainings(settings: Settings) -> Mapping[str, Settings]:
    """LoRA at every rank, cores, and for running text the change of all weights."""
    ranks = [("lora", rank) for rank in _ranks(settings)]
    ranks += [(f"cores{size}", CORE_RANK) for size in _core_sizes(settings)]
    adapter = settings["adapter"]
    found = {f"{kind} {rank}": {**settings, "adapter": {**adapter, "max_rank": rank}} for kind, rank in ranks}
    return {**found, **({"whole": settings} if _small(settings) else {})}


def compute_bits(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values by family (of):

    `loss` and `score` on test, `kbit` and `dev_loss` of the best on dev within a budget, by how many times fewer bits
    it has (x); `lost`, points of score below float32's, where the score is a share; `saved` and `saved_others`, percent
    of the bits saved at equal test loss over the grid, and over the best of all ways but ours; both as a mean over
    losses that the grid reaches, those between `saved_from` and `saved_to`; with `_inner` up to `saved_inner_to`
    alone, the loss of the grid's smallest point but one: beyond it the grid's front is one interpolated segment.
    """
    config = config_from(settings)
    reader = open_reader(config)
    parts = parts_of(config, reader)
    families = Families(
        reader.base,
        parts,
        _trained(needs, "lora"),
        {(size, rank): one for size in _core_sizes(settings) for rank, one in _trained(needs, f"cores{size}").items()},
        load((needs["whole"].work / CHANGE).read_bytes()) if "whole" in needs else None,
        fit_plan(config, reader.base.hidden_size),
    )
    found, largest = dict(families.all()), families.largest
    anchor = largest.score(reader.base, parts.test)
    values, items = [Value("float32_kbit", largest.bits / 1e3)], dict[str, np.ndarray]()
    for measure, value in (("loss", anchor.loss), ("score", anchor.metric)):
        values.append(Value(measure, value, 1, "grid"))
    items |= _items(anchor, anchor, 1, "grid")
    for name, family in found.items():
        for times in TIMES_FEWER:
            if (index := best_within(*sizes_and_losses(family), largest.bits / times)) is not None:
                best = family[index]
                values += [
                    Value("loss", best.test.loss, times, name),
                    Value("score", best.test.metric, times, name),
                    Value("kbit", best.bits / 1e3, times, name),
                    Value("dev_loss", best.dev, times, name),
                ]
                items |= _items(best.test, anchor, times, name)
                if best.test.hits is not None:
                    values.append(Value("lost", 100 * (anchor.metric - best.test.metric), times, name))
    curves = {name: _curve(name, family) for name, family in found.items() if name not in FEW}
    for name in curves:
        values += _savings(name, curves)
    return Outcome(tuple(values), items=items)


def _trained(needs: Mapping[str, Done], kind: str) -> dict[int, TrainedAdapter]:
    """Adapters of a kind by rank."""
    names = [name for name in needs if name.split()[0] == kind]
    return {int(name.split()[1]): load_adapter(needs[name].work / ADAPTER) for name in names}


Curve = tuple[list[float], list[float]]


def _curve(name: str, family: Family) -> Curve:
    """Bits and test losses of a front, of one of ours without what lies close together."""
    apart = 1.0 if name in OTHERS else CURVE_APART
    kept = [family[index] for index in spread(*sizes_and_losses(family), apart=apart)]
    return [one.bits for one in kept], [one.front_loss(FRONT_ITEMS) for one in kept]


def _savings(name: str, curves: Mapping[str, Curve]) -> Iterator[Value]:
    """Over the grid and over all others; nothing of the grid itself, nor where two fronts share no loss."""
    grid = curves["grid"]
    if name == "grid" or not (over_grid := _saved(curves[name], grid)):
        return
    yield Value("saved", 100 * over_grid.share, of=name)
    yield Value("saved_from", over_grid.low, of=name)
    yield Value("saved_to", over_grid.high, of=name)
    inner = sorted(grid[1])[-2]
    yield Value("saved_inner_to", inner, of=name)
    for measure, over, high in (
        ("saved_inner", "grid", inner),
        ("saved_others", "others", over_grid.high),
        ("saved_others_inner", "others", inner),
    ):
        if over == "grid" or name not in OTHERS:
            saving = _saved(curves[name], curves[over], (over_grid.low, min(high, over_grid.high)))
            yield from [Value(measure, 100 * saving.share, of=name)] if saving else []


def _saved(curve: Curve, other: Curve, between: tuple[float, float] = (-np.inf, np.inf)) -> Saving | None:
    """None where a front has one point, or the two share no loss between these."""
    try:
        return bits_saved(*curve, *other, between=between)
    except DataError:
        return None


def _items(scored: Score, anchor: Score, times: float, name: str) -> dict[str, np.ndarray]:
    items = {Value("loss", 0.0, times, name).item_name: scored.losses}
    if scored.hits is not None and anchor.hits is not None:
        hits, best = scored.hits.astype(float), anchor.hits.astype(float)
        items[Value("score", 0.0, times, name).item_name] = hits
        items[Value("lost", 0.0, times, name).item_name] = 100 * (best - hits)
    return items


def _ranks(settings: Settings) -> list[int]:
    return ranks_to_train(int(settings["adapter"]["max_rank"]))


def _core_sizes(settings: Settings) -> tuple[int, ...]:
    """In a wider model smaller cores are done before the smallest budget is filled, at the most bits a number."""
    return CORE_SIZES if _small(settings) else CORE_SIZES[-1:]


def _small(settings: Settings) -> bool:
    """Studies of running text are on small models (`studies/airllm/harness.toml`)."""
    return bool(settings["task"]["name"] == "text")
