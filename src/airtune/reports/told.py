"""A run that tells its own tables: title, headings and rows of text, a headline, notes. Read, shown, nothing computed.

For methods whose results are not allocators at SNRs. Knows the shape of such tables; not what stands in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from airtune.errors import RunError
from airtune.reports import units
from airtune.reports.checked import label, listed, mapped, number, read_lines, read_summary, read_text
from airtune.reports.figures import Drawing, curve, metric_points
from airtune.reports.layout import document, framed, section, write_atomically
from airtune.reports.markup import tag
from airtune.reports.parts import configuration, costs, facts, noted
from airtune.reports.tables import plain_table, result_table


@dataclass(frozen=True, slots=True)
class Told:
    """A table as it is told."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class ToldRun:
    """What a report shows of such a run."""

    title: str
    headline: str
    notes: tuple[str, ...]
    facts: Mapping[str, str]
    tables: tuple[Told, ...]
    metrics: tuple[Mapping[str, Any], ...]
    ledger: tuple[Mapping[str, Any], ...]
    config: str


def tells(folder: Path) -> bool:
    """Whether a finished run tells its own tables. Raises `RunError` for a folder without readable results."""
    return "tables" in read_summary(folder / "summary.json")


def read_told(folder: Path) -> ToldRun:
    """Read such a run. Raises `RunError` for what is not as it should be."""
    summary = read_summary(folder / "summary.json")
    wall_s = number(summary, "wall_s", "summary")
    versions = ", ".join(f"{name}{units.NO_BREAK}{label(one)}" for name, one in mapped(summary, "versions").items())
    return ToldRun(
        title=f"{label(summary.get('method'))} on {label(summary.get('task'))}",
        headline=label(summary.get("headline")),
        notes=tuple(label(note) for note in listed(summary, "notes")),
        facts={
            **{name: label(summary.get(name)) for name in ("method", "model", "task", "seed")},
            "took": units.duration(wall_s) if wall_s is not None else "",
            "versions": versions,
        },
        tables=tuple(_told(entry, f"tables[{at}]") for at, entry in enumerate(listed(summary, "tables"))),
        metrics=tuple(read_lines(folder / "metrics.jsonl")),
        ledger=tuple(read_lines(folder / "ledger.jsonl")),
        config=read_text(folder / "config.toml"),
    )


def result_tables(folder: Path) -> Iterator[Table]:
    """The tables of any run for a terminal of 120 columns. Raises `RunError` for a folder without readable results."""
    if tells(folder):
        yield from told_tables(folder)
    else:
        yield result_table(folder)


def told_tables(folder: Path) -> Iterator[Table]:
    """The tables of a run that tells them."""
    run = read_told(folder)
    for told in run.tables:
        table = Table(title=Text(told.title), box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
        for at, heading in enumerate(told.headings):
            table.add_column(Text(heading), justify="right" if at else "left")
        for row in told.rows:
            table.add_row(*(Text(value) for value in row))
        yield table


def write_told(folder: Path) -> Path:
    """Draw the figures and write `report.html` into the run folder; return the page's path."""
    run = read_told(folder)
    drawings = tuple(_drawings(run))
    for drawing in drawings:
        write_atomically(folder / "figures" / f"{drawing.name}.png", drawing.light)
    return write_atomically(folder / "report.html", told_page(run, drawings).encode("utf-8"))


def told_page(run: ToldRun, drawings: tuple[Drawing, ...]) -> str:
    """The whole page as HTML."""
    tables = [
        part
        for told in run.tables
        for part in (tag("h3", told.title, class_="table-title"), plain_table(told.headings, told.rows))
    ]
    return document(
        f"airtune: {run.title}",
        tag("header", tag("h1", run.title), tag("p", run.headline, class_="headline")),
        noted(run.notes),
        section("What was run", facts(run.facts)),
        section("Results", *tables),
        section("Figures", tag("div", *(framed(drawing) for drawing in drawings), class_="figures"))
        if drawings
        else "",
        section("What it cost", *costs(run.ledger)),
        section("Configuration", *configuration(run.config)),
    )


def _drawings(run: ToldRun) -> Iterator[Drawing]:
    if points := metric_points(run.metrics, "train", "epoch", "loss"):
        yield curve("training_loss", "Training loss by epoch", points, ("epoch", "mean loss"), []).drawing()


def _told(entry: Any, where: str) -> Told:
    if not isinstance(entry, Mapping):
        raise RunError(f"summary.json {where} is a {type(entry).__name__}; expected an object with headings and rows")
    headings = tuple(label(one) for one in listed(entry, "headings"))
    rows = tuple(tuple(label(value) for value in row) if isinstance(row, list) else () for row in listed(entry, "rows"))
    if any(len(row) != len(headings) for row in rows):
        raise RunError(f"summary.json {where} has a row that is not as long as its headings; run again")
    return Told(label(entry.get("title")), headings, rows)
