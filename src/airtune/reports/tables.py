"""The rows of a run set out as a table, once, and shown in a terminal or on a page.

One group per SNR, allocators within; one unit per column. Knows rows; not figures and not the page around it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from airtune.reports import units
from airtune.reports.findings import best_rows
from airtune.reports.markup import Markup, join, tag
from airtune.reports.reading import read_run
from airtune.reports.run import Row, Run
from airtune.reports.units import Unit

BEST = "★"
LEGEND = f"{BEST} lowest loss in time at that SNR; {units.MISSING} not recorded"


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, the field it shows and the unit all its numbers have."""

    heading: str
    field: str
    unit: Unit

    @property
    def title(self) -> str:
        """Heading and unit, one above the other."""
        return f"{self.heading}\n{self.unit.name}".rstrip()


def columns(run: Run) -> tuple[Column, ...]:
    """The columns of the result table, units chosen from the run's values."""
    data = units.bit_unit(run.values("payload_bits") + run.values("air_bits"))
    time, score = units.time_unit(run.values("airtime_s")), units.score_unit(run.metric)
    return (
        Column("allocator", "allocator", units.COUNT),
        Column("SNR", "snr_db", Unit("dB")),
        Column("total rank", "total_rank", units.COUNT),
        Column("payload", "payload_bits", data),
        Column("on air", "air_bits", data),
        Column("airtime", "airtime_s", time),
        Column("in time", "deadline_met", units.COUNT),
        *((Column("late blocks", "blocks_late", units.COUNT),) if run.values("blocks") else ()),
        Column("loss", "loss", units.LOSS),
        Column("trained", "score_trained", score),
        Column("cloud", "score_cloud", score),
        Column("edge", "score_edge", score),
    )


def details(run: Run) -> tuple[Column, ...]:
    """The columns of what the result table leaves out."""
    return (
        Column("allocator", "allocator", units.COUNT),
        Column("SNR", "snr_db", Unit("dB")),
        Column("parameters", "parameters", units.COUNT),
        Column("before projection", "bits_before_projection", units.bit_unit(run.values("bits_before_projection"))),
        Column("bandwidth", "bandwidth_hz", Unit("kHz", 1e3, 1)),
        Column("deadline", "deadline_s", units.time_unit(run.values("deadline_s"))),
        Column("calibration loss", "loss_calibration", units.LOSS),
        Column("reward", "reward", Unit("", 1, 4)),
        Column("largest logit difference", "max_abs_logit_diff", units.COUNT),
        Column("payload SHA-256", "payload_sha256", units.COUNT),
    )


def cell(row: Row, column: Column) -> str:
    """What a row shows in a column."""
    value = getattr(row, column.field)
    match column.field:
        case "allocator":
            return row.allocator
        case "snr_db":
            return f"{value:g}"
        case "deadline_met":
            return units.MISSING if value is None else "yes" if value else "NO, LATE"
        case "blocks_late":
            return f"{units.COUNT.number(value)}/{units.COUNT.number(row.blocks)}"
        case "max_abs_logit_diff":
            return units.MISSING if value is None else f"{value:.1e}"
        case "payload_sha256":
            return units.MISSING if value is None else value[:12]
    return column.unit.number(value)


def link(run: Run) -> str:
    """The link of a run in words: ``180 kHz, still channel``."""
    return ", ".join(
        [
            *dict.fromkeys(map(units.bandwidth, run.values("bandwidth_hz"))),
            *([f"{run.fading} channel"] if run.fading else []),
        ]
    )


