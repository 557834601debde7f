"""Commands that run a method, or serve its other side."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from airtune.cli.options import (
    Bandwidth,
    Data,
    Deadline,
    Host,
    Like,
    MethodName,
    MethodOption,
    Model,
    Port,
    Preset,
    Seed,
    Set,
    Snr,
    TaskName,
    UntilEof,
    overrides_of,
    seconds_of,
)
from airtune.errors import ConfigError


def run(
    method: Annotated[str, typer.Argument(help="airllm or pae_mobillm")],
    preset: Preset = "",
    model: Model = "",
    task: TaskName = "",
    data: Data = "",
    snr: Snr = "",
    bandwidth: Bandwidth = "",
    deadline: Deadline = "",
    seed: Seed = None,
    edge: Annotated[str, typer.Option(help="Address of a running `airtune edge`; empty starts one here.")] = "",
    cloud: Annotated[str, typer.Option(help="Address of a running `airtune cloud`; empty starts one here.")] = "",
    out: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads this at run time
        typer.Option(help="Run folder to write, new or empty; runs/METHOD if not given."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False,
    settings: Set = None,
) -> None:
    """Run a method from fine-tuning to scores at the edge; write a run folder with its report."""
    import airtune
    from airtune.cli.show import Bars, new_console
    from airtune.reports import result_tables

    console, out = new_console(), out or Path("runs") / method
    named = {
        "model.name": model,
        "task.name": task,
        "task.data": data,
        "link.snrs_db": snr,
        "link.bandwidth_hz": bandwidth,
        "link.deadline_s": seconds_of(deadline) if deadline else "",
        "seed": seed,
        "edge.url": edge,
        "server.url": cloud,
    }
    overrides = overrides_of(settings, named)
    if resume:
        _refuse_settings("--resume goes on under", preset, overrides)
    summary = airtune.run(method, preset=preset, overrides=overrides, out=out, resume=resume, progress=Bars(console))
    for shown in result_tables(out):
        console.print(shown)
    for note in summary.get("notes", []):
        console.print(f"Note: {note}", highlight=False, markup=False)
    console.print(f"Report: {out / 'report.html'}", highlight=False, markup=False)


def edge(
    method: MethodName = "",
    named: MethodOption = "",
    like: Like = None,
    preset: Preset = "",
    model: Model = "",
    task: TaskName = "",
    data: Data = "",
    seed: Seed = None,
    cloud: Annotated[str, typer.Option(help="Address of the cloud, for a method that runs on the device.")] = "",
    out: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads this at run time
        typer.Option(help="Run folder of a method that runs on the device; runs/METHOD if not given."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in --out, on the device.")
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = 8700,
    until_eof: UntilEof = False,
    settings: Set = None,
) -> None:
    """Be the device: serve what a cloud asks of it (airllm), or run on it beside a cloud (pae_mobillm --cloud URL)."""
    from airtune.services import method_entry

    method = _method(method, named)
    if method_entry(method).peer != "edge":
        if like is not None:
            raise ConfigError(f"{method} runs on the device and serves nobody; leave --like out, give --cloud URL")
        if not (cloud or resume):
            raise ConfigError(f"{method} runs on the device, beside a cloud; give --cloud URL of an `airtune cloud`")
        if not resume:  # which goes on under the recorded ones
            settings = [*method_entry(method).on_a_device, *(settings or [])]
        run(method, preset, model, task, data, seed=seed, cloud=cloud, out=out, resume=resume, settings=settings)
        return
    if resume:
        raise ConfigError(f"{method} serves on the device and has nothing to go on with; leave --resume out")
    named_settings = {"model.name": model, "task.name": task, "task.data": data, "seed": seed}
    chosen = _chosen(method, like, preset, overrides_of(settings, named_settings))
    _serve(method, chosen, like or Path("runs") / method, host, port, until_eof)


def cloud(
    method: MethodName = "",
    named: MethodOption = "",
    like: Like = None,
    preset: Preset = "",
    store: Annotated[Path, typer.Option(help="Folder for what the cloud keeps.")] = Path("runs/cloud"),
    host: Host = "127.0.0.1",
    port: Port = 8701,
    until_eof: UntilEof = False,
    settings: Set = None,
) -> None:
    """Be the server of a method that runs on devices (pae_mobillm): cache what they send, train on it."""
    from airtune.services import method_entry

    method = _method(method, named)
    if method_entry(method).peer != "cloud":
        raise ConfigError(
            f"{method} runs in the cloud itself; take airtune run {method}, with --edge URL of its device"
        )
    _serve(method, _chosen(method, like, preset, overrides_of(settings, {})), like or store, host, port, until_eof)


def forget(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The device's run folder.")],
    file: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads this at run time
        typer.Argument(help="Texts to forget: a table like the task's, or one text a line."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Forget all that the cloud holds of the run.")] = False,
    method: Annotated[str, typer.Option(help="pae_mobillm")] = "pae_mobillm",
) -> None:
    """Have the cloud forget samples that a run sent it; what was learned from them stays. Exits 1 if it had none."""
    import airtune
    from airtune.cli.show import Bars, new_console

    console = new_console()
    found = airtune.forget(folder, file=file, everything=everything, method=method, progress=Bars(console))
    for text in found.absent:
        console.print(f"Not there: {text}", highlight=False, markup=False, overflow="ellipsis", no_wrap=True)
    what = "samples of this run" if everything else "samples of these texts"
    console.print(f"The cloud held {found.held:,} {what} and holds none of them now.", highlight=False)
    if not (found.held or everything):
        raise typer.Exit(1)


def _method(positional: str, option: str) -> str:
    """The method, which may be named either way."""
    if bool(positional) == bool(option):
        raise ConfigError(f"the method is {positional or 'not given'}{option and f' and {option}'}; name it once")
    return positional or option


def _chosen(method: str, like: Path | None, preset: str, overrides: dict[str, object]) -> Any:
    """The settings to serve: those of a run folder, or of options."""
    from airtune.records import RunFolder
    from airtune.services import method_entry

    entry = method_entry(method)
    if like is None:
        return entry.load_config(preset or "default", overrides)
    _refuse_settings("--like serves", preset, overrides)
    return entry.config_from(RunFolder.open(like).config)


def _serve(method: str, config: Any, folder: Path, host: str, port: int, until_eof: bool) -> None:
    from airtune.services import serve_peer

    say = partial(print, flush=True)
    serve_peer(method, config, folder, host=host, port=port, say=say, until_eof=until_eof)


def _refuse_settings(why: str, preset: str, overrides: dict[str, object]) -> None:
    given = ["preset"] * bool(preset) + list(overrides)
    if given:
        raise ConfigError(f"{why} the settings recorded in the run folder, but {given[0]} was given; leave it out")
