"""All ways to send, each a family of candidates whose loss on dev is known; test is scored where it is asked for.

Knows ways, dev and budgets; not which of a family's candidates are reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from airtune.adapters.receiver import about
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.bits.candidate import Candidate, score_all
from airtune.methods.airllm.bits.cores import cores_of, in_format_2, on_grid
from airtune.methods.airllm.bits.front import best_within, unbeaten
from airtune.methods.airllm.bits.grid import blockwise, calibrated, cuts, float32, grid
from airtune.methods.airllm.bits.ours import Ours, Sent, trained_on
from airtune.methods.airllm.bits.ternary import ternary
from airtune.methods.airllm.bits.whole import whole
from airtune.models import BaseModel, FitPlan, Score
from airtune.records import generator
from airtune.workloads.parts import Parts

TIMES_FEWER = (4, 8, 12, 16, 24, 32, 48, 64, 100, 200, 400)
"""Budgets: the bits of float32 LoRA at the largest rank, over these."""
BETWEEN = tuple(4 * 1.2**step for step in range(1, 25))
"""Payloads are fitted to these budgets too, so that fronts have enough points."""
A_FIFTH, AS_LONG_AGAIN = 0.2, 1.0
"""Steps of training on through the rounding, over those of the training before."""
AGAIN_FEWER = (200, 400)
"""Budgets whose best is trained on for as long again."""
SCREENS, FEWEST = ((32, 2.0), (8, 1.0)), 32
"""Every 32nd item of dev is seen first, then every eighth, 32 at least: who is beaten by so many standard errors of the
paired difference by something no larger is not scored further."""
OTHERS = ("grid", "calibrated", "cut", "blockwise", "ternary", "cores_grid", "whole", "others")
"""Ways to send that are not ours; the last is all of them."""


class Scored:
    """A candidate, its loss on dev, and on test when asked for."""

    def __init__(self, candidate: Candidate, dev: float, base: BaseModel, parts: Parts) -> None:
        self._candidate, self._base, self._parts = candidate, base, parts
        self._front: float | None = None
        self.name, self.bits, self.dev = candidate.name, float(candidate.bits), dev

    @cached_property
    def test(self) -> Score:
        return self._candidate.score(self._base, self._parts.test)

    def front_loss(self, most: int) -> float:
        """On so many items of test at most, spread over all of it; always the same number."""
        if "test" in self.__dict__:
            return float(self.test.losses[self._parts.test.spread(most)].mean())
        if self._front is None:
            self._front = self._candidate.score(self._base, self._parts.test.evenly(most)).loss
        return self._front


Family = Sequence[Scored]


def sizes_and_losses(family: Family) -> tuple[list[float], list[float]]:
    """Bits and dev losses."""
    return [one.bits for one in family], [one.dev for one in family]


@dataclass(frozen=True, slots=True, eq=False)
class Families:
    """What was trained, in every way to send it.

    Args:
        base: Bare.
        lora: By rank.
        cores: By size and rank.
        change: Of all weights, where they were trained.
        plan: Of these trainings; its seed draws what is trained on.
    """

    base: BaseModel
    parts: Parts
    lora: Mapping[int, TrainedAdapter]
    cores: Mapping[tuple[int, int], TrainedAdapter]
    change: Mapping[str, np.ndarray] | None
    plan: FitPlan

    @property
    def largest(self) -> Candidate:
        """LoRA of the largest rank as float32."""
        return float32(self.lora)

    def all(self) -> Iterator[tuple[str, Family]]:
        """By name: those of `OTHERS`, then `either` of ours, `longer` these and some trained on, and `again`."""
        between = list(cores_of(self.cores, self.base, self.parts.calibration))
        binding, meta = about(self.base)
        format_2 = Ours(self.lora, self.base, self.parts.calibration, binding, meta)
        ways: dict[str, Iterable[Candidate]] = {
            "grid": grid(self.lora),
            "calibrated": calibrated(self.lora, format_2.curvature),
            "cut": cuts(self.lora),
            "blockwise": blockwise(self.lora, binding, meta),
            "ternary": ternary(self.lora),
            "cores_grid": on_grid(between),
        }
        if self.change is not None:
            ways["whole"] = whole(self.change)
        others = {name: self._family(candidates) for name, candidates in ways.items()}
        yield from others.items()
        yield "others", [one for each in others.values() for one in each]

        budgets = [int(self.largest.bits / times) for times in sorted({*TIMES_FEWER, *BETWEEN})]
        sent = [*format_2.sent(budgets)], [*in_format_2(between, self.base, self.parts.calibration, budgets)]
        ours, cores = (self._family(one.candidate for one in each) for each in sent)
        starts = {one.candidate.name: one for each in sent for one in each}
        tuned, tuned_cores = (
            self._family(self._trained_on(family, starts, TIMES_FEWER, A_FIFTH)) for family in (ours, cores)
        )
        longer = [*ours, *cores, *tuned, *tuned_cores]
        again = self._family(self._trained_on(longer, starts, AGAIN_FEWER, AS_LONG_AGAIN))
        yield from {"ours": ours, "cores": cores, "either": [*ours, *cores]}.items()
        yield from {"tuned": tuned, "tuned_cores": tuned_cores, "longer": longer, "again": again}.items()

    def _family(self, candidates: Iterable[Candidate]) -> Family:
        """Those that are not beaten early on, scored on all of dev."""
        left, dev = list(candidates), self.parts.dev
        for fewer, errors in SCREENS if left else ():
            seen = dev.evenly(max(FEWEST, len(dev) // fewer))
            losses = np.array([found.losses for found in score_all(left, self.base, seen)])
            left = [left[index] for index in unbeaten([one.bits for one in left], losses, errors=errors)]
        scores = score_all(left, self.base, dev)
        return [Scored(one, found.loss, self.base, self.parts) for one, found in zip(left, scores, strict=True)]

    def _trained_on(
        self, family: Family, starts: dict[str, Sent], fewer: Sequence[float], share: float
    ) -> Iterator[Candidate]:
        """What is best within each budget, from where it was before any training on.

        Args:
            starts: By candidate's name, of trained ones too; those that are trained here are added.
        """
        within = [best_within(*sizes_and_losses(family), self.largest.bits / times) for times in fewer]
        for start in dict.fromkeys(starts[family[index].name] for index in within if index is not None):
            rng = generator(self.plan.seed, f"tuning {start.candidate.name}")
            found = trained_on(self.base, start, self.parts.train, self.plan, rng, share=share)
            starts[found.name] = start
            yield found
