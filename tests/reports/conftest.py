"""A small run folder whose every number can be checked by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

SITES = [
    {"layer": layer, "module": module, "in": 8, "out": 8, "cap": 4}
    for layer in (0, 1)
    for module in ("attention.self.query", "output.dense")
]


def row(
    allocator: str, snr_db: float, air_bits: int, airtime_s: float, loss: float, edge: float | None
) -> dict[str, Any]:
    """One row of the summary; in time where the airtime is at most 1 s."""
    return {
        "allocator": allocator,
        "snr_db": snr_db,
        "bandwidth_hz": 180_000.0,
        "deadline_s": 1.0,
        "total_rank": 7,
        "parameters": 119,
        "bits_before_projection": 2 * air_bits,
        "payload_bits": air_bits - 2_000,
        "air_bits": air_bits,
        "airtime_s": airtime_s,
        "deadline_met": airtime_s <= 1.0,
        "loss": loss,
        "metric": "accuracy",
        "score_trained": None if edge is None else edge + 0.002,
        "score_cloud": edge,
        "score_edge": edge,
        "payload_sha256": "ab" * 32,
        "max_abs_logit_diff": 2.5e-6,
        "ranks": [0, 1, 2, 4],
        "loss_calibration": loss + 0.01,
        "reward": -loss,
    }


def summary() -> dict[str, Any]:
    """Two allocators at two SNRs; random is late at 0 dB, and the edge of its last row was not recorded."""
    return {
        "method": "airllm",
        "mode": "nested",
        "seed": 3,
        "model": "tiny-bert",
        "task": "SST-2",
        "wall_s": 3725.0,
        "versions": {"airtune": "0.1.0", "torch": "2.13.0"},
        "rows": [
            row("airllm", 10.0, 312_040, 0.5, 0.4012, 0.871),
            row("random", 10.0, 431_500, 0.69, 0.4305, None),
            row("airllm", 0.0, 179_960, 0.9998, 0.5123, 0.842),
            row("random", 0.0, 185_400, 1.03, 0.5094, 0.835),
        ],
        "sites": SITES,
        "reference": {
            "head_only": {"score": 0.8, "loss": 0.55, "dev_score": 0.81, "dev_loss": 0.54},
            "unconstrained": {"score": 0.88, "loss": 0.39},
            "base": {"score": 0.5, "loss": 0.7},
        },
        "notes": ["at 0 dB airllm's loss 0.512 is above random's 0.509"],
        "link": {"fading": "still", "bandwidth_reason": "one resource block"},
    }


METRICS = [
    *({"metric": "train", "step": 10 * i, "loss": 1.0 / (i + 1), "seconds": 0.1 * i} for i in range(30)),
    *({"metric": "policy", "env_steps": 512 * i, "reward_mean": -1.0 / (i + 1)} for i in range(20)),
    {"metric": "random", "reward_mean": -0.6},
    {"metric": "uniform", "reward_mean": -0.1},
    {"metric": "probe", "score": 0.8, "loss": 0.55},
]
LEDGER = [
    {"quantity": "bits", "amount": 700_000.0, "role": "cloud", "round": 0, "what": "adapter"},
    {"quantity": "bits", "amount": 350_000.0, "role": "cloud", "round": 1, "what": "adapter"},
    {"quantity": "bits", "amount": 1_200.0, "role": "edge", "round": 0, "what": "reply"},
    {"quantity": "memory_bytes", "amount": 3e9, "role": "cloud", "round": 0, "what": "fit"},
    {"quantity": "memory_bytes", "amount": 1e9, "role": "cloud", "round": 1, "what": "fit"},
]

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Write a run folder: ``write_run("name", task=...)`` replaces keys of the summary."""

    def write(name: str = "run", /, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps(summary() | changes), encoding="utf-8")
        (folder / "config.toml").write_text('seed = 3\n\n[model]\nname = "tiny <bert>"\n', encoding="utf-8")
        for file, lines in (("metrics.jsonl", METRICS), ("ledger.jsonl", LEDGER)):
            (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """The rows of the summary, free to change."""
    return summary()["rows"]


@pytest.fixture
def references() -> Mapping[str, Any]:
    """The references of the summary."""
    return summary()["reference"]
