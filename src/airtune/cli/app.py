"""Commands: each parses options, makes one call, prints. Heavy libraries load inside the command that needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from airtune.cli.options import Set, overrides_of, seconds_of
from airtune.cli.payloads import inspect, pack, train, unpack
from airtune.cli.planning import decide, plan
from airtune.cli.running import cloud, edge, forget, run
from airtune.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune in the cloud, choose ranks for the channel, send the adapter in time, apply it at the edge.",
)


app.command()(run)
app.command()(edge)
app.command()(cloud)
app.command()(forget)
app.command()(plan)
app.command()(decide)
app.command()(train)
app.command()(pack)
app.command()(unpack)
app.command()(inspect)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are compared on one page.")],
    out: Annotated[Path, typer.Option(help="Where a comparison goes.")] = Path("comparison.html"),
) -> None:
    """Write the report page of a run again, or one page that compares several."""
    import airtune

    print(f"Report: {airtune.report(*runs, out=out)}")


@app.command()
def link(
    snr: Annotated[str, typer.Option(help="Mean SNRs in dB, comma-separated.")] = "-5,0,5,10,15",
    bandwidth: Annotated[float, typer.Option(help="Bandwidth in Hz.")] = 100e6,
    deadline: Annotated[str, typer.Option(help="Deadline, in seconds: 1, 0.5s, 200ms.")] = "1s",
    fading: Annotated[str, typer.Option(help="still, rayleigh, rician, nakagami or trace.")] = "still",
    k_factor: Annotated[float, typer.Option(help="Rician K, linear.")] = 4.0,
    m: Annotated[float, typer.Option(help="Nakagami m.")] = 2.0,
    trace: Annotated[Optional[Path], typer.Option(help="CSV with a column of SNRs in dB.")] = None,  # noqa: UP045
    gap: Annotated[float, typer.Option(help="Efficiency gap to Shannon's rate in dB.")] = 0.0,
) -> None:
    """Show what a link carries: rates and the bits that fit the deadline, by SNR."""
    from airtune.cli.show import new_console, table
    from airtune.links import Link, describe, make_fading

    seconds = seconds_of(deadline)
    try:
        snrs_db = [float(part) for part in snr.split(",")]
    except ValueError:
        raise ConfigError(f"--snr is {snr!r}; expected comma-separated numbers such as -5,0,5") from None
    options: dict[str, object] = {"rician": {"k_factor": k_factor}, "nakagami": {"m": m}, "trace": {"path": trace}}.get(
        fading, {}
    )  # type: ignore[assignment]
    if fading == "trace" and trace is None:
        raise ConfigError("--fading trace needs --trace FILE; give a CSV with a column of SNRs in dB")
    faded = make_fading(fading, **options)
    rows = describe([Link(bandwidth, value, faded, gap) for value in snrs_db], seconds)
    headings = ["SNR dB", "still Mbit/s", "ergodic Mbit/s", "1 % outage", "10 % outage", "Mbit by deadline"]
    shown = [
        [
            f"{r.snr_db:g}",
            *(f"{rate / 1e6:.3f}" for rate in (r.still_bps, r.ergodic_bps, r.outage_1_bps, r.outage_10_bps)),
            f"{r.deadline_bits / 1e6:.3f}",
        ]
        for r in rows
    ]
    new_console().print(
        table(f"{bandwidth / 1e6:g} MHz, {fading}, deadline {seconds:g} s", dict.fromkeys(headings, "right"), shown)
    )


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="table3, fig3, ...; an unknown name lists them.")],
    method: Annotated[str, typer.Option(help="airllm or pae_mobillm")] = "airllm",
    preset: Annotated[str, typer.Option(help="cpu, full or tiny; of airllm cpu-sst2 too.")] = "cpu",
    model: Annotated[str, typer.Option(help="Model of a workload without its own: a folder or hub name.")] = "",
    data: Annotated[str, typer.Option(help="File or folder of the workload's data.")] = "",
    workload: Annotated[
        str, typer.Option(help="What it runs on, by the method: decoder, sst2, embedded; sst2, agnews, embedded.")
    ] = "",
    out: Annotated[Optional[Path], typer.Option(help="Folder for results; runs/studies/NAME if not given.")] = None,  # noqa: UP045
    store: Annotated[Path, typer.Option(help="Folder of the cells that studies share.")] = Path("runs/studies/cells"),
    jobs: Annotated[Optional[int], typer.Option(help="Cells computed at once; one per processor if not given.")] = None,  # noqa: UP045
    settings: Set = None,
) -> None:
    """Repeat a table or figure of the paper over seeds; go on where an interrupted study stopped."""
    from airtune.cli.show import Bars, new_console
    from airtune.services import run_method_study

    console = new_console()
    done = run_method_study(
        method,
        name,
        preset=preset,
        overrides=overrides_of(settings, {}),
        model=model,
        data=data,
        workload=workload,
        out=out or Path("runs/studies") / name,
        store=store,
        jobs=jobs,
        progress=Bars(console),
    )
    for line in done.failed:
        console.print(f"Failed: {line}", highlight=False, markup=False)
    console.print(f"Page: {done.page}", highlight=False, markup=False)
    if done.failed:
        raise typer.Exit(1)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="decision, env, ...; an unknown name lists them.")],
    out: Annotated[Path, typer.Option(help="Folder that takes NAME.json.")] = Path("benchmarks/results"),
    repeats: Annotated[Optional[int], typer.Option(help="Repeats that medians are taken over.")] = None,  # noqa: UP045
) -> None:
    """Measure rivals side by side; end with 1 where a ratio misses what was asked of it."""
    from airtune.benches import run_bench
    from airtune.cli.show import Bars, bench_tables, new_console

    console = new_console()
    measured, file = run_bench(name, out=out, repeats=repeats, progress=Bars(console))
    for shown in bench_tables(name, measured.rows, measured.ratios):
        console.print(shown)
    for note in measured.notes:
        console.print(f"Note: {note}", highlight=False, markup=False)
    console.print(f"JSON: {file}", highlight=False, markup=False)
    if not measured.holds:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Check what this machine can run: packages, devices, the embedded model and task."""
    from airtune.cli.doctor import findings
    from airtune.cli.show import new_console, table

    rows = [[name, "ok" if good else "missing", line] for name, good, line in findings()]
    new_console().print(table("airtune doctor", {"what": "left", "": "left", "found": "left"}, rows))
    if not all(row[1] == "ok" for row in rows):
        raise typer.Exit(1)
