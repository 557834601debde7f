"""The seam where defences go: between what a device reads and what it sends, and between an answer and its use."""

from __future__ import annotations

from typing import Protocol, final

import numpy as np


class Secrecy(Protocol):
    """What a device does to what it sends, and how it reads the answers."""

    def outputs(self, outputs: int) -> int:
        """Numbers of a difference as sent, where it has C."""

    def outgoing(
        self, ids: np.ndarray, activations: np.ndarray, differences: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Hidden states ``(rows, K, d)`` and differences as sent."""

    def incoming(self, predicted: np.ndarray) -> np.ndarray:
        """Differences that the side network predicted, ``(rows, C)``."""


@final
class Plainly:
    """Sends everything as it is."""

    def outputs(self, outputs: int) -> int:
        return outputs

    def outgoing(
        self, ids: np.ndarray, activations: np.ndarray, differences: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return activations, differences

    def incoming(self, predicted: np.ndarray) -> np.ndarray:
        return predicted
