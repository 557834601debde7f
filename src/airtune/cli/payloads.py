"""Commands about payloads and what goes into them: train, pack, list, unpack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from airtune.cli.options import Data, Model, Set, TaskName, overrides_of, seconds_of

Since = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option("--since", help="Payload of the adapter that the receiver holds; repeat it, the oldest first."),
]
Receiver = Annotated[
    str,
    typer.Option("--model", help="Base model: checks whose weights it is for, makes cores whole, opens short ones."),
]
Cores = Annotated[int, typer.Option("--cores", help="Of a short payload: as it was packed with.")]


Prefix = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--bytes", help="Use only the chunks within so many bytes."),
]


def inspect(
    file: Annotated[Path, typer.Argument(help="Payload (.atn).")],
    prefix: Prefix = None,
    since: Since = None,
    model: Annotated[str, typer.Option(help="Base model: checks whose weights it is for, opens short ones.")] = "",
    cores: Cores = 0,
) -> None:
    """List what a payload holds: site, rank, bits, share of its bytes; of the update, and how much rounding lost."""
    import airtune
    from airtune.cli.show import new_console, table

    info = airtune.inspect(file, prefix_bytes=prefix, since=since or (), model=model, core_size=cores)
    rows = [
        [_shown(s.name), f"{s.shape[0]} x {s.shape[1]}", s.rank, f"{s.bits:.3g}", s.bytes, f"{s.share:.1%}"]
        + ["" if found is None else f"{found:.2%}" for found in (s.update, s.error)]
        for s in info.sites
    ]
    rows += [
        [d.name, " x ".join(map(str, d.shape)), "", f"{d.bits:.3g}", d.bytes, f"{d.share:.1%}", "", ""]
        for d in info.dense
    ]
    columns = {
        "site": "left",
        "out x in": "right",
        "rank": "right",
        "bits": "right",
        "bytes": "right",
        "share": "right",
        "of the update": "right",
        "lost": "right",
    }
    console = new_console()
    console.print(
        table(f"{file}: {info.total_bytes} bytes, header {info.header_bytes}, {info.chunk_count} chunks", columns, rows)
    )
    console.print(
        f"For base model {info.binding.base_sha256[:12]}... ({info.meta.get('base_model', 'unnamed')})", highlight=False
    )
    if info.adapter:
        changes = f"; changes adapter {info.changes}" if info.changes else ""
        console.print(f"Gives adapter {info.adapter}{changes}", highlight=False)


def _shown(name: str) -> str:
    """A site's path; of a core without its checks (docs/payload.md)."""
    path, core, _ = name.partition(" core=svd check=")
    return f"{path} (core)" if core else path


def train(
    out: Annotated[Path, typer.Argument(help="New folder for the PEFT adapter.")],
    model: Model = "minilm",
    task: TaskName = "pydocs",
    data: Data = "",
    rank: Annotated[int, typer.Option(help="Rank of every site, or of its core.")] = 1,
    cores: Annotated[
        int, typer.Option(help="Train cores between so many singular vectors of each weight; 0 trains plain LoRA.")
    ] = 0,
    steps: Annotated[int, typer.Option(help="Steps of each training; 0 takes the default preset's.")] = 0,
    seed: Annotated[int, typer.Option(help="Draws the start and the batches.")] = 0,
    settings: Set = None,
) -> None:
    """Fine-tune an adapter of one rank for `pack`, its rate and scale chosen on dev."""
    import airtune
    from airtune.cli.show import Bars, new_console, table

    console = new_console()
    done = airtune.train(
        out,
        model=model,
        task=task,
        data=data,
        rank=rank,
        core_size=cores,
        steps=steps,
        seed=seed,
        overrides=overrides_of(settings, {}),
        progress=Bars(console),
    )
    rows = [
        [f"{one.learning_rate:.3g}", f"{one.alpha:.3g}", f"{one.dev_loss:.4f}", "chosen" if one == done.chosen else ""]
        for one in done.tried
    ]
    headings = {"learning rate": "right", "alpha": "right", "loss on dev, nat": "right", "": "left"}
    console.print(table("What was tried", headings, rows))
    score = f"accuracy {done.test.metric:.1%}" if done.test.hits is not None else f"perplexity {done.test.metric:.4g}"
    console.print(f"On test: loss {done.test.loss:.4f} nat, {score}", highlight=False)
    console.print(f"PEFT adapter: {done.folder}", highlight=False, markup=False)


