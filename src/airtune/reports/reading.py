"""From a run folder to a `Run`: every field that a report shows, read and checked once.

Knows the files of a run folder and the shapes of their contents. Nothing is trusted: what has the wrong type is named
and refused in one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast, get_args

from airtune.errors import RunError
from airtune.reports.run import Metric, Reference, Row, Run, Site


def read_run(folder: Path) -> Run:
    """Read a run folder; only `summary.json` must be there.

    Raises `RunError` where a file is missing, is not valid JSON, or holds something else than it should.
    """
    summary = _summary(folder / "summary.json")
    sites = tuple(_site(entry, f"sites[{i}]") for i, entry in enumerate(_list(summary, "sites")))
    rows = [_row(entry, len(sites), f"rows[{i}]") for i, entry in enumerate(_list(summary, "rows"))]
    if not rows:
        raise RunError(f"{folder / 'summary.json'} holds no rows; expected one per allocator and SNR: let the run end")
    order = list(dict.fromkeys(row.allocator for row in rows))
    link = _mapping(summary, "link")
    return Run(
        folder=folder,
        method=_label(summary.get("method")),
        mode=_label(summary.get("mode")),
        seed=_label(summary.get("seed")),
        model=_label(summary.get("model")),
        task=_label(summary.get("task")),
        wall_s=_number(summary, "wall_s", "summary"),
        versions={name: _label(version) for name, version in _mapping(summary, "versions").items()},
        metric=_metric(summary["rows"]),
        rows=tuple(sorted(rows, key=lambda row: (row.snr_db, order.index(row.allocator)))),
        sites=sites,
        references={
            name: Reference(
                **{field.name: _number(entry, field.name, f"reference.{name}") for field in fields(Reference)}
            )
            for name, entry in _mapping(summary, "reference").items()
            if isinstance(entry, Mapping)
        },
        notes=tuple(_label(note) for note in _list(summary, "notes")),
        fading=_label(link.get("fading")),
        bandwidth_reason=_label(link.get("bandwidth_reason")),
        config=_text(folder / "config.toml"),
        metrics=tuple(_lines(folder / "metrics.jsonl")),
        ledger=tuple(_lines(folder / "ledger.jsonl")),
        illustration=_label(summary.get("illustration")),
        steps=_number(_mapping(summary, "paper"), "steps", "paper"),
    )


def _summary(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise RunError(f"{path.parent} holds no summary.json; give the folder of a finished run")
    summary = _json(path.name, _text(path))
    if not isinstance(summary, Mapping):
        raise RunError(f"{path} holds a {type(summary).__name__}; expected an object: run again")
    return summary


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}); expected UTF-8 text: run again") from None


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RunError(f"{where} is not valid JSON ({error}); repair the line or run again") from None


def _lines(path: Path) -> Iterable[Mapping[str, Any]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            entry = _json(f"{path.name} line {number}", line)
            if not isinstance(entry, Mapping):
                raise RunError(f"{path.name} line {number} holds a {type(entry).__name__}; expected an object")
            yield entry


def _row(entry: Any, sites: int, where: str) -> Row:
    if not isinstance(entry, Mapping):
        raise RunError(
            f"summary.json {where} is a {type(entry).__name__}; expected an object with allocator and snr_db"
        )
    allocator, snr_db = entry.get("allocator"), _number(entry, "snr_db", where)
    if not isinstance(allocator, str) or snr_db is None:
        raise RunError(f"summary.json {where} names no allocator or snr_db; expected both: run again")
    ranks = tuple(_integer(rank, f"{where}.ranks") for rank in _list(entry, "ranks"))
    if ranks and sites and len(ranks) != sites:
        raise RunError(f"summary.json {where}.ranks holds {len(ranks)} ranks; expected {sites}, one per site")
    met, digest = entry.get("deadline_met"), entry.get("payload_sha256")
    numbers = {field.name: _number(entry, field.name, where) for field in fields(Row) if field.type == "float | None"}
    return Row(
        allocator,
        snr_db,
        deadline_met=met if isinstance(met, bool) else None,
        payload_sha256=digest if isinstance(digest, str) else None,
        ranks=ranks,
        **cast(dict[str, Any], numbers),
    )


def _site(entry: Any, where: str) -> Site:
    if not isinstance(entry, Mapping):
        raise RunError(
            f"summary.json {where} is a {type(entry).__name__}; expected an object with layer, module and cap"
        )
    layer, cap = _integer(entry.get("layer"), f"{where}.layer"), _integer(entry.get("cap"), f"{where}.cap")
    return Site(layer, _label(entry.get("module")), cap)


def _metric(rows: Sequence[Mapping[str, Any]]) -> Metric:
    found = {_label(row.get("metric")) for row in rows}
    if len(found) != 1 or not found <= set(get_args(Metric)):
        raise RunError(
            f"summary.json rows have metric {', '.join(sorted(found))}; expected all accuracy or all perplexity"
        )
    return cast(Metric, found.pop())


def _number(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    value = entry.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise RunError(f"summary.json {where}.{key} is {value!r:.40}; expected a number or null")
    return value


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RunError(f"summary.json {where} is {value!r:.40}; expected a whole number")
    return value


def _list(entry: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = entry.get(key) or []
    if not isinstance(value, list):
        raise RunError(f"summary.json {key} is a {type(value).__name__}; expected a list")
    return value


def _mapping(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = entry.get(key) or {}
    if not isinstance(value, Mapping):
        raise RunError(f"summary.json {key} is a {type(value).__name__}; expected an object")
    return value


def _label(value: Any) -> str:
    """Any JSON value as a short text; missing is empty."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_label(part)}" if key != "name" else _label(part) for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(_label(part) for part in value)
    return "" if value is None else str(value)
