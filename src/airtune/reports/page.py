"""The report of one run: figures as PNG files and one self-contained page.

Reads top to bottom as the page does. Knows how a run is told; what its numbers say is in `findings`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from airtune.reports import units
from airtune.reports.figures import Drawing, draw_figures
from airtune.reports.findings import headline, remarks
from airtune.reports.layout import document, framed, section, write_atomically
from airtune.reports.markup import Markup, join, tag
from airtune.reports.parts import bullets, configuration, costs, facts, noted
from airtune.reports.reading import read_run
from airtune.reports.run import Run
from airtune.reports.tables import LEGEND, columns, details, html_table, link, plain_table
from airtune.reports.told import tells, write_told


def write_report(run_dir: Path) -> Path:
    """Draw `figures/*.png` and write `report.html` into a run folder; return the page's path.

    Raises `RunError` where the folder holds no readable results, cannot be written, or matplotlib is missing.
    """
    if tells(run_dir):
        return write_told(run_dir)
    run = read_run(run_dir)
    drawings = draw_figures(run)
    for drawing in drawings:
        write_atomically(run_dir / "figures" / f"{drawing.name}.png", drawing.light)
    return write_atomically(run_dir / "report.html", page(run, drawings).encode("utf-8"))


def page(run: Run, drawings: tuple[Drawing, ...]) -> str:
    """The whole page as HTML."""
    name = run.title
    return document(
        f"airtune: {name}",
        tag("header", tag("h1", name), tag("p", headline(run), class_="headline"), bullets(remarks(run), "remarks")),
        noted(run.notes),
        section("What was run", facts(dict(_what_was_run(run)))),
        section("Results", *_results(run)),
        section("Figures", tag("div", *(framed(drawing) for drawing in drawings), class_="figures"))
        if drawings
        else "",
        section("How it was measured", _terms(dict(_measured(run)))),
        section("What it cost", *costs(run.ledger)),
        section("Configuration", *configuration(run.config)),
    )


def _what_was_run(run: Run) -> Iterator[tuple[str, str]]:
    yield "method", f"{run.method}, {run.mode} mode" if run.mode else run.method
    yield "model", run.model
    yield "training steps", f"{run.steps:,.0f}" if run.steps is not None else ""
    yield "task", run.task
    yield "link", link(run)
    yield "SNR", ", ".join(f"{snr_db:g}" for snr_db in run.snrs_db) + f"{units.NO_BREAK}dB"
    yield "deadline", units.span(map(units.seconds, run.values("deadline_s")))
    yield "why this bandwidth", run.bandwidth_reason
    yield "seed", run.seed
    yield "took", units.duration(run.wall_s) if run.wall_s is not None else ""
    yield "versions", ", ".join(f"{name}{units.NO_BREAK}{version}" for name, version in run.versions.items())


def _results(run: Run) -> Iterator[Markup]:
    yield tag("div", html_table(run, columns(run)), class_="wide")
    yield tag("p", f"{LEGEND}. Bits on air are the payload and everything sent around it.", class_="hint")
    if run.references:
        score = units.score_unit(run.metric)
        rows = [
            (
                name.replace("_", " "),
                *(score.quantity(value) for value in (reference.score, reference.dev_score)),
                *(units.LOSS.number(value) for value in (reference.loss, reference.dev_loss)),
            )
            for name, reference in run.references.items()
        ]
        yield tag("h3", "Without a link", class_="table-title")
        yield plain_table(("reference", run.metric, "on dev", "loss, nat", "on dev"), rows)
    yield tag("details", tag("summary", "Everything else in the rows"), html_table(run, details(run), marks=False))


def _measured(run: Run) -> Iterator[tuple[str, str]]:
    readers = (
        "Rewards and every search over ranks read calibration, tuning reads development"
        if run.cut
        else "The reward of a training step is of its batch, the early stop reads development"
    )
    yield (
        "Splits",
        f"Training, calibration, development and test items are disjoint. {readers}; loss and scores in the table are "
        "from test, which no decision of a run reads.",
    )
    scores = (
        ("Score, trained", "The adapter as trained, before quantising, cut to the row's ranks."),
        ("Score, cloud", "The payload decoded again in the cloud: what quantising and coding cost."),
        ("Score, edge", "The payload as it arrived, decoded and applied by the edge: what the user gets."),
    )
    unit = "Share of test items answered right." if run.metric == "accuracy" else "Perplexity on test, lower is better."
    for name, meaning in scores:
        yield name, f"{meaning} {unit}"
    yield (
        "Deadline",
        "Airtime is bits on air divided by the rate of the block; a row is in time if that is at most its deadline.",
    )
    yield "Channel", _channel(run)
    differences = [value for value in run.values("max_abs_logit_diff") if math.isfinite(value)]
    if differences:
        yield "Cloud against edge", f"Largest difference of any logit over all rows: {max(differences):.1e}."


def _channel(run: Run) -> str:
    blocks, late = sum(run.values("blocks")), sum(run.values("blocks_late"))
    if blocks:
        return (
            f"The coming block is not known when ranks are decided; {late:,.0f} of {blocks:,.0f} blocks "
            f"({100 * late / blocks:.1f}{units.NO_BREAK}%) would have been late."
        )
    late_rows = sum(row.late for row in run.rows)
    if not run.cut:
        return (
            "The deadline is soft: it counts through the cost in the reward alone, and no allocation is cut to it. "
            f"{late_rows} of {len(run.rows)} rows {'was' if late_rows == 1 else 'were'} late."
        )
    if run.still and late_rows:
        return (
            "The channel is still and known before sending, so no allocation cut to the deadline could be late; "
            f"{late_rows} of {len(run.rows)} rows {'was' if late_rows == 1 else 'were'} sent past it all the same."
        )
    if run.still:
        return (
            "The channel is still, and every allocation is cut to fit the deadline before it is sent: zero violations "
            "are then true by construction and show nothing about the method."
        )
    return f"The channel ({run.fading or 'not recorded'}) was met in one block per row; violations were not counted."


def _terms(pairs: Mapping[str, str]) -> Markup:
    return tag("dl", *(join([tag("dt", name), tag("dd", text)]) for name, text in pairs.items()), class_="terms")
