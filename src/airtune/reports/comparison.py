"""Several runs on one page: mean over seeds, with the smallest and the largest.

Runs are averaged only where method, mode, model, task, link, deadlines and metric are the same. Makes no test and
claims none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from airtune.errors import RunError
from airtune.reports import units
from airtune.reports.layout import document, section, write_atomically
from airtune.reports.markup import Markup, tag
from airtune.reports.reading import read_run
from airtune.reports.run import Row, Run
from airtune.reports.tables import link, plain_table
from airtune.reports.units import Unit

SEEDS_FOR_A_CLAIM = 5


def compare(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write one page for several run folders and return its path: `out`, or `compare.html` in it if it is no .html.

    Raises `RunError` for no folder at all, or one without readable results.
    """
    if not run_dirs:
        raise RunError("no run folder was given to compare; give at least one")
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in map(read_run, run_dirs):
        setting = (run.method, run.mode, run.model, run.task, link(run), run.metric, run.judged)
        groups.setdefault((*setting, *map(str, sorted(set(run.values("deadline_s"))))), []).append(run)
    sections = (section(f"{runs[0].method} on {runs[0].task}", *_group(runs)) for runs in groups.values())
    text = document("airtune: runs compared", tag("h1", f"{len(run_dirs)} runs compared"), *sections)
    return write_atomically(out if out.suffix == ".html" else out / "compare.html", text.encode("utf-8"))


def _group(runs: list[Run]) -> Iterator[Markup]:
    first, seeds = runs[0], Counter(run.seed for run in runs)
    setting = [first.model, f"{first.mode} mode" if first.mode else "", link(first), f"seeds {', '.join(seeds)}"]
    yield tag("p", f"{', '.join(filter(None, setting))}. Mean over seeds (smallest to largest).")
    if repeated := [seed for seed, times in seeds.items() if times > 1]:
        yield tag("p", f"Seed {', '.join(repeated)} stands for more than one run: these are not independent.")
    if len(seeds) < SEEDS_FOR_A_CLAIM:
        yield tag("p", f"Fewer than {SEEDS_FOR_A_CLAIM} seeds: read, do not claim.")
    cells: dict[float, dict[str, list[Row]]] = {}
    for row in (row for run in runs for row in run.rows):
        cells.setdefault(row.snr_db, {}).setdefault(row.allocator, []).append(row)
    bit_unit = units.bit_unit(value for run in runs for value in run.values("air_bits"))
    time_unit = units.time_unit(value for run in runs for value in run.values("airtime_s"))
    score_unit, place = units.score_unit(first.metric), first.judged.removeprefix("score_")
    shown = (("air_bits", bit_unit), ("airtime_s", time_unit), ("loss", units.LOSS), (first.judged, score_unit))
    names = ("on air", "airtime", "loss", f"{first.metric}, {place}")
    headings = [f"{name}, {unit.name}" for name, (_, unit) in zip(names, shown, strict=True)]
    yield plain_table(
        ("allocator", "SNR, dB", "runs", "late", *headings),
        *([_line(rows, shown) for rows in cells[snr_db].values()] for snr_db in sorted(cells)),
    )


def _line(rows: list[Row], shown: Sequence[tuple[str, Unit]]) -> tuple[str, ...]:
    late = sum(row.late for row in rows)
    spreads = (spread([getattr(row, field) for row in rows], unit.number) for field, unit in shown)
    return (
        rows[0].allocator,
        f"{rows[0].snr_db:g}",
        str(len(rows)),
        f"{late}/{len(rows)} LATE" if late else "none",
        *spreads,
    )


def spread(values: Sequence[float | None], text: Callable[[float], str]) -> str:
    """Mean, then smallest and largest where they differ: ``0.5120 (0.5000 to 0.5240)``."""
    known = [value for value in values if value is not None]
    if not known:
        return units.MISSING
    mean, low, high = text(sum(known) / len(known)), text(min(known)), text(max(known))
    missing = f", {len(values) - len(known)} missing" if len(known) < len(values) else ""
    return mean + (f" ({low} to {high}{missing})" if low != high or missing else "")
