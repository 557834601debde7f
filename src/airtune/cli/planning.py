"""`airtune plan` and `airtune decide`: what a link has room for, and what a trained policy would send over it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from airtune.cli.options import Bandwidth, Data, Deadline, Model, Preset, Set, Snr, TaskName, overrides_of, seconds_of


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
        "link.deadline_s": seconds_of(deadline) if deadline else "",
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


def decide(
    snr: Annotated[float, typer.Option(help="SNR of the block in dB.")],
    bandwidth: Annotated[float, typer.Option(help="Bandwidth in Hz.")],
    deadline: Annotated[str, typer.Option(help="T_max: 1, 0.5s, 200ms; the policy's own if not given.")] = "",
    policy: Annotated[
        str, typer.Option(help="Folder of a saved policy or of a run; the one for minilm if not given.")
    ] = "",
    entropy: Annotated[Optional[float], typer.Option(help="Lexical entropy H of the data in bits.")] = None,  # noqa: UP045
    oov: Annotated[Optional[float], typer.Option(help="Out-of-vocabulary rate rho of the data.")] = None,  # noqa: UP045
) -> None:
    """Decide the rank of every site for a channel state, by a trained policy."""
    import airtune
    from airtune.cli.show import new_console, table

    deadline_s = seconds_of(deadline) if deadline else None
    found = airtune.decide(snr, bandwidth, policy=policy, deadline_s=deadline_s, entropy_bits=entropy, oov_rate=oov)
    rank_at = dict(zip(found.modules, found.ranks.ranks, strict=True))
    kinds = list(dict.fromkeys(kind for _, kind in found.modules))
    rows = [
        [layer, *(rank_at.get((layer, kind), "") for kind in kinds)]
        for layer in sorted({layer for layer, _ in rank_at})
    ]
    console = new_console()
    console.print(table("Rank by layer and module", dict.fromkeys(["layer", *kinds], "right"), rows))
    room = f"{found.air_bits / 1e3:.1f} of {found.budget_bits / 1e3:.1f} kbit"
    console.print(
        f"Total rank {found.ranks.total}: {room} on the air, "
        f"{1e3 * found.airtime_s:.1f} of {1e3 * found.deadline_s:g} ms; "
        f"asked for {found.asked_air_bits / 1e3:.1f} kbit before projection.",
        highlight=False,
    )
    trained = found.trained_on
    snrs = f"{min(trained.snrs_db):g} to {max(trained.snrs_db):g} dB"
    widths = f"{min(trained.bandwidths_hz) / 1e3:g} to {max(trained.bandwidths_hz) / 1e3:g} kHz"
    inside = (
        min(values) <= asked <= max(values)
        for values, asked in ((trained.snrs_db, snr), (trained.bandwidths_hz, bandwidth))
    )
    guesses = "" if all(inside) else " This link is outside of that: the policy guesses."
    trained_for = f"Policy trained for {trained.model} on {trained.task}, at {snrs} and {widths}."
    console.print(trained_for + guesses, highlight=False, markup=False)
