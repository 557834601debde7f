"""`airtune plan`: what a link has room for before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from airtune.cli.options import Bandwidth, Data, Deadline, Model, Preset, Set, Snr, TaskName, overrides_of


def plan(
    preset: Preset = "",
    model: Model = "",
    task: TaskName = "",
    data: Data = "",
    snr: Snr = "",
    bandwidth: Bandwidth = "",
    deadline: Deadline = "",
    known: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer reads this at run time
        typer.Option(help="Finished run folder of the same model and task, whose losses stand beside. Repeatable."),
    ] = None,
    settings: Set = None,
) -> None:
    """Show before any training what ranks, bits and airtime a link has room for, by SNR."""
    import airtune
    from airtune.cli.show import new_console, table

    named = {
        "model.name": model,
        "task.name": task,
        "task.data": data,
        "link.snrs_db": snr,
        "link.bandwidth_hz": bandwidth,
        "link.deadline_s": deadline,
    }
    found = airtune.plan(preset=preset, overrides=overrides_of(settings, named), known=known or [])
    console = new_console()
    full = f"{found.full_rank} directions at {found.sites} sites, {found.full_bits / 1e3:.1f} kbit on the air"
    console.print(f"Full adapter: {full}; head and container alone {found.least_bits / 1e3:.1f} kbit.", highlight=False)
    console.print(f"Bandwidth {found.rows[0].bandwidth_hz / 1e3:.1f} kHz: {found.bandwidth_reason}.", highlight=False)
    headings = ["SNR dB", "kbit by deadline", "rank everywhere", "total rank", "kbit on air", "airtime ms"]
    rows = []
    for row in found.rows:
        fits: tuple[object, ...] = ("-", "-", "-", f"{1e3 * row.least_airtime_s:.0f} for the head alone")
        if row.air_bits is not None and row.airtime_s is not None:
            fits = (row.uniform_rank, row.total_rank, f"{row.air_bits / 1e3:.1f}", f"{1e3 * row.airtime_s:.1f}")
        loss = "not known" if row.loss is None else f"{row.loss:.4f} ({row.known_from})"
        rows.append([f"{row.snr_db:g}", f"{row.budget_bits / 1e3:.1f}", *fits, loss])
    columns = dict.fromkeys(headings, "right") | {"loss, nat": "left"}
    console.print(table(f"{found.model}: room by SNR", columns, rows))
    if not known:
        console.print("Losses are known after training; --known RUN lets those of an earlier run stand beside.")
