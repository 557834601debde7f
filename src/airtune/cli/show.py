"""What a person sees while and after a command works: progress bars, plain lines when nobody watches, tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

from rich import progress
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airtune.benches import Ratio


def new_console() -> Console:
    """The terminal; wide enough for a table where the output goes elsewhere.

    Brackets are text: names out of payloads and paths are shown as they are, not read as Rich's markup.
    """
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=120)


@final
class Bars:
    """Progress on a terminal: one bar per stage with rate and time left; elsewhere one line per stage."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, line: str) -> None:
        """Print one line that stays."""
        self._console.print(line, highlight=False)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[_Bar | _Line]:
        if not self._console.is_terminal:
            begun = time.monotonic()
            line = _Line()
            yield line
            self.say(f"{name}: {time.monotonic() - begun:.1f} s{', ' + line.note if line.note else ''}")
            return
        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=28),
            progress.MofNCompleteColumn() if total else progress.SpinnerColumn(),
            progress.TimeElapsedColumn(),
            *([progress.TextColumn("left"), progress.TimeRemainingColumn()] if total else []),
            progress.TextColumn("{task.fields[note]}", markup=False),
        )
        with progress.Progress(*columns, console=self._console) as bars:
            task = bars.add_task(name.ljust(31), total=total, note="")
            yield _Bar(bars, task)


@final
class _Bar:
    def __init__(self, bars: progress.Progress, task: progress.TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, by: int = 1, note: str = "") -> None:
        self._bars.update(self._task, advance=by, note=note)


@final
class _Line:
    def __init__(self) -> None:
        self.note = ""

    def advance(self, by: int = 1, note: str = "") -> None:
        self.note = note or self.note


def table(title: str, columns: dict[str, str], rows: list[list[Any]]) -> Table:
    """A plain table; `columns` maps each heading to its justification, `left` or `right`."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading, justify in columns.items():
        made.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def bench_tables(name: str, rows: Sequence[Mapping[str, float | str]], ratios: Sequence[Ratio]) -> tuple[Table, Table]:
    """What a bench measured, and what was asked beside it."""
    columns = {heading: "left" if isinstance(value, str) else "right" for heading, value in rows[0].items()}
    cells = [[value if isinstance(value, str) else f"{value:.4g}" for value in row.values()] for row in rows]
    asked = [[r.name, f"{r.measured:.3g}", r.wanted, "yes" if r.holds else "NO"] for r in ratios]
    headings = {"ratio": "left", "measured": "right", "asked": "left", "holds": "left"}
    return table(f"airtune bench {name}: medians", columns, cells), table("", headings, asked)
