"""Run a method: make the run folder, reach or start its other role, run, report; have what was sent forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airtune.errors import ConfigError, DataError, LinkError, ModelError, TransportError
from airtune.records import Progress, RunFolder, Silent
from airtune.reports import write_report
from airtune.services.catalog import MethodEntry, method_entry
from airtune.services.peer import REQUEST_TIMEOUT_S, PeerProcess
from airtune.transport import Http


def run_method(
    method: str, *, preset: str, overrides: Mapping[str, object], out: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Run a method into a new folder and write its report; return its summary.

    Settings, data or a model that are refused before anything is done leave the folder empty.
    """
    entry = method_entry(method)
    config = entry.load_config(preset, overrides)
    entry.check_machine(config)
    with RunFolder.create(out, config.as_dict()) as folder:
        try:
            return _run(method, entry, config, folder, progress or Silent())
        except (ConfigError, DataError, LinkError, ModelError, TransportError):
            folder.take_back(log_of(entry))
            raise


def resume_method(method: str, *, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Go on with an interrupted run under its recorded settings; a finished one is reported again, not repeated."""
    entry = method_entry(method)
    found = RunFolder.open(out)
    if found.finished:
        write_report(out)
        return found.read_summary()
    config = entry.config_from(found.config)
    entry.check_machine(config)
    with RunFolder.resume(out, config.as_dict()) as folder:
        return _run(method, entry, config, folder, progress or Silent())


def forget_samples(
    method: str, *, run: Path, texts: Sequence[str] | Path | None, progress: Progress | None = None
) -> Any:
    """Have the other side forget what a run sent it; return what it held, as the method tells it.

    Args:
        texts: As they stand in the data, or a file of them: a table like the task's, or one text a line. None: all.

    Raises:
        ConfigError: the method's other side keeps no samples. Else as `run_method`.
    """
    entry = method_entry(method)
    if entry.forget is None:
        raise ConfigError(f"{method} leaves no samples with its {entry.peer}; there is nothing to forget")
    found = RunFolder.open(run)
    config = entry.config_from(found.config)
    entry.check_machine(config)
    with (
        RunFolder.resume(run, config.as_dict()) as folder,
        _peer(method, entry, config, folder, progress or Silent()) as peer,
    ):
        return entry.forget(config, folder, peer, texts, progress or Silent())


def _run(method: str, entry: MethodEntry, config: Any, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    with _peer(method, entry, config, folder, progress) as peer:
        summary = entry.run(config, folder, peer, progress)
    write_report(folder.path)
    return summary


def _peer(method: str, entry: MethodEntry, config: Any, folder: RunFolder, progress: Progress) -> Http | PeerProcess:
    if url := entry.peer_url(config):
        return Http(url, timeout_s=REQUEST_TIMEOUT_S)
    progress.say(f"Starting the {entry.peer} in its own process.")
    return PeerProcess(method, folder.path, folder.path / log_of(entry))


def log_of(entry: MethodEntry) -> str:
    """What the other role's process says, in the run folder."""
    return f"{entry.peer}.log"
