"""The `adapter` cell: train the nested adapter, measure the losses that the surrogate learns from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airtune.adapters import RankVector
from airtune.methods.airllm.cells.opening import CHECKPOINT, MEASURED, opened
from airtune.records.cells import Done, Outcome, Value

EVERY_RANK_TO = 8
"""Up to here every rank everywhere is scored on dev, beyond it every doubled one."""


def compute_adapter(settings: Mapping[str, Any], work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values: loss and score on dev by uniform rank (x), the surrogate's held-out error, bandwidth, training loss."""
    with opened(settings, work) as found:
        _ = found.greedy  # measures, what greedy would send among it: the cells above find these losses in the file
        values = [Value("bandwidth_hz", found.links[0].bandwidth_hz)]
        caps = found.trainee.adapter.caps
        rank = 0
        while rank <= max(caps.ranks):
            scored = found.trainee.score(
                RankVector(tuple(min(rank, cap) for cap in caps.ranks)), found.trainee.parts.dev, keep_logits=0
            )
            values += [Value("dev_loss", scored.loss, rank), Value("dev_score", scored.metric, rank)]
            rank = rank + 1 if rank < EVERY_RANK_TO else 2 * rank
        for line in found.session.folder.read_metrics("surrogate")[-1:]:
            values.append(Value("surrogate_rmse", line["held_out_rmse"]))
            values.append(Value("measurements", line["measurements"]))
        train = {line["step"]: line["loss"] for line in found.session.folder.read_metrics("train")}
        values += [Value("train_loss", loss, step) for step, loss in sorted(train.items())]
        return Outcome(tuple(values), files=(CHECKPOINT, MEASURED))
