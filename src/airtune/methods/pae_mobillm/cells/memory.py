"""The `memory` cell: peaks of resident memory on a device, for batches as long as the longest sample of train.

Each way runs in fresh processes (`peaks`). Linux alone: elsewhere the cell holds no value, and tables show none.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airtune.methods.pae_mobillm.cells.ways import known
from airtune.methods.pae_mobillm.config import config_from
from airtune.methods.pae_mobillm.peaks import CAN_MEASURE, Shape, rises
from airtune.records.cells import Done, Outcome, Value

BATCHES, REPEATS = 3, 2
Settings = Mapping[str, Any]


def memory_settings(settings: Settings) -> Settings:
    """The shape comes from the reading's cell; numbers are this kind of machine's."""
    return {"machine": f"{platform.system()} {platform.machine()}"}


def compute_memory(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values: `device_mib` of each way of `peaks`, the largest of its repeats; `loaded_mib`."""
    if not CAN_MEASURE:
        return Outcome(())
    config, reading = config_from({**settings, "seed": 0}), needs["reading"]
    shape = Shape(
        model=config.model.name,
        labels=int(known(reading, "classes")),
        batches=BATCHES,
        samples=config.device.batch_size,
        tokens=int(known(reading, "longest")),
    )
    found = rises(shape, repeats=REPEATS)
    values = [Value("device_mib", max(peak.rise_kib for peak in peaks) / 1024, of=way) for way, peaks in found.items()]
    loaded = max(peak.loaded_kib for peaks in found.values() for peak in peaks)
    return Outcome((*values, Value("loaded_mib", loaded / 1024)))
