"""How every trained way gets its learning rate and epochs: by accuracy on dev, from rates tried and epochs passed.

All ways have this freedom alike. Epochs are looked at along the way, so that a rate is trained once. The test part is
asked about what was chosen alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from airtune.errors import ModelError

RATES = (0.3, 1.0, 3.0)
"""Times the settings' own rate."""
SHARES = (0.25, 0.5, 1.0)
"""Of the settings' epochs: where side networks and the probe are looked at."""
Model = TypeVar("Model")


@dataclass(frozen=True, slots=True, eq=False)
class Look(Generic[Model]):
    """A model after so many epochs.

    Args:
        seconds: Of processor time that its training has taken so far.
        flops: Of the device so far, where the device trains.
    """

    model: Model
    epochs: int
    seconds: float
    flops: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Chosen(Generic[Model]):
    """The best look, the rate that it was trained at, and the share of dev that it has right."""

    look: Look[Model]
    rate: float
    dev_score: float


def epochs_looked_at(epochs: int) -> list[int]:
    """5, 10 and 20 of 20."""
    return sorted({math.ceil(share * epochs) for share in SHARES})


def best_on_dev(
    rates: Sequence[float],
    train: Callable[[float], Iterator[Look[Model]]],
    dev_score: Callable[[Model], float],
) -> Chosen[Model]:
    """Train at every rate and keep a copy of the look with the most of dev right; the earliest of equal ones.

    A rate at which training stops being finite counts as far as it came.

    Raises:
        ModelError: no rate came as far as its first look.
    """
    best: Chosen[Model] | None = None
    failure = "none was tried"
    for rate in rates:
        try:
            for look in train(rate):
                found = dev_score(look.model)
                if best is None or found > best.dev_score:
                    kept = Look(copy.deepcopy(look.model), look.epochs, look.seconds, look.flops)
                    best = Chosen(kept, rate, found)
        except ModelError as error:
            failure = str(error)
    if best is None:
        raise ModelError(f"none of {len(rates)} rates could be trained at ({failure}); try lower ones")
    return best
