"""The methods there are: a plain table, nothing registers itself by being imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from airtune.errors import ConfigError
from airtune.methods.airllm.building import check_machine as airllm_check_machine
from airtune.methods.airllm.building import edge_role as airllm_edge
from airtune.methods.airllm.cells import KINDS as AIRLLM_KINDS
from airtune.methods.airllm.config import config_from as airllm_config_from
from airtune.methods.airllm.config import load_config as airllm_config
from airtune.methods.airllm.method import run as airllm_run
from airtune.methods.airllm.plan import plan as airllm_plan
from airtune.methods.pae_mobillm.building import check_machine as pae_check_machine
from airtune.methods.pae_mobillm.building import server_role as pae_server
from airtune.methods.pae_mobillm.cells import KINDS as PAE_KINDS
from airtune.methods.pae_mobillm.config import config_from as pae_config_from
from airtune.methods.pae_mobillm.config import load_config as pae_config
from airtune.methods.pae_mobillm.forgetting import forget as pae_forget
from airtune.methods.pae_mobillm.method import run as pae_run
from airtune.records import Progress, RunFolder
from airtune.records.cells import Kind
from airtune.transport import Idempotent, Role, Transport


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """How a method is configured, run on its one side, and answered on the other."""

    summary: str
    load_config: Callable[[str, Mapping[str, object]], Any]
    """Preset and overrides to a validated config."""
    config_from: Callable[[Mapping[str, Any]], Any]
    """A recorded config back to a validated one."""
    check_machine: Callable[[Any], None]
    """Refuses what this machine cannot run, before anything is started."""
    run: Callable[[Any, RunFolder, Transport, Progress], dict[str, Any]]
    """The side that acts; the transport reaches the other."""
    peer: Literal["edge", "cloud"]
    """Which role the other side is."""
    peer_role: Callable[[Any, Path], Role]
    """Made of a config and a folder for what has to survive it."""
    peer_url: Callable[[Any], str]
    """Where a config says that the other side runs; empty to start it."""
    plan: Callable[[Any, Sequence[Mapping[str, Any]]], Any] | None = None
    """What its links have room for, beside the summaries of earlier runs."""
    kinds: Mapping[str, Kind] | None = None
    """What its studies are made of."""
    forget: Callable[[Any, RunFolder, Transport, Sequence[str] | Path | None, Progress], Any] | None = None
    """Has the other side forget texts that a run sent it, or with None all that it holds; what it held."""
    on_a_device: tuple[str, ...] = ()
    """Settings, as `--set` takes them, that hold where the acting side is a device of its own."""


METHODS: Mapping[str, MethodEntry] = {
    "airllm": MethodEntry(
        "rank of every site by PPO and a conditional DDIM, for the channel and the data",
        airllm_config,
        airllm_config_from,
        airllm_check_machine,
        airllm_run,
        "edge",
        lambda config, folder: Idempotent(airllm_edge(config)),
        lambda config: str(config.edge.url),
        airllm_plan,
        AIRLLM_KINDS,
    ),
    "pae_mobillm": MethodEntry(
        "a device sends each sample's hidden states once; a server trains a side network on them",
        pae_config,
        pae_config_from,
        pae_check_machine,
        pae_run,
        "cloud",
        pae_server,
        lambda config: str(config.server.url),
        kinds=PAE_KINDS,
        forget=pae_forget,
        on_a_device=("report.probe=false", "report.attacks=false"),
    ),
}


def method_entry(name: str) -> MethodEntry:
    """Look a method up. Raises `ConfigError` that lists what there is."""
    if name not in METHODS:
        raise ConfigError(f"method is {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
