"""From a run folder to a `Run`: every field that a report shows, read and checked once.

Knows the files of a run folder and the shapes of their contents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast, get_args

from airtune.errors import RunError
from airtune.reports.checked import integer, label, listed, mapped, number, read_lines, read_summary, read_text
from airtune.reports.run import Metric, Reference, Row, Run, Site


def read_run(folder: Path) -> Run:
    """Read a run folder; only `summary.json` must be there.

    Raises `RunError` where a file is missing, is not valid JSON, or holds something else than it should.
    """
    summary = read_summary(folder / "summary.json")
    sites = tuple(_site(entry, f"sites[{i}]") for i, entry in enumerate(listed(summary, "sites")))
    rows = [_row(entry, len(sites), f"rows[{i}]") for i, entry in enumerate(listed(summary, "rows"))]
    if not rows:
        raise RunError(f"{folder / 'summary.json'} holds no rows; expected one per allocator and SNR: let the run end")
    order = list(dict.fromkeys(row.allocator for row in rows))
    link = mapped(summary, "link")
    return Run(
        folder=folder,
        method=label(summary.get("method")),
        mode=label(summary.get("mode")),
        seed=label(summary.get("seed")),
        model=label(summary.get("model")),
        task=label(summary.get("task")),
        wall_s=number(summary, "wall_s", "summary"),
        versions={name: label(version) for name, version in mapped(summary, "versions").items()},
        metric=_metric(summary["rows"]),
        rows=tuple(sorted(rows, key=lambda row: (row.snr_db, order.index(row.allocator)))),
        sites=sites,
        references={
            name: Reference(
                **{field.name: number(entry, field.name, f"reference.{name}") for field in fields(Reference)}
            )
            for name, entry in mapped(summary, "reference").items()
            if isinstance(entry, Mapping)
        },
        notes=tuple(label(note) for note in listed(summary, "notes")),
        fading=label(link.get("fading")),
        bandwidth_reason=label(link.get("bandwidth_reason")),
        config=read_text(folder / "config.toml"),
        metrics=tuple(read_lines(folder / "metrics.jsonl")),
        ledger=tuple(read_lines(folder / "ledger.jsonl")),
        illustration=label(summary.get("illustration")),
        steps=number(mapped(summary, "paper"), "steps", "paper"),
    )


def _row(entry: Any, sites: int, where: str) -> Row:
    if not isinstance(entry, Mapping):
        raise RunError(
            f"summary.json {where} is a {type(entry).__name__}; expected an object with allocator and snr_db"
        )
    allocator, snr_db = entry.get("allocator"), number(entry, "snr_db", where)
    if not isinstance(allocator, str) or snr_db is None:
        raise RunError(f"summary.json {where} names no allocator or snr_db; expected both: run again")
    ranks = tuple(integer(rank, f"{where}.ranks") for rank in listed(entry, "ranks"))
    if ranks and sites and len(ranks) != sites:
        raise RunError(f"summary.json {where}.ranks holds {len(ranks)} ranks; expected {sites}, one per site")
    met, digest = entry.get("deadline_met"), entry.get("payload_sha256")
    numbers = {field.name: number(entry, field.name, where) for field in fields(Row) if field.type == "float | None"}
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
    layer, cap = integer(entry.get("layer"), f"{where}.layer"), integer(entry.get("cap"), f"{where}.cap")
    return Site(layer, label(entry.get("module")), cap)


def _metric(rows: Sequence[Mapping[str, Any]]) -> Metric:
    found = {label(row.get("metric")) for row in rows}
    if len(found) != 1 or not found <= set(get_args(Metric)):
        raise RunError(
            f"summary.json rows have metric {', '.join(sorted(found))}; expected all accuracy or all perplexity"
        )
    return cast(Metric, found.pop())
