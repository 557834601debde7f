"""What every way to train is told by: accuracy, bytes, and what device and link have to do for it.

| measure                  | what                                                                                  |
|--------------------------|---------------------------------------------------------------------------------------|
| `score`                  | accuracy on test, whose items stand behind it                                         |
| `dev_score`              | accuracy on dev, by which `rate` and `epochs` were chosen                             |
| `up_bytes`, `down_bytes` | what crosses the link                                                                 |
| `link_s`                 | those bytes over the link's rate                                                      |
| `wall_s`                 | `link_s` and processor seconds, one thread, of device and server: nothing overlaps    |
| `device_flops`           | of the device for the training that was chosen, not for the search                    |
| `device_mib`             | peak of resident memory above the loaded model; absent where it cannot be measured    |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from airtune.links import Link
from airtune.methods.pae_mobillm.cells.choosing import Chosen
from airtune.records.cells import Done, Outcome, Value


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One way, trained.

    Args:
        of: Its name among a cell's values.
        hits: Which items of test it has right, ``(items,)``.
        seconds: Of processor time, device and server.
        mib: None where it was not measured.
        chosen: None where nothing is trained.
    """

    of: str
    hits: np.ndarray
    up: int
    down: int
    flops: int
    seconds: float
    mib: float | None
    chosen: Chosen | None = None


def told(ways: Sequence[Way], link: Link, files: tuple[str, ...] = ()) -> Outcome:
    """Every way's values."""
    values, items = [], {}
    for way in ways:
        link_s = link.airtime_s(8 * (way.up + way.down), link.mean_state)
        found: dict[str, float | None] = {
            "score": float(way.hits.mean()),
            "up_bytes": way.up,
            "down_bytes": way.down,
            "link_s": link_s,
            "wall_s": link_s + way.seconds,
            "device_flops": way.flops,
            "device_mib": way.mib,
        }
        if way.chosen is not None:
            found |= {"dev_score": way.chosen.dev_score, "rate": way.chosen.rate, "epochs": way.chosen.look.epochs}
        own = [Value(name, float(value), of=way.of) for name, value in found.items() if value is not None]
        values += own
        items[own[0].item_name] = way.hits.astype(float)
    return Outcome(tuple(values), files=files, items=items)


def value_of(done: Done, measure: str, of: str = "") -> float | None:
    """One number of a finished cell; None where it has none."""
    return next((value.value for value in done.values if (value.measure, value.of) == (measure, of)), None)


def known(done: Done, measure: str, of: str = "") -> float:
    """The same, of a number that is always there."""
    found = value_of(done, measure, of)
    assert found is not None, (measure, of)
    return found


def mib_of(needs: Mapping[str, Done], way: str) -> float | None:
    """The `memory` cell's number for a way of `peaks`."""
    return value_of(needs["memory"], "device_mib", way)
