"""A verdict on each claim of the paper, out of a study's numbers. Knows numbers and words; not tables or HTML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airtune.studies.declaration import Claim, Table
from airtune.studies.gather import Gathered, Slot
from airtune.studies.intervals import SEEDS_FOR_A_CLAIM, Interval
from airtune.studies.sheets import same, shown


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim of the paper and what our numbers say to it: `holds`, `contradicted`, `the same` or `not shown`."""

    says: str
    word: str
    because: str


def verdicts(gathered: Gathered, workload: str) -> Iterator[Verdict]:
    """What the paired differences say to each claim."""
    for claim in gathered.plan.study.claims:
        judge = (
            (_judge if claim.margin is None else _judge_within)
            if claim.worse
            else _judge_places
            if claim.than
            else _judge_mean
        )
        table = next((t for t in gathered.plan.study.tables if t.measure == claim.measure), Table(claim.measure, ""))
        yield judge(gathered, workload, claim, table)


def _judge(gathered: Gathered, workload: str, claim: Claim, table: Table) -> Verdict:
    found = gathered.difference(Slot(workload, claim.worse, claim.measure), claim.better)
    if found is None:
        return Verdict(claim.says, "not run", f"no {claim.measure} of both variants under the same seed")
    because = f"{claim.worse} less {claim.better}: {shown(found, table, signed=True)} {table.unit}".rstrip()
    return _of_difference(claim, found, because, holds=(found.mean < 0) == (table.better == "higher"))


def _judge_places(gathered: Gathered, workload: str, claim: Claim, table: Table) -> Verdict:
    """Whether a variant has more of a measure at some places than at others."""
    found = gathered.apart(Slot(workload, claim.better, claim.measure), claim.places, claim.than)
    if found is None:
        return Verdict(claim.says, "not run", f"no {claim.measure} of {claim.better} at these places")
    because = f"more by {shown(found, table, signed=True)} {table.unit}".rstrip()
    return _of_difference(claim, found, because, holds=found.mean > 0)


def _of_difference(claim: Claim, found: Interval, because: str, *, holds: bool) -> Verdict:
    if found.seeds < SEEDS_FOR_A_CLAIM:
        return Verdict(claim.says, "not shown", f"{because}; {found.seeds} seeds are too few to say")
    if same(found):
        return Verdict(claim.says, "the same", f"{because}; equal in every seed")
    if not found.real:
        return Verdict(claim.says, "not shown", f"{because}; the interval holds 0")
    return Verdict(claim.says, "holds" if holds else "contradicted", because)


def _judge_mean(gathered: Gathered, workload: str, claim: Claim, table: Table) -> Verdict:
    """Whether the whole interval of a variant's mean lies between the bounds, or all of it beyond them."""
    found = gathered.mean(Slot(workload, claim.better, claim.measure, claim.x, claim.at))
    if found is None:
        return Verdict(claim.says, "not run", f"no {claim.measure} of {claim.better}")
    because = f"{claim.better}: {shown(found, table)} {table.unit}".rstrip()
    if found.seeds < SEEDS_FOR_A_CLAIM:
        return Verdict(claim.says, "not shown", f"{because}; {found.seeds} seeds are too few to say")
    low, high = claim.between
    if low <= found.low and found.high <= high:
        return Verdict(claim.says, "holds", because)
    return Verdict(claim.says, "contradicted" if found.high < low or found.low > high else "not shown", because)


def _judge_within(gathered: Gathered, workload: str, claim: Claim, table: Table) -> Verdict:
    """Whether `better` is behind by less than the margin, the whole interval, at each x where `worse` has a value."""
    assert claim.margin is not None
    more, less = (claim.worse, claim.better) if table.better == "higher" else (claim.better, claim.worse)
    behind, lacking = {}, []
    for x in (x for x in gathered.xs(claim.measure) if claim.x is None or x >= claim.x):
        found = gathered.difference(Slot(workload, more, claim.measure, x), less)
        if found is not None:
            behind[x] = found
        elif gathered.mean(Slot(workload, claim.worse, claim.measure, x)) is not None:
            lacking.append(x)
    if not behind:
        return Verdict(claim.says, "not run", f"no {claim.measure} of both variants under the same seed")
    x, most = max(behind.items(), key=lambda entry: entry[1].high)
    because = f"{more} less {less}, at most: {shown(most, table, signed=True)} {table.unit}".rstrip()
    because += f" at {x:g}, of {len(behind)} from {min(behind):g} to {max(behind):g}"
    fewest = min(found.seeds for found in behind.values())
    if fewest < SEEDS_FOR_A_CLAIM:
        return Verdict(claim.says, "not shown", f"{because}; {fewest} seeds are too few to say")
    if any(found.low > claim.margin for found in behind.values()):
        return Verdict(claim.says, "contradicted", because)
    if lacking:
        return Verdict(claim.says, "not shown", f"{because}; {claim.better} has none at {lacking[0]:g}")
    return Verdict(claim.says, "holds" if most.high < claim.margin else "not shown", because)
