"""A study's results as Markdown. Knows sheets and verdicts; not pages."""

from __future__ import annotations

from collections.abc import Sequence

from airtune.studies.gather import Gathered
from airtune.studies.sheets import sheets, workloads_of
from airtune.studies.verdicts import verdicts


def markdown(gathered: Gathered) -> str:
    """The whole file."""
    study = gathered.plan.study
    lines = [f"# {study.title}", ""]
    lines += [*([f"Beside {study.beside} of the paper."] if study.beside else []), study.paper_says, ""]
    lines += [f"Source: {study.source}.", ""]
    over = "Intervals: 95 %, over seeds, and over test items where a value is a mean over them."
    lines += [f"`{gathered.plan.given}`, {gathered.plan.seeds} seeds. {over}", ""]
    lines += [f"Note: {note}." for note in gathered.plan.notes]
    lines += [f"Note: {note}" for note in study.notes] + [""]
    for workload in workloads_of(gathered):
        lines += [f"## {workload}", ""]
        lines += [f"- {v.says}: **{v.word}** ({v.because})" for v in verdicts(gathered, workload)] + [""]
        for sheet in sheets(gathered, workload):
            lines += [f"### {sheet.title}", "", *_table(sheet.headings, sheet.rows), ""]
    if missing := [*study.not_run, *gathered.failures()]:
        lines += ["## Not run", "", *(f"- {line}" for line in missing), ""]
    return "\n".join(lines)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(headings) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows)]
