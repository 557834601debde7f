"""The page of a study: the paper's claim beside ours, tables, figures, what was not run, what it cost, the machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from airtune.reports import units
from airtune.reports.figures import Drawing
from airtune.reports.layout import document, framed, section
from airtune.reports.markup import Markup, join, tag
from airtune.reports.tables import plain_table
from airtune.studies.gather import Gathered
from airtune.studies.intervals import SEEDS_FOR_A_CLAIM
from airtune.studies.sheets import Sheet, sheets, workloads_of
from airtune.studies.verdicts import Verdict, verdicts


def page(gathered: Gathered, drawings: Sequence[Drawing]) -> str:
    """The whole page as HTML."""
    study = gathered.plan.study
    return document(
        f"airtune study {study.name}",
        tag(
            "header",
            tag(
                "h1", f"airtune study {study.name}" + (f", beside {study.beside} of the paper" if study.beside else "")
            ),
            tag("p", study.title, class_="headline"),
        ),
        _notes(gathered),
        section("What the paper says", tag("p", study.paper_says), tag("p", f"{study.source}.", class_="hint")),
        *(_workload(gathered, workload) for workload in workloads_of(gathered)),
        section("Figures", tag("div", *(framed(drawing) for drawing in drawings), class_="figures"))
        if drawings
        else "",
        section("What was not run", _bullets(tuple(_not_run(gathered)))),
        section("How it was measured", *_measured(gathered)),
        section("What it cost", *_costs(gathered)),
    )


def _notes(gathered: Gathered) -> Markup:
    seeds, notes = gathered.plan.seeds, [f"{note[0].upper()}{note[1:]}." for note in gathered.plan.notes]
    notes += gathered.plan.study.notes
    if seeds < SEEDS_FOR_A_CLAIM:
        notes.append(
            f"{seeds} seeds: read, do not claim. A difference is called real over {SEEDS_FOR_A_CLAIM} or more."
        )
    if failed := gathered.failures():
        notes.append(f"{len(failed)} cells failed; what they would have shown is missing below.")
    if not notes:
        return Markup()
    return tag("aside", tag("h2", "Note" if len(notes) == 1 else "Notes"), _bullets(tuple(notes)), class_="notes")


def _workload(gathered: Gathered, workload: str) -> Markup:
    found = tuple(verdicts(gathered, workload))
    parts: list[Markup] = []
    if found:
        rows = [(v.says, v.word, v.because) for v in found]
        parts.append(_claims(rows, found))
    for sheet in sheets(gathered, workload):
        parts.append(_sheet(sheet))
    return section(f"Ours, on {workload}", *parts)


def _claims(rows: Sequence[tuple[str, str, str]], found: Sequence[Verdict]) -> Markup:
    counts = ", ".join(
        f"{sum(v.word == word for v in found)} {word}"
        for word in ("holds", "contradicted", "the same", "not shown", "not run")
        if any(v.word == word for v in found)
    )
    items = (join([tag("dt", says), tag("dd", tag("strong", word), f": {because}")]) for says, word, because in rows)
    return join([tag("p", f"Of {len(found)} claims: {counts}.", class_="remarks"), tag("dl", *items, class_="terms")])


def _sheet(sheet: Sheet) -> Markup:
    shown = plain_table(sheet.headings, sheet.rows)
    if sheet.main:
        return join([tag("h3", sheet.title, class_="table-title"), shown])
    return tag("details", tag("summary", sheet.title), shown)


def _not_run(gathered: Gathered) -> Iterator[str]:
    yield from gathered.plan.study.not_run
    yield from gathered.failures()
    if not gathered.plan.study.not_run and not gathered.failures():
        yield "Everything that the study declares was run."


def _measured(gathered: Gathered) -> Iterator[Markup]:
    seeds = gathered.plan.seeds
    yield tag(
        "p",
        f"{seeds} seeds; a seed redraws {gathered.plan.study.redrawn}, test stays. "
        "Intervals are 95 %: Student's over seeds; where a number is a mean over test items, their half-width is "
        "added in quadrature. Differences are paired by seed and item. Real: the interval excludes 0 "
        f"over at least {SEEDS_FOR_A_CLAIM} seeds. No rank test is shown: with five seeds none could say more.",
    )
    yield tag("p", "Given: ", tag("code", gathered.plan.given), class_="hint")
    for machine, cells in gathered.machines():
        yield tag("p", f"{cells} cells: ", ", ".join(f"{name} {version}" for name, version in machine), class_="hint")


def _costs(gathered: Gathered) -> Iterator[Markup]:
    rows = [
        (kind, str(cells), str(fresh), units.duration(seconds), units.duration(seconds / max(cells, 1)))
        for kind, cells, fresh, seconds in gathered.costs()
    ]
    yield plain_table(("kind of cell", "cells", "computed in this run", "time, all", "time, each"), rows)
    yield tag("p", "One thread each. Cells not computed now come from other studies or earlier runs.", class_="hint")


def _bullets(texts: Sequence[str]) -> Markup:
    return tag("ul", *(tag("li", text) for text in texts))
