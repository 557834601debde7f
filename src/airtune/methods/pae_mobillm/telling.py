"""The summary of a run as tables and sentences for its report, in which nothing is computed anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def told(summary: Mapping[str, Any]) -> dict[str, Any]:
    """`headline`, `notes` and `tables` (title, headings, rows of text) of a run's summary."""
    uplink, sent, identity = summary["uplink"], summary["sent"], summary["identity"]
    scores, perplexity = summary["scores"], summary["metric"] == "perplexity"
    samples = sent["samples"] + sent["held"]
    ours = scores["PAE MobiLLM"]["score"]
    each = f", {summary['costs'][0]['up'] / samples:,.0f} bytes each," if samples else ""
    headline = (
        f"{samples:,} samples were sent once{each} in {uplink['upload_s']:.1f} s on air; "
        f"with the side network the device has {_score(ours, perplexity)}, "
        f"its backbone alone {_score(scores['backbone alone']['score'], perplexity)}."
    )
    late = [] if uplink["deadline_met"] else [f"The upload missed its deadline of {uplink['deadline_s']:g} s."]
    notes = [
        *late,
        *_warnings(summary),
        "Epochs after the first upload no samples: the server trains on what it has cached.",
        "One seed: small differences are noise until repeated.",
    ]
    tables = [
        {
            "title": "On test",
            "headings": ["", summary["metric"], "loss, nat"],
            "rows": [[name, _score(one["score"], perplexity), _number(one["loss"])] for name, one in scores.items()],
        },
        {
            "title": "What was sent of each sample",
            "headings": ["hidden states of", "bits a number"],
            "rows": [
                [f"block {layer}" if layer else "the embeddings", f"{bits}"]
                for layer, bits in zip(identity["layers"], identity["bits"], strict=True)
            ],
        },
        {
            "title": "Bytes of this way and of others, over all epochs (the others by formula, for the same samples)",
            "headings": ["way", "uplink, kB", "downlink, kB"],
            "rows": [[one["way"], f"{one['up'] / 1e3:,.1f}", f"{one['down'] / 1e3:,.1f}"] for one in summary["costs"]],
        },
    ]
    if summary["leaks"]:
        tables.append(
            {
                "title": "What the server can read off it",
                "headings": ["attack", "layer", "found", "by chance", "of"],
                "rows": [
                    [
                        one["measure"],
                        "" if one["layer"] is None else f"{one['layer']}",
                        f"{one['value']:.3f}",
                        f"{one['chance']:.3f}",
                        f"{one['count']:,}",
                    ]
                    for one in summary["leaks"]
                ],
            }
        )
    return {"headline": headline, "notes": notes, "tables": tables}


def _warnings(summary: Mapping[str, Any]) -> list[str]:
    """What a reader would otherwise take for more than it is."""
    defences, last = summary["defences"], summary["last_epoch"]
    found = []
    if (defences["rotation"] or defences["noise"]) and not defences["secret"]:
        found.append(
            "device.secret is empty: rotation and noise are drawn from the seed, which the server is told, so against "
            "that server they hide nothing. Set a secret where it matters."
        )
    if forgotten := summary["sent"]["forgotten"]:
        found.append(
            f"{forgotten:,} samples were left out, for the server was asked to forget them; set server.again to send "
            "them again."
        )
    if refused := summary["sent"]["refused"]:
        found.append(
            f"{refused:,} samples were not kept, for the server has no room for more; it trained on what it has. Give "
            "it room, or have samples forgotten, and send them again."
        )
    if last["rows"] < last["sent"]:
        found.append(
            f"The last epoch had {last['rows']:,} of these {last['sent']:,} pivots: the others came after the server "
            "had trained so far, or are forgotten. Ask for more epochs (side.epochs), or give the server a new store."
        )
    if not summary["report"]["attacks"]:
        found.append("What the server can read off it was not measured here: report.attacks is off.")
    if summary["unattacked"]:
        found.append(f"What was sent could not be attacked: {summary['unattacked']}.")
    return found


def _score(value: float, perplexity: bool) -> str:
    return f"{value:.2f}" if perplexity else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
