"""What a study's page and its Markdown both show: tables as texts, and a verdict on each claim of the paper.

A difference is called real where its interval excludes 0 over at least five seeds. Knows numbers and words; not HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airtune.studies.declaration import Claim, Table
from airtune.studies.gather import Gathered, Slot
from airtune.studies.intervals import SEEDS_FOR_A_CLAIM, Interval

MISSING = "–"


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table of texts; `main` ones are shown open, the others folded."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    main: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim of the paper and what our numbers say to it: `holds`, `contradicted`, `the same` or `not shown`."""

    says: str
    word: str
    because: str


def workloads_of(gathered: Gathered) -> list[str]:
    """The workloads that were run, in order."""
    return list(dict.fromkeys(point.workload for point in gathered.plan.points))


def sheets(gathered: Gathered, workload: str) -> Iterator[Sheet]:
    """Every table of the study on one workload that has numbers."""
    first = True
    for table in gathered.plan.study.tables:
        if gathered.ats(table.measure) not in ([], [""]) and table.at:
            yield _by_place(gathered, workload, table)
        elif _has(gathered, workload, table.measure):
            if table.mean:
                yield _by_variant(gathered, workload, table, with_paper=first)
            xs = gathered.xs(table.measure)
            if table.x and len(xs) > 1:
                yield _by_x(gathered, workload, table, xs, main=not table.mean)
            first = False


def verdicts(gathered: Gathered, workload: str) -> Iterator[Verdict]:
    """What the paired differences say to each claim."""
    for claim in gathered.plan.study.claims:
        judge = _judge_mean if not claim.worse else _judge if claim.margin is None else _judge_within
        table = next((t for t in gathered.plan.study.tables if t.measure == claim.measure), Table(claim.measure, ""))
        yield judge(gathered, workload, claim, table)


def _judge(gathered: Gathered, workload: str, claim: Claim, table: Table) -> Verdict:
    found = gathered.difference(Slot(workload, claim.worse, claim.measure), claim.better)
    if found is None:
        return Verdict(claim.says, "not run", f"no {claim.measure} of both variants under the same seed")
    sign = -1 if table.better == "higher" else 1
    because = f"{claim.worse} less {claim.better}: {shown(found, table, signed=True)} {table.unit}".rstrip()
    if found.seeds < SEEDS_FOR_A_CLAIM:
        return Verdict(claim.says, "not shown", f"{because}; {found.seeds} seeds are too few to say")
    if _same(found):
        return Verdict(claim.says, "the same", f"{because}; equal in every seed")
    if not found.real:
        return Verdict(claim.says, "not shown", f"{because}; the interval holds 0")
    return Verdict(claim.says, "holds" if sign * found.mean > 0 else "contradicted", because)


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
    for x in gathered.xs(claim.measure):
        found = gathered.difference(Slot(workload, more, claim.measure, x), less)
        if found is not None:
            behind[x] = found
        elif gathered.mean(Slot(workload, claim.worse, claim.measure, x)) is not None:
            lacking.append(x)
    if not behind:
        return Verdict(claim.says, "not run", f"no {claim.measure} of both variants under the same seed")
    x, most = max(behind.items(), key=lambda entry: entry[1].high)
    because = f"furthest behind at {x:g}: {shown(most, table, signed=True)} {table.unit}".rstrip()
    because += f", of {len(behind)} from {min(behind):g} to {max(behind):g}"
    fewest = min(found.seeds for found in behind.values())
    if fewest < SEEDS_FOR_A_CLAIM:
        return Verdict(claim.says, "not shown", f"{because}; {fewest} seeds are too few to say")
    if lacking:
        return Verdict(claim.says, "not shown", f"{because}; {claim.better} has none at {lacking[0]:g}")
    if most.high < claim.margin:
        return Verdict(claim.says, "holds", because)
    beyond = any(found.low > claim.margin for found in behind.values())
    return Verdict(claim.says, "contradicted" if beyond else "not shown", because)