def result_table(run_dir: Path) -> Table:
    """The result table for a terminal of 120 columns. Raises `RunError` for a folder without readable results."""
    run = read_run(run_dir)
    best, shown = best_rows(run), columns(run)
    table = Table(
        title=Text(_printable(f"{run.title}, {run.model}, seed {run.seed}")),
        caption=Text(LEGEND),
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
        collapse_padding=True,
    )
    for column in shown:
        text = column.field in ("allocator", "deadline_met")
        table.add_column(
            Text(column.title.replace("total ", "total\n").replace("late blocks", "late\nblocks")),
            justify="left" if text else "right",
            overflow="ellipsis" if column.field == "allocator" else "fold",
            no_wrap=True,
            max_width=20 if column.field == "allocator" else None,
        )
    for index, row in enumerate(run.rows):
        cells = [_printable(cell(row, column)) for column in shown]
        where = next(i for i, column in enumerate(shown) if column.field == "loss")
        cells[where] = f"{BEST} {cells[where]}" if row in best else cells[where]
        last = index + 1 == len(run.rows) or run.rows[index + 1].snr_db != row.snr_db
        style = "bold red" if row.late else ""
        table.add_row(*(Text(text, style=style) for text in cells), end_section=last)
    for texts in reference_cells(run, shown):
        table.add_row(*map(_printable, texts), style="dim")
    return table


def reference_cells(run: Run, shown: Sequence[Column]) -> list[list[str]]:
    """Rows for what no link limited: its loss and its score, both before any quantising."""
    rows = []
    for name, reference in run.references.items():
        known = {"loss": reference.loss, "score_trained": reference.score}
        numbers = [c.unit.number(known[c.field]) if c.field in known else "" for c in shown[1:]]
        rows.append([name.replace("_", " "), *numbers])
    return rows


def html_table(run: Run, shown: Sequence[Column], *, marks: bool = True) -> Markup:
    """The rows under these columns as an HTML table, one body per SNR; with marks, the references below them."""
    best = best_rows(run) if marks else frozenset()
    head = tag("tr", *(tag("th", *_stacked(column), scope="col", class_=_kind(column)) for column in shown))
    bodies = []
    for snr_db in run.snrs_db:
        rows = [row for row in run.rows if row.snr_db == snr_db]
        bodies.append(tag("tbody", *(_html_row(row, shown, best=row in best) for row in rows)))
    if marks and run.references:
        bodies.append(tag("tbody", *map(_plain_row, reference_cells(run, shown))))
    return scrolling(tag("table", tag("thead", head), *bodies))


def plain_table(headings: Sequence[str], *groups: Sequence[Sequence[str]]) -> Markup:
    """Groups of rows of texts: the first column names, the others are numbers."""
    head = tag("tr", *(tag("th", text, scope="col", class_="number" if i else None) for i, text in enumerate(headings)))
    bodies = (tag("tbody", *map(_plain_row, rows)) for rows in groups)
    return scrolling(tag("table", tag("thead", head), *bodies))


def scrolling(table: Markup) -> Markup:
    """A table that scrolls sideways on a narrow screen, and can be reached by keyboard."""
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="table")


def _plain_row(cells: Sequence[str]) -> Markup:
    return tag("tr", tag("th", cells[0], scope="row"), *(tag("td", text, class_="number") for text in cells[1:]))


def _html_row(row: Row, shown: Sequence[Column], *, best: bool) -> Markup:
    cells = []
    for column in shown:
        text: str = cell(row, column)
        if column.field == "allocator":
            cells.append(tag("th", text, scope="row"))
            continue
        if best and column.field == "loss":
            text = join([tag("span", BEST, class_="star", title="lowest loss in time at this SNR"), " ", text])
        elif row.late and column.field == "deadline_met":
            text = join(["NO, ", tag("strong", "LATE")])
        cells.append(tag("td", text, class_=_kind(column)))
    return tag("tr", *cells, class_="late" if row.late else None)


def _stacked(column: Column) -> list[str]:
    unit = [tag("span", column.unit.name, class_="unit")] if column.unit.name else []
    return [column.heading, *unit]


def _kind(column: Column) -> str | None:
    return None if column.field in ("allocator", "deadline_met", "payload_sha256") else "number"


def _printable(text: str) -> str:
    """Text without control characters, which a terminal would obey."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\N{REPLACEMENT CHARACTER}", text)
