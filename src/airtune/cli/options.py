"""Options that several commands share, and how settings are read off the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Optional

import typer

from airtune.errors import ConfigError

Set = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads this at run time
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. --set adapter.max_rank=16. Repeatable."),
]
Model = Annotated[str, typer.Option(help="`minilm` (embedded), a folder in Hugging Face layout, or a hub name.")]
TaskName = Annotated[str, typer.Option("--task", help="pydocs (embedded), sst2, agnews, classify, text, or hub:NAME.")]
Data = Annotated[str, typer.Option(help="File or folder of the task's data.")]
Preset = Annotated[str, typer.Option(help="default (if not given), demo, tiny, cpu, cpu-sst2, cpu-paper or paper.")]
Seed = Annotated[Optional[int], typer.Option(help="Redraws adapter, calibration set, policy and channel.")]  # noqa: UP045
Snr = Annotated[str, typer.Option(help="Mean SNRs in dB, comma-separated: -5,0,5,10,15")]
Bandwidth = Annotated[str, typer.Option(help="Bandwidth in Hz; 0 asks for one at which there is a choice.")]
Deadline = Annotated[str, typer.Option(help="T_max, in seconds: 1, 0.5s, 200ms.")]
MethodName = Annotated[str, typer.Argument(help="airllm or pae_mobillm", show_default=False)]
MethodOption = Annotated[str, typer.Option("--method", help="The same, as an option.")]
Like = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="A run folder whose settings to serve, instead of options."),
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")]
UntilEof = Annotated[bool, typer.Option("--until-eof", help="Also stop when standard input closes.")]


def overrides_of(settings: list[str] | None, named: Mapping[str, object]) -> dict[str, object]:
    """`--set` options, and over them the options that have a name of their own, where given."""
    found: dict[str, object] = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not (equals and key):
            raise ConfigError(f"--set is {setting!r}; expected key=value such as adapter.max_rank=16")
        found[key] = value
    return found | {key: str(value) for key, value in named.items() if value not in ("", None)}


def seconds_of(text: str) -> float:
    """A duration such as ``1``, ``0.5s`` or ``200ms`` in seconds. Raises `ConfigError` for anything else."""
    number, unit = (text[:-2], 1e-3) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"a deadline is {text!r}; give a time above 0 such as 1s, 0.5 or 200ms")
    return seconds
