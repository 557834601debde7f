"""One folder per run: what was in force, what was measured, what it cost, what came out.

| entry            | content                                                                   |
|------------------|---------------------------------------------------------------------------|
| `config.toml`    | every setting in force, and under ``versions`` the software               |
| `metrics.jsonl`  | one line per measurement, as it is made                                   |
| `ledger.jsonl`   | one line per booked cost                                                  |
| `summary.json`   | the result; there only once the run has finished                          |
| `figures/` `adapter/` `payloads/` `payload.atn` `report.html` | written by others, where there is any  |
| `sent.json`      | what a device's samples are sent under (pae_mobillm)                      |
| `side.safetensors` | the side network that a device got (pae_mobillm)                        |
| `run.lock`       | there while a process writes                                              |

The folder knows nothing of methods, and not what a metric's name means.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, final

import tomli_w

from airtune.errors import RunError
from airtune.ledger import Ledger
from airtune.records.atomic import PARTIAL_SUFFIX, append_line, write_text
from airtune.records.differences import differences
from airtune.records.lock import Lock
from airtune.records.plain import for_toml, json_text
from airtune.records.rows import read_rows
from airtune.records.versions import versions_in_force

_LOCK: Final = "run.lock"
_VERSIONS: Final = "versions"
_METRIC: Final = "metric"
_NAMED_DIFFERENCES: Final = 3


@final
class RunFolder:
    """A run on disk, made by `create`, `resume` (both may write, one process at a time) or `open` (reads only).

    JSON in it never holds NaN or Infinity; such numbers are written as null.

    Example:
        >>> with RunFolder.create(Path("runs/first"), {"seed": 0}) as run:  # doctest: +SKIP
        ...     run.metric("loss", step=1, value=0.7)
        ...     run.write_summary({"seed": 0, "rows": []})
    """

    def __init__(self, path: Path, lock: Lock | None) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> RunFolder:
        """Start a run in a new or empty folder.

        Args:
            path: The folder; folders above it are made.
            config: Every setting in force; may be nested. Paths become text, tuples lists, None is left out.

        Raises:
            RunError: the folder is not empty, is being written, cannot be written, or a setting cannot be recorded.
        """
        settings = for_toml(config)
        if _VERSIONS in settings:
            raise RunError(f"config holds the key {_VERSIONS}, which records the software in force; rename it")
        try:
            path.mkdir(parents=True, exist_ok=True)
            _refuse_content(path)
            lock = Lock(path / _LOCK)
        except OSError as error:
            raise RunError(f"cannot make the run folder {path} ({error}); choose another --out") from error
        try:
            _refuse_content(path)  # once more: another process may have used the folder before it was locked
            write_text(path / "config.toml", tomli_w.dumps({**settings, _VERSIONS: versions_in_force()}))
        except BaseException:
            lock.release()
            raise
        return cls(path, lock)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Read a run. Raises `RunError` where there is no readable ``config.toml``."""
        run = cls(path, None)
        run._read_config()
        return run

    @classmethod
    def resume(cls, path: Path, config: Mapping[str, Any]) -> RunFolder:
        """Go on with a run that was interrupted. Software that changed meanwhile is recorded as metric ``versions``.

        Raises:
            RunError: no run is there, it was started with other settings, or a living process writes it.
        """
        run = cls.open(path)
        changes = differences(run.config, for_toml(config))
        if changes:
            more = len(changes) - _NAMED_DIFFERENCES
            named = ", ".join(changes[:_NAMED_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
            raise RunError(
                f"{path} was started with other settings: {named}; repeat the recorded ones or choose another --out"
            )
        run._lock = Lock(path / _LOCK)
        for leftover in path.rglob(f".*{PARTIAL_SUFFIX}"):
            with suppress(OSError):
                leftover.unlink()
        now = versions_in_force()
        changed = {name: value for name, value in now.items() if run.versions.get(name) != value}
        if changed:
            run.metric("versions", **changed)
        return run

    def take_back(self, *others: str) -> None:
        """Empty a folder that holds nothing but what `create` wrote and the files named, for another `create`.

        So a run that was refused before it did anything does not stand in the way of the next; any other stays.
        """
        path = self._writable("config.toml")
        if {entry.name for entry in self.path.iterdir()} <= {path.name, _LOCK, *others}:
            for name in (path.name, *others):
                (self.path / name).unlink(missing_ok=True)

    @property
    def config(self) -> dict[str, Any]:
        """The recorded settings, without the versions."""
        return {key: value for key, value in self._read_config().items() if key != _VERSIONS}

    @property
    def versions(self) -> dict[str, str | int]:
        """The software the run was started with; see `versions_in_force`."""
        versions: dict[str, str | int] = self._read_config().get(_VERSIONS, {})
        return versions

    def metric(self, name: str, /, **values: Any) -> None:
        """Append one measurement. Raises `RunError` where a value is called ``metric`` or cannot be recorded."""
        if _METRIC in values:
            raise RunError(f"metric {name} has a value called {_METRIC}, which holds its name; rename the value")
        append_line(self._writable("metrics.jsonl"), json_text({_METRIC: name, **values}))

    def read_metrics(self, name: str) -> list[dict[str, Any]]:
        """The measurements of one name, oldest first, without the name. Raises `RunError` for a damaged line."""
        rows = read_rows(self.path / "metrics.jsonl")
        return [{key: row[key] for key in row if key != _METRIC} for row in rows if row.get(_METRIC) == name]

    def write_ledger(self, ledger: Ledger) -> None:
        """Record all costs booked so far, in place of those recorded before."""
        lines = [json_text(row) + "\n" for row in ledger.rows()]
        write_text(self._writable("ledger.jsonl"), "".join(lines))

    def read_ledger(self) -> Ledger:
        """The recorded costs; none where none were recorded. Raises `RunError` for a damaged line."""
        ledger = Ledger()
        for row in read_rows(self.path / "ledger.jsonl"):
            try:
                ledger.book(**row)
            except TypeError:
                raise RunError(
                    f"{self.path / 'ledger.jsonl'} holds an entry that is no cost; delete that line"
                ) from None
        return ledger

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Record the result; its presence says that the run has finished."""
        write_text(self._writable("summary.json"), json_text(summary, indent=2) + "\n")

    def read_summary(self) -> dict[str, Any]:
        """The result. Raises `RunError` where the run has not finished, or the file is damaged."""
        path = self.path / "summary.json"
        if not self.finished:
            raise RunError(f"{path} is missing: the run has not finished; go on with it by --resume")
        try:
            summary = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read as JSON ({error}); repeat the run") from None
        if not isinstance(summary, dict):
            raise RunError(f"{path} holds a {type(summary).__name__}, a JSON object expected; repeat the run")
        return summary

    @property
    def finished(self) -> bool:
        """Whether the run has written its result."""
        return (self.path / "summary.json").is_file()

    @property
    def figures(self) -> Path:
        """Folder of the figures; whoever writes the first one makes it."""
        return self.path / "figures"

    @property
    def adapter(self) -> Path:
        """Folder of the unconstrained adapter in PEFT's format; whoever writes it makes it."""
        return self.path / "adapter"

    @property
    def payload(self) -> Path:
        """The payload at the highest SNR."""
        return self.path / "payload.atn"

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.path / "report.html"

    def payload_at(self, allocator: str, snr_db: float) -> Path:
        """The payload of one allocator at one SNR, such as ``payloads/uniform_-5.atn``."""
        return self.path / "payloads" / f"{allocator}_{snr_db:g}.atn"

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writable(self, name: str) -> Path:
        if self._lock is None or not self._lock.held:
            raise RunError(f"{self.path} is open for reading, so {name} is not written; use RunFolder.resume")
        return self.path / name

    def _read_config(self) -> dict[str, Any]:
        path = self.path / "config.toml"
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{self.path} holds no config.toml, so it is no run folder; give the --out of a run"
            ) from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read as TOML ({error}); restore it or start the run again") from None


def _refuse_content(path: Path) -> None:
    found = sorted(entry.name for entry in path.iterdir() if entry.name != _LOCK)
    if found:
        line = f"{path} holds {len(found)} entries ({found[0]} ...), an empty or new folder expected"
        raise RunError(f"{line}; choose another --out, or --resume to go on with the run there")
