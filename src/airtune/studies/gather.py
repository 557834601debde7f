"""A study's numbers out of its cells: every value in long form, and by measure, variant and seed for tables."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from airtune.records.cells import Value
from airtune.studies.declaration import Reach
from airtune.studies.engine import Computed
from airtune.studies.intervals import Interval, interval
from airtune.studies.plan import Plan, Point

COLUMNS = ("study", "workload", "variant", "seed", "kind", "cell", "measure", "of", "at", "x", "value")


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a table: a workload, a variant, a measure, an x and an `at`; None and empty take all together."""

    workload: str
    variant: str
    measure: str
    x: float | None = None
    at: str | None = None


class Gathered:
    """What the finished cells of a plan say."""

    def __init__(self, plan: Plan, computed: Computed) -> None:
        self.plan, self._computed = plan, computed

    def values(self, point: Point, measure: str = "") -> Iterator[tuple[str, str, Value]]:
        """Kind, key and value of everything a point's finished cells hold.

        A variant with an `of` has that one's values, out of the asked kind's cell; those below it are about others.
        """
        of = point.variant.of
        for kind, key in point.cells[:1] if of else point.cells:
            if (done := self._computed.done.get(key)) is not None:
                for value in done.values:
                    if of in ("", value.of) and measure in ("", value.measure):
                        yield kind, key, value

    def csv(self) -> str:
        """One line per value."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for point in self.plan.points:
            head = (self.plan.study.name, point.workload, point.variant.name, point.seed)
            for kind, key, v in self.values(point):
                x = "" if v.x is None else f"{v.x:g}"
                writer.writerow((*head, kind, key[:20], v.measure, v.of, v.at, x, repr(v.value)))
        return out.getvalue()

    def failures(self) -> list[str]:
        """Each failed cell: kind, workload, variant, seed, settings of the variant, and why."""
        lines, told = [], set()
        for point in self.plan.points:
            for kind, key in reversed(point.cells):
                if key in self._computed.failed and key not in told:
                    told.add(key)
                    under = ", ".join(f"{name}={value}" for name, value in point.variant.set.items())
                    where = f"{kind} of {point.variant.name} on {point.workload}, seed {point.seed}"
                    lines.append(f"{where}{f' ({under})' if under else ''}: {self._computed.failed[key]}")
        return lines

    def costs(self) -> list[tuple[str, int, int, float]]:
        """For each kind: finished cells, those computed in this run, seconds of all."""
        found: dict[str, list[tuple[bool, float]]] = {}
        for key, cell in self.plan.cells.items():
            if (done := self._computed.done.get(key)) is not None:
                found.setdefault(cell.kind.name, []).append((key in self._computed.fresh, done.seconds))
        return [(kind, len(all_), sum(f for f, _ in all_), sum(s for _, s in all_)) for kind, all_ in found.items()]

    def machines(self) -> list[tuple[tuple[tuple[str, str | int], ...], int]]:
        """Software and platform of the finished cells, and how many each computed; most first."""
        return Counter(tuple(done.machine.items()) for done in self._computed.done.values()).most_common()

    def unreached(self, slot: Slot) -> str:
        """How many seeds' curves never got to the goal, of how many: ``2 of 5``; empty for other measures."""
        reach = self.plan.study.reach
        if reach is None or slot.measure != reach.name:
            return ""
        found = self._reached(slot, reach)
        return f"{sum(not there for _, there in found.values())} of {len(found)}"

    def xs(self, measure: str) -> list[float]:
        """Every x at which a measure was taken, in order."""
        return sorted({v.x for p in self.plan.points for _, _, v in self.values(p, measure) if v.x is not None})

    def ats(self, measure: str) -> list[str]:
        """Every place at which a measure was taken, in the order met."""
        return list(dict.fromkeys(v.at for p in self.plan.points for _, _, v in self.values(p, measure)))

    def by_seed(self, slot: Slot) -> dict[int, np.ndarray]:
        """For each seed the slot's mean ``(1,)``, or where all of it has items those ``(items,)``."""
        reach = self.plan.study.reach
        if reach is not None and slot.measure == reach.name:
            return {seed: np.array([x]) for seed, (x, _) in self._reached(slot, reach).items()}
        found = {}
        for point in self.plan.points:
            if (point.workload, point.variant.name) == (slot.workload, slot.variant):
                parts = [
                    (key, v)
                    for _, key, v in self.values(point, slot.measure)
                    if slot.x in (None, v.x) and slot.at in (None, v.at)
                ]
                if parts:
                    items = [self._computed.done[key].items.get(v.item_name) for key, v in parts]
                    if all(item is not None for item in items):
                        found[point.seed] = np.mean(np.stack([i for i in items if i is not None]), axis=0)
                    else:
                        found[point.seed] = np.array([np.mean([v.value for _, v in parts])])
        return found

    def _reached(self, slot: Slot, reach: Reach) -> dict[int, tuple[float, bool]]:
        """By seed the x at which the goal was reached, one point beyond the end where it never was, and which."""
        curves: dict[int, dict[str, list[tuple[float, float]]]] = {}
        floors: dict[int, float] = {}
        for point in self.plan.points:
            if point.workload == slot.workload:
                points = [(v.x, v.value) for _, _, v in self.values(point, reach.curve) if v.x is not None]
                if points:
                    curves.setdefault(point.seed, {})[point.variant.name] = sorted(points)
                for _, _, v in self.values(point, reach.floor) if point.variant.name == slot.variant else ():
                    floors[point.seed] = v.value
        found = {}
        for seed, by_variant in curves.items():
            if slot.variant in by_variant and seed in floors:
                best = max(float(np.mean([value for _, value in points[-3:]])) for points in by_variant.values())
                goal = floors[seed] + reach.share * (best - floors[seed])
                mine = by_variant[slot.variant]
                there = [x for x, value in mine if value >= goal]
                found[seed] = (there[0], True) if there else (mine[-1][0] + mine[0][0], False)
        return found

    def mean(self, slot: Slot) -> Interval | None:
        """Mean over seeds with its interval; None where no seed has the slot."""
        found = self.by_seed(slot)
        return _interval([found[seed] for seed in sorted(found)])

    def difference(self, slot: Slot, baseline: str) -> Interval | None:
        """Slot less the baseline variant's, paired by seed (and item); None without a common seed."""
        mine, theirs = self.by_seed(slot), self.by_seed(Slot(slot.workload, baseline, slot.measure, slot.x, slot.at))
        pairs = [
            mine[s] - theirs[s] if mine[s].shape == theirs[s].shape else np.array([mine[s].mean() - theirs[s].mean()])
            for s in sorted(mine.keys() & theirs.keys())
        ]
        return _interval(pairs)

    def apart(self, slot: Slot, places: str, others: str) -> Interval | None:
        """What the slot's variant has at some places, less what it has at others, each a mean; paired by seed.

        Args:
            places, others: Regular expressions that whole names of places match.
        """
        found = []
        for point in self.plan.points:
            if (point.workload, point.variant.name) == (slot.workload, slot.variant):
                values = [(v.at, v.value) for _, _, v in self.values(point, slot.measure)]
                sides = [[value for at, value in values if re.fullmatch(one, at)] for one in (places, others)]
                if all(sides):
                    found.append(np.array([np.mean(sides[0]) - np.mean(sides[1])]))
        return _interval(found)


def _interval(rows: list[np.ndarray]) -> Interval | None:
    if not rows:
        return None
    if len({row.shape for row in rows}) > 1:
        rows = [np.array([row.mean()]) for row in rows]
    return interval(np.stack(rows))