def pack(
    peft_folder: Annotated[Path, typer.Argument(help="Folder of a PEFT LoRA adapter.")],
    out: Annotated[Path, typer.Argument(help="Payload to write (.atn).")],
    snr: Annotated[Optional[float], typer.Option(help="SNR in dB.")] = None,  # noqa: UP045
    bandwidth: Annotated[Optional[float], typer.Option(help="Bandwidth in Hz.")] = None,  # noqa: UP045
    deadline: Annotated[str, typer.Option(help="Deadline, in seconds: 1, 0.5s.")] = "1s",
    bits: Annotated[Optional[int], typer.Option(help="Bits on the air, instead of a link.")] = None,  # noqa: UP045
    model: Annotated[str, typer.Option(help="Base model; binds the payload to its weights.")] = "",
    task: Annotated[str, typer.Option(help="Task to measure how the loss bends on; needs --model.")] = "",
    data: Annotated[str, typer.Option(help="The task's data; needs --task.")] = "",
    since: Since = None,
    tune: Annotated[int, typer.Option(help="Steps of training on through the rounding; needs --task.")] = 0,
    cores: Annotated[
        int, typer.Option(help="Send cores between so many singular vectors of each weight; needs --model.")
    ] = 0,
    short: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--short/--whole",
            help="Leave out what unpack derives from --model, or not; cores are short if they can be.",
        ),
    ] = None,
    sites: Annotated[bool, typer.Option("--sites", help="Also list the loss to be expected of every site.")] = False,
) -> None:
    """Pack a plain PEFT LoRA adapter so that it arrives in time, at the least squared error or, with --task, loss."""
    import airtune
    from airtune.cli.show import Bars, new_console, table

    console = new_console()
    seconds = seconds_of(deadline)
    done = airtune.pack(
        peft_folder,
        out,
        budget_bits=bits,
        snr_db=snr,
        bandwidth_hz=bandwidth,
        deadline_s=seconds,
        model=model,
        task=task,
        data=data,
        since=since or (),
        tune_steps=tune,
        core_size=cores,
        short=short,
        progress=Bars(console),
    )
    for line in (
        f"{done.file}: {done.payload_bits / 1e3:.1f} kbit, {done.air_bits / 1e3:.1f} kbit on the air of "
        f"{done.budget_bits / 1e3:.1f}; {done.float32_bits / done.air_bits:.0f} times fewer than float32",
        (
            f"The receiver then has {done.total_rank} directions"
            if since
            else f"{done.total_rank} of {done.rank_before} directions"
        )
        + f", {done.numbers} numbers"
        + ("" if since else f" at {done.payload_bits / max(done.numbers, 1):.2f} bits")
        + ("" if task else f"; {done.kept:.1%} of the squared update arrives")
        + (f"; modules saved whole are off by {done.dense_error:.2%}" if done.dense_error else ""),
        *(
            [f"Loss on the task's test part: {done.loss:.4f} nat, {done.loss_before:.4f} before packing"]
            if done.loss is not None
            else []
        ),
        f"Bound to the base model's {done.bound_to}" + ("." if model else "; give --model to bind it to its weights."),
    ):
        console.print(line, highlight=False, markup=False)
    if sites:
        headings = {"site": "left", "sent": "right", "of": "right", "expected loss": "right"}
        rows = [[site.name, site.rank, site.rank_before, f"{site.expected_loss:.3g}"] for site in done.sites]
        unit = (
            "nat, by the curvature measured" if task else "half of the squared error; nothing says how the loss bends"
        )
        console.print(table(f"Expected loss in {unit}", headings, rows))


def unpack(
    file: Annotated[Path, typer.Argument(help="Payload (.atn).")],
    out_dir: Annotated[Path, typer.Argument(help="New folder for the PEFT adapter.")],
    prefix: Prefix = None,
    since: Since = None,
    model: Receiver = "",
    cores: Cores = 0,
) -> None:
    """Verify and decode a payload into a plain PEFT LoRA folder that any runtime loads."""
    import airtune

    done = airtune.unpack(file, out_dir, prefix_bytes=prefix, since=since or (), model=model, core_size=cores)
    print(f"PEFT adapter: {done}")
    if prefix is not None:
        found = airtune.inspect(file, prefix_bytes=prefix, since=since or (), model=model, core_size=cores)
        directions = sum(site.rank for site in found.sites)
        print(f"Of {found.chunk_count} chunks {found.chunks_received} arrived, with {directions} directions.")
    if not model:
        print("Whether it is for the weights you have was not checked; --model FOLDER does.")
