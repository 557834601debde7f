"""What directions are held to lower the loss by, added up. Knows numbers; not where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt


@final
class DirectionGains:
    """Sums of gains over the first directions of every site.

    Args:
        gains: By site, shape ``(cap,)`` each, in nat.
    """

    def __init__(self, gains: Sequence[npt.NDArray[np.float64]]) -> None:
        self._sums = np.zeros((len(gains), 1 + max(map(len, gains))))
        for row, gain in zip(self._sums, gains, strict=True):
            row[1 : 1 + len(gain)] = np.cumsum(gain)
            row[1 + len(gain) :] = row[len(gain)]

    def of(self, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """What rank vectors gain together, ``(n, sites)`` -> ``(n,)``."""
        found: npt.NDArray[np.float64] = self._sums[np.arange(len(self._sums)), ranks].sum(axis=1)
        return found

    def loss(self, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The loss below that of rank 0 everywhere, as a search takes it."""
        return -self.of(ranks)
