"""Cells of bits against loss: LoRA of one seed, trained at every rank, in every way to send it.

| kind    | reads                               | computes                                                    |
|---------|-------------------------------------|-------------------------------------------------------------|
| `whole` | -                                   | fine-tuning of all weights, for running text (small models) |
| `bits`  | LoRA of all ranks, cores, `whole`   | the best on dev within each budget, read on test; its bits  |

Budgets are shares of what LoRA of the largest rank takes as float32. Knows settings and files; not studies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from airtune.adapters.receiver import about
from airtune.errors import DataError
from airtune.methods.airllm.baselines.kept import load_adapter
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.bits.candidate import Candidate, score_all
from airtune.methods.airllm.bits.cores import cores_of, in_format_2, on_grid
from airtune.methods.airllm.bits.front import Saving, best_within, bits_saved, spread, unbeaten
from airtune.methods.airllm.bits.grid import blockwise, calibrated, cuts, float32, grid
from airtune.methods.airllm.bits.ours import TRAINED_ON, Ours, trained_on
from airtune.methods.airllm.bits.ternary import ternary
from airtune.methods.airllm.bits.whole import train_whole, whole
from airtune.methods.airllm.building import fit_plan, parts_of, suited_rate
from airtune.methods.airllm.cells.opening import Settings, adapter_settings
from airtune.methods.airllm.cells.trained import ADAPTER, CORE_SIZES, ranks_to_train, trained_settings
from airtune.methods.airllm.config import AirLLMConfig, config_from
from airtune.models import Items, Score
from airtune.records import generator, write_bytes
from airtune.records.cells import Done, Outcome, Value
from airtune.workloads.opening import open_reader
from airtune.workloads.parts import Parts, Reader

CHANGE = "change.safetensors"
WHOLE_RATES = (0.03, 0.1, 0.3)
"""Learning rates that are tried for all weights, over the one that suits low-rank factors."""
CORE_RANK = 1
"""Rank at which cores are trained; above, LoRA has less loss for the bits (docs/log.md)."""
TIMES_FEWER = (4, 8, 16, 32, 64, 100, 200, 400)
"""Budgets: the bits of float32 LoRA at the largest rank, over these."""
BETWEEN = tuple(4 * 1.2**step for step in range(1, 25))
"""Payloads are fitted to these budgets too, so that fronts have enough points."""
A_FIFTH, AS_LONG_AGAIN = 0.2, 1.0
"""Steps of training on through the rounding, over those of the training before."""
AGAIN_FEWER = (100, 200, 400)
"""Budgets whose best is trained on for as long again."""
SCREENS, FEWEST = ((32, 2.0), (8, 1.0)), 32
"""Every 32nd item of dev is seen first, then every eighth, 32 at least: who is beaten by so many standard errors of the
paired difference by something no larger is not scored further."""
CURVE_APART = 1.2
"""Points of our fronts between which bits saved are read lie so far apart, so that test is not scored at every one."""
FRONT_ITEMS = 300
"""Of test, at most, for those points; what is said of a budget is read on all of it."""

OTHERS = ("grid", "calibrated", "cut", "blockwise", "ternary", "cores_grid", "whole", "others")
"""Ways to send that are not ours; the last is all of them."""


def whole_settings(settings: Settings) -> Settings:
    """What the change of all weights depends on; no rank."""
    found = trained_settings(settings)
    return {**found, "adapter": {name: value for name, value in found["adapter"].items() if name != "max_rank"}}


def compute_whole(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Value: `tried`, dev loss by learning rate (x)."""
    config = config_from(settings)
    reader = open_reader(config)
    rate, tried = suited_rate(reader.base.hidden_size), list[Value]()
    change = train_whole(
        reader.base,
        parts_of(config, reader),
        fit_plan(config, reader.base.hidden_size),
        [share * rate for share in WHOLE_RATES],
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
    ranks += [(f"cores{size}", CORE_RANK) for size in CORE_SIZES]
    adapter = settings["adapter"]
    found = {f"{kind} {rank}": {**settings, "adapter": {**adapter, "max_rank": rank}} for kind, rank in ranks}
    return {**found, **({"whole": settings} if settings["task"]["name"] == "text" else {})}


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
    found = dict(_families(config, reader, parts, needs))
    largest = float32(_trained(needs, "lora"))
    anchor = largest.score(reader.base, parts.test)
    values, items = [Value("float32_kbit", largest.bits / 1e3)], dict[str, np.ndarray]()
    for measure, value in (("loss", anchor.loss), ("score", anchor.metric)):
        values.append(Value(measure, value, 1, "grid"))
    items |= _items(anchor, anchor, 1, "grid")
    for name, family in found.items():
        for times in TIMES_FEWER:
            if (index := best_within(*_sizes_and_losses(family), largest.bits / times)) is not None:
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
    some = parts.test.evenly(FRONT_ITEMS)
    curves = {name: _curve(name, family, some) for name, family in found.items()}
    for name in found:
        values += _savings(name, curves)
    return Outcome(tuple(values), items=items)


class Scored:
    """A candidate, its loss on dev, and on test when asked for."""

    def __init__(self, candidate: Candidate, dev: float, reader: Reader, parts: Parts) -> None:
        self._candidate, self._base, self._parts = candidate, reader.base, parts
        self._front: float | None = None
        self.name, self.bits, self.dev = candidate.name, float(candidate.bits), dev

    @cached_property
    def test(self) -> Score:
        return self._candidate.score(self._base, self._parts.test)

    def front_loss(self, some: Items) -> float:
        """On some items of test, always the same ones."""
        if len(some) == len(self._parts.test):
            return self.test.loss
        if self._front is None:
            self._front = self._candidate.score(self._base, some).loss
        return self._front


Family = Sequence[Scored]


def _families(
    config: AirLLMConfig, reader: Reader, parts: Parts, needs: Mapping[str, Done]
) -> Iterator[tuple[str, Family]]:
    trained = _trained(needs, "lora")
    small = {(size, rank): one for size in CORE_SIZES for rank, one in _trained(needs, f"cores{size}").items()}
    binding, meta = about(reader.base)
    budgets = [int(float32(trained).bits / times) for times in sorted({*TIMES_FEWER, *BETWEEN})]

    def family(candidates: Iterable[Candidate]) -> Family:
        left = list(candidates)
        for seen, errors in screens if left else ():
            losses = np.array([found.losses for found in score_all(left, reader.base, seen)])
            left = [left[index] for index in unbeaten([one.bits for one in left], losses, errors=errors)]
        on_dev = score_all(left, reader.base, parts.dev)
        return [Scored(one, dev.loss, reader, parts) for one, dev in zip(left, on_dev, strict=True)]

    screens = [(dev_screen(parts.dev, fewer), errors) for fewer, errors in SCREENS]
    between = list(cores_of(small, reader.base, parts.calibration))
    format_2 = Ours(trained, reader.base, parts.calibration, binding, meta)
    others = {
        "grid": family(grid(trained)),
        "calibrated": family(calibrated(trained, format_2.curvature)),
        "cut": family(cuts(trained)),
        "blockwise": family(blockwise(trained, binding, meta)),
        "ternary": family(ternary(trained)),
        "cores_grid": family(on_grid(between)),
    }
    if "whole" in needs:
        others["whole"] = family(whole(load((needs["whole"].work / CHANGE).read_bytes())))
    yield from others.items()
    yield "others", [one for each in others.values() for one in each]
    sent = {
        "ours": list(format_2.sent(budgets)),
        "cores": list(in_format_2(between, reader.base, parts.calibration, budgets)),
    }
    found = {name: family(one.candidate for one in each) for name, each in sent.items()}
    payloads = {one.candidate.name: one for each in sent.values() for one in each}
    plan = fit_plan(config, reader.base.hidden_size)

    def on(family: Family, fewer: Sequence[float], share: float) -> Iterator[Candidate]:
        within = [best_within(*_sizes_and_losses(family), float32(trained).bits / times) for times in fewer]
        for name in dict.fromkeys(family[index].name.partition(TRAINED_ON)[0] for index in within if index is not None):
            rng = generator(config.seed, f"tuning {name}")
            yield trained_on(reader.base, payloads[name], parts.train, plan, rng, share=share)

    either = [*found["ours"], *found["cores"]]
    tuned = {
        "tuned": family(on(found["ours"], TIMES_FEWER, A_FIFTH)),
        "tuned_cores": family(on(found["cores"], TIMES_FEWER, A_FIFTH)),
    }
    longer = [*either, *tuned["tuned"], *tuned["tuned_cores"]]
    again = [*longer, *family(on(longer, AGAIN_FEWER, AS_LONG_AGAIN))]
    yield from {**found, "either": either, **tuned, "longer": longer, "again": again}.items()


def dev_screen(dev: Items, fewer: int) -> Items:
    """So many times fewer items, spread over all of them."""
    return dev.evenly(max(FEWEST, len(dev) // fewer))


def _sizes_and_losses(family: Family) -> tuple[list[float], list[float]]:
    """Bits and dev losses."""
    return [one.bits for one in family], [one.dev for one in family]


def _trained(needs: Mapping[str, Done], kind: str) -> dict[int, TrainedAdapter]:
    """Adapters of a kind by rank."""
    names = [name for name in needs if name.split()[0] == kind]
    return {int(name.split()[1]): load_adapter(needs[name].work / ADAPTER) for name in names}


Curve = tuple[list[float], list[float]]


def _curve(name: str, family: Family, test: Items) -> Curve:
    """Bits and test losses of a front, of one of ours without what lies close together."""
    apart = 1.0 if name in OTHERS else CURVE_APART
    kept = [family[index] for index in spread(*_sizes_and_losses(family), apart=apart)]
    return [one.bits for one in kept], [one.front_loss(test) for one in kept]


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
