"""Cells of a study: one costly result, named by the hash of all it depends on, kept whole or redone.

| entry of a cell's folder | content                                                                           |
|--------------------------|-----------------------------------------------------------------------------------|
| `cell.json`              | settings, values, seconds, machine, hashes of the files, and a hash over all this |
| `items.safetensors`      | outcomes of single items, where a value is a mean over items                      |
| `work/`                  | what is computed on; in the end the files that others need, hashed                |
| `cell.lock`              | there while a process computes                                                    |

A cell is trusted only if every hash is right and the libraries that compute are those of now. The room of methods
makes kinds, the room of studies runs them.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from airtune.errors import RunError
from airtune.records.atomic import write_bytes, write_text
from airtune.records.plain import canonical_json, json_text
from airtune.records.versions import versions_in_force

_ITEMS: Final = "items.safetensors"
_RESULT: Final = "cell.json"
_COMPUTING: Final = ("torch", "transformers", "peft", "numpy", "stable-baselines3")
"""Packages whose version may change numbers."""


class DamagedCell(RunError):
    """A cell whose bytes are not those that were written, or not of this software: to be redone, not trusted."""


@dataclass(frozen=True, slots=True)
class Value:
    """One number of a cell: what, at which x (an SNR, a step), of whom (an allocator), where (a site, an input)."""

    measure: str
    value: float
    x: float | None = None
    of: str = ""
    at: str = ""

    @property
    def item_name(self) -> str:
        """Under which name the outcomes of single items are kept whose mean this value is."""
        return "/".join([self.measure, self.of, "" if self.x is None else f"{self.x:g}"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What computing a cell gives.

    Args:
        values: Its numbers, all finite.
        files: Files in the work folder that other cells read.
        items: Outcomes of single items by `Value.item_name`, shape ``(items,)`` each.
    """

    values: tuple[Value, ...]
    files: tuple[str, ...] = ()
    items: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A cell on disk, checked."""

    folder: Path
    values: tuple[Value, ...]
    seconds: float
    machine: Mapping[str, str | int] = field(default_factory=dict)
    """Software and platform that computed it."""

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @cached_property
    def items(self) -> dict[str, np.ndarray]:
        """Outcomes of single items by `Value.item_name`; none where the cell has none."""
        path = self.folder / _ITEMS
        return load(path.read_bytes()) if path.exists() else {}


Compute = Callable[[Mapping[str, Any], Path, Mapping[str, Done]], Outcome]
"""Settings, an own work folder (kept after an interruption), and the cells needed, by name, to an outcome."""


def kind_of(name: str) -> str:
    """The kind of a needed cell from its name (see `Kind.also`)."""
    return name.split(" ")[0]


def nothing_else(settings: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """What most kinds read under settings other than their own."""
    return {}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of cell.

    Args:
        name: Also the name of its folder.
        version: Raised when the computation changes, so that old results are not taken for new ones.
        needs: Kinds whose cells it reads, under the same settings.
        depends_on: The part of the settings that the result depends on, paths replaced by what they hold.
        compute: At the top level of a module: other processes find it by name.
        alone: Nothing else of the study may run beside it, because it takes times.
        also: From the settings, those of cells that it reads under other ones, by name: a kind, or a kind, a blank and
            what tells this cell of it from the others.
    """

    name: str
    version: int
    needs: tuple[str, ...]
    depends_on: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    compute: Compute
    alone: bool = False
    also: Callable[[Mapping[str, Any]], Mapping[str, Mapping[str, Any]]] = nothing_else

    def key(self, settings: Mapping[str, Any], needed: Mapping[str, str]) -> str:
        """SHA-256 over kind, version, settings it depends on, and the keys of the cells it needs."""
        question = [self.name, self.version, self.depends_on(settings), dict(needed)]
        return hashlib.sha256(canonical_json(question).encode()).hexdigest()


@final
class CellStore:
    """Cells in one folder, by kind and key; several processes may share it (see `lock`)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:20]

    def holds(self, kind: str, key: str) -> bool:
        """Whether a result is there, unchecked."""
        return (self.folder(kind, key) / _RESULT).exists()

    def read(self, kind: str, key: str) -> Done:
        """A finished cell, every hash checked. Raises `DamagedCell` where one is wrong or a file is missing."""
        folder = self.folder(kind, key)
        try:
            record = json.loads((folder / _RESULT).read_bytes())
            body = record["body"]
            if record["sha256"] != _hash(canonical_json(body).encode()):
                raise DamagedCell(f"{folder / _RESULT} is not what was written; it is to be redone")
            if others := _other_software(body["machine"]):
                raise DamagedCell(f"{folder} was computed with {others}; it is to be redone")
            if body["key"] != key:
                raise DamagedCell(f"{folder / _RESULT} answers another question; it is to be redone")
            for name, digest in body["files"].items():
                if _hash((folder / name).read_bytes()) != digest:
                    raise DamagedCell(f"{folder / name} is not what was written; it is to be redone")
            done = Done(
                folder, tuple(Value(**value) for value in body["values"]), float(body["seconds"]), body["machine"]
            )
            _ = done.items
            return done
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DamagedCell(f"{folder} cannot be read ({reason:.120}); it is to be redone") from None

    def write(self, kind: Kind, key: str, settings: Mapping[str, Any], outcome: Outcome, seconds: float) -> Done:
        """Keep an outcome; `cell.json` makes it count, and only then is the rest of the work folder removed.

        Raises `RunError` for a value not finite.
        """
        for value in outcome.values:
            if not math.isfinite(value.value):
                where = f"{value.measure} {value.of} {value.at} {'' if value.x is None else value.x}".strip()
                raise RunError(f"{where} is {value.value}, a finite number expected; see the settings of this cell")
        folder = self.folder(kind.name, key)
        names = [f"work/{name}" for name in outcome.files]
        if outcome.items:
            write_bytes(folder / _ITEMS, save({k: np.ascontiguousarray(v) for k, v in outcome.items.items()}))
            names.append(_ITEMS)
        body = {
            "kind": kind.name,
            "version": kind.version,
            "key": key,
            "settings": settings,
            "values": [asdict(value) for value in outcome.values],
            "files": {name: _hash((folder / name).read_bytes()) for name in names},
            "seconds": seconds,
            "machine": versions_in_force(),
        }
        body = json.loads(canonical_json(body))  # as it will be read, so that the hash is over the same numbers
        write_text(folder / _RESULT, json_text({"sha256": _hash(canonical_json(body).encode()), "body": body}))
        for entry in sorted((folder / "work").rglob("*"), reverse=True):  # deepest first
            if entry.is_file() and entry.relative_to(folder).as_posix() not in names:
                entry.unlink()
            elif entry.is_dir() and not any(entry.iterdir()):
                entry.rmdir()
        return self.read(kind.name, key)

    def discard(self, kind: str, key: str) -> None:
        """Remove what is left of a cell, its lock apart."""
        folder = self.folder(kind, key)
        for entry in folder.iterdir() if folder.exists() else ():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.suffix != ".lock":
                entry.unlink()


def _other_software(machine: Mapping[str, str | int]) -> str:
    """Packages that a cell was computed with and that are of another version now: ``torch 2.12.0 (now 2.13.0)``."""
    now = _versions()
    found = ((name, machine.get(name), now.get(name)) for name in _COMPUTING)
    return ", ".join(f"{name} {then} (now {this})" for name, then, this in found if then != this)


@cache
def _versions() -> dict[str, str | int]:
    return versions_in_force()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
