"""The `search` and `regret` cells: how far everybody is from the best that anybody found.

J = U + lambda eta. The best is chosen on calibration, where decisions may look, among all allocators and a long search
that measures uniform, what the surrogate proposes, and what lies around the best; on test its advantage may turn
round, so regret there is signed.

| searcher        | losses it measures at each SNR, beside those that the surrogate learned from           |
|-----------------|----------------------------------------------------------------------------------------|
| `forward`       | none: it grows ranks from 0 by what the surrogate predicts                               |
| `lookup`        | none: the best that is known at each SNR, what `greedy` measured among it                |
| `random-search` | none of them, but its own, as many as the surrogate learned from and `greedy` added  |
| `search`        | ten times those of `greedy`                                                              |
| `oracle`        | every one, where there are 10,000 allocations at most: few sites, small ranks            |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airtune.methods.airllm.allocators import Allocator
from airtune.methods.airllm.cells.opening import opened
from airtune.methods.airllm.cells.rows import Measurer
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.greedy import ForwardGreedy
from airtune.methods.airllm.search.lookup import LookupTable, RandomSearch
from airtune.methods.airllm.search.oracle import MOST, Oracle, allocations
from airtune.records import generator
from airtune.records.cells import Done, Outcome, Value

SEARCH_EVALUATIONS = 60
"""Real losses measured at each SNR, beside those that the surrogate learned from: ten times those of `greedy`."""


def compute_search(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Searches without a policy: forward greedy, a table by SNR, random search, and a long one."""
    with opened(settings, work, needs["adapter"]) as found:
        measurer, space, weight = Measurer(found), found.space, found.config.policy.cost_weight
        budgets = {link.snr_db: found.budget(link) for link in found.links}
        _ = found.greedy  # measures for every SNR: table and policy then know the same losses
        lookup = LookupTable(found.archive, budgets, cost_weight=weight)
        drawn = generator(found.config.seed, "random-search")
        searchers: dict[str, Allocator] = {
            "lookup": lookup,
            "forward": ForwardGreedy(space, found.surrogate.predict, cost_weight=weight),
            "random-search": RandomSearch(
                space, Archive(found.trainee, space.air_bits), drawn, evaluations=found.losses_each, cost_weight=weight
            ),
            "search": found.greedy_of(SEARCH_EVALUATIONS),
        }
        if allocations(space) <= MOST:
            every = Archive(found.trainee, space.air_bits)
            searchers["oracle"] = Oracle(space, every, cost_weight=weight)
        for name, searcher in searchers.items():
            measurer.decide(searcher, name)
        return measurer.outcome


def compute_regret(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values: `regret` (calibration) and `regret_test` of each allocator by SNR."""
    objective: dict[tuple[str, float | None], dict[str, float]] = {}
    for done in needs.values():
        for value in done.values:
            if value.measure in ("reward", "reward_test"):
                objective.setdefault((value.measure, value.x), {})[value.of] = -value.value
    values = []
    for x in dict.fromkeys(x for _, x in objective):
        on_calibration, on_test = objective["reward", x], objective["reward_test", x]
        best = min(on_calibration, key=lambda of: on_calibration[of])
        for of in on_calibration:
            values.append(Value("regret", on_calibration[of] - on_calibration[best], x, of))
            values.append(Value("regret_test", on_test[of] - on_test[best], x, of))
    return Outcome(tuple(values))