def _by_variant(gathered: Gathered, workload: str, table: Table, *, with_paper: bool) -> Sheet:
    study = gathered.plan.study
    papers = with_paper and any(variant.paper is not None for variant in study.variants)
    headings = ["variant", *([f"paper: {study.paper_measure}"] if papers else []), f"ours{_unit(table)}"]
    if table.better:
        headings += [f"less {study.baseline}'s", "real"]
    reached = study.reach is not None and table.measure == study.reach.name
    headings += ["seeds never there"] if reached else []
    rows = []
    for variant in study.variants:
        slot = Slot(workload, variant.name, table.measure)
        mean = gathered.mean(slot)
        number = shown(mean, table, of=gathered.plan.seeds)
        cells = [variant.name, *([_number(variant.paper, 2)] if papers else []), number]
        if table.better:
            difference = None if variant.name == study.baseline else gathered.difference(slot, study.baseline)
            apart = shown(difference, table, signed=True, of=gathered.plan.seeds)
            cells += [apart, _real(difference, table)]
        cells += [gathered.unreached(slot)] if reached else []
        if mean is not None or (papers and variant.paper is not None):
            rows.append(tuple(cells))
    over = f", mean over {table.x.split(',')[0]}s" if table.x else ""
    return Sheet(f"{table.title}{over}", tuple(headings), tuple(rows))


def _by_x(gathered: Gathered, workload: str, table: Table, xs: list[float], *, main: bool) -> Sheet:
    """Every x a column; a star marks a real difference to the baseline at this x."""
    study, rows = gathered.plan.study, []
    for variant in study.variants:
        cells = [variant.name]
        for x in xs:
            slot = Slot(workload, variant.name, table.measure, x)
            difference = None if variant.name == study.baseline else gathered.difference(slot, study.baseline)
            star = " *" if table.better and difference is not None and difference.real else ""
            cells.append(shown(gathered.mean(slot), table, of=gathered.plan.seeds) + star)
        if set(cells[1:]) != {MISSING}:
            rows.append(tuple(cells))
    star = f"; * real difference to {study.baseline}" if table.better else ""
    title = f"{table.title}{_unit(table)}, by {table.x}{star}"
    return Sheet(title, ("variant", *(f"{x:g}" for x in xs)), tuple(rows), main)


def _by_place(gathered: Gathered, workload: str, table: Table) -> Sheet:
    rows = []
    for variant in gathered.plan.study.variants:
        for at in gathered.ats(table.measure):
            mean = gathered.mean(Slot(workload, variant.name, table.measure, at=at))
            if mean is not None:
                rows.append((variant.name, at, shown(mean, table, of=gathered.plan.seeds), _real(mean, table)))
    return Sheet(table.title, ("variant", table.at, f"ours{_unit(table)}", "differs from 0"), tuple(rows))


def _has(gathered: Gathered, workload: str, measure: str) -> bool:
    return any(gathered.by_seed(Slot(workload, variant.name, measure)) for variant in gathered.plan.study.variants)


def shown(found: Interval | None, table: Table, *, signed: bool = False, of: int = 0) -> str:
    """A mean with its interval: ``3.120 [3.050, 3.204]``; one seed has no interval, and says so.

    Args:
        of: How many seeds the study has; fewer behind this mean are told.
    """
    if found is None:
        return MISSING
    mean, low, high = (_number(v / table.factor, table.digits, signed) for v in (found.mean, found.low, found.high))
    if found.seeds < 2:
        return f"{mean} (one seed)"
    return f"{mean} [{low}, {high}]" + (f" ({found.seeds} seeds)" if found.seeds < of else "")


def _real(found: Interval | None, table: Table) -> str:
    if found is None:
        return MISSING
    if found.seeds < SEEDS_FOR_A_CLAIM:
        return f"{found.seeds} of {SEEDS_FOR_A_CLAIM} seeds"
    if _same(found):
        return "the same"
    if not found.real:
        return "no"
    words = {"lower": ("worse", "better"), "higher": ("better", "worse")}.get(table.better, ("more", "less"))
    return f"yes, {words[0] if found.mean > 0 else words[1]}"


def _same(found: Interval) -> bool:
    """Whether every paired difference is 0."""
    return found.low == found.mean == found.high == 0


def _unit(table: Table) -> str:
    return f", {table.unit}" if table.unit else ""


def _number(value: float | None, digits: int, signed: bool = False) -> str:
    return MISSING if value is None else f"{value:{'+' if signed else ''},.{digits}f}"
