"""Defences: what a device sends instead of its plain hidden states and differences, and how it reads what comes back.

They stand between the backbone and the wire. Knows arrays and secrets; not models, labels or messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from airtune.errors import ConfigError
from airtune.methods.pae_mobillm.privacy.gaussian import GaussianNoise, median_norms

__all__ = ["Chain", "Defence", "GaussianNoise", "Plain", "Rotation", "defence", "median_norms"]


class Defence(Protocol):
    """What a device does to samples before they are encoded, and to the side network's answers."""

    def outputs(self, outputs: int) -> int:
        """Numbers of a difference as sent, C', where the device has C."""

    def outgoing(
        self, ids: np.ndarray, activations: np.ndarray, differences: np.ndarray, counts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is sent instead: hidden states ``(rows, K, d)`` and differences ``(rows, C')``, types kept.

        Args:
            ids: uint64 ``(n,)``.
            activations: ``(rows, K, d)``; left as they are.
            differences: ``(rows, C)``; left as they are.
            counts: Rows of each sample ``(n,)``; one each when None.
        """

    def incoming(self, predicted: np.ndarray) -> np.ndarray:
        """The side network's answer ``(rows, C')`` as the device adds it, ``(rows, C)``."""


@dataclass(frozen=True, slots=True)
class Plain:
    """Nothing is hidden: the label is the largest difference (see `labels`)."""

    def outputs(self, outputs: int) -> int:
        return outputs

    def outgoing(
        self, ids: np.ndarray, activations: np.ndarray, differences: np.ndarray, counts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return activations, differences

    def incoming(self, predicted: np.ndarray) -> np.ndarray:
        return predicted


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """Differences go out as D R^T for a secret R with orthonormal columns, and answers come back times R.

    R^T R = 1, so nothing is lost, and gradient descent on the summed squared error takes the same path: the output map
    is the plain one times R^T at every step. Not so for Adam, whose steps know axes, nor for Huber's loss; a *mean*
    over outputs divides the plain gradient by K / C.

    It hides which axis is which class. It hides neither norms nor angles: not which samples share a class
    (`partition`), and not the names from a server that knows the backbone's predictions (`labels.behind_rotation`) or
    has labelled texts of the task (`labels.by_labelled_texts`).

    Args:
        matrix: R ``(K, C)``.
    """

    matrix: np.ndarray = field(repr=False)

    @classmethod
    def draw(cls, outputs: int, dimensions: int, secret: np.random.Generator) -> Rotation:
        """R drawn evenly over all such matrices of `dimensions` K rows and `outputs` C columns.

        Raises:
            ConfigError: K is below C.
        """
        if dimensions < outputs:
            raise ConfigError(
                f"privacy.rotate_to is {dimensions}, and differences have {outputs} numbers; choose {outputs} or more"
            )
        basis, triangle = np.linalg.qr(secret.standard_normal((dimensions, outputs)))
        return cls(basis * np.where(np.diag(triangle) < 0, -1.0, 1.0))

    def outputs(self, outputs: int) -> int:
        if outputs != self.matrix.shape[1]:
            raise ConfigError(f"the rotation is one of {self.matrix.shape[1]} outputs, not of {outputs}; draw another")
        return int(self.matrix.shape[0])

    def outgoing(
        self, ids: np.ndarray, activations: np.ndarray, differences: np.ndarray, counts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return activations, (differences @ self.matrix.T).astype(differences.dtype)

    def incoming(self, predicted: np.ndarray) -> np.ndarray:
        return (predicted @ self.matrix).astype(predicted.dtype)


@dataclass(frozen=True, slots=True)
class Chain:
    """One defence after another; answers come back through them in reverse."""

    parts: tuple[Defence, ...]

    def outputs(self, outputs: int) -> int:
        for part in self.parts:
            outputs = part.outputs(outputs)
        return outputs

    def outgoing(
        self, ids: np.ndarray, activations: np.ndarray, differences: np.ndarray, counts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        for part in self.parts:
            activations, differences = part.outgoing(ids, activations, differences, counts)
        return activations, differences

    def incoming(self, predicted: np.ndarray) -> np.ndarray:
        for part in reversed(self.parts):
            predicted = part.incoming(predicted)
        return predicted


def defence(
    outputs: int,
    *,
    rotate_to: int = 0,
    epsilon: float = 0.0,
    delta: float = 1e-5,
    clips: tuple[float, float] = (0.0, 0.0),
    centre: np.ndarray | float = 0.0,
    secret: np.random.Generator,
) -> Defence:
    """What the settings ask for: a rotation, then noise, so that noise fills all K dimensions and hides the C in use.

    Args:
        outputs: C.
        rotate_to: K; 0 for no rotation.
        epsilon: 0 for no noise.
        clips: c_A and c_D, both above 0 with noise; `median_norms` measures them, before or after a rotation alike.
        centre: What hidden states are clipped around, ``(K, d)``; see `GaussianNoise`.
    """
    parts: list[Defence] = []
    if rotate_to:
        parts.append(Rotation.draw(outputs, rotate_to, secret))
    if epsilon:
        parts.append(GaussianNoise.calibrated(epsilon, delta, clips, secret, centre=centre))
    if len(parts) == 1:
        return parts[0]
    return Chain(tuple(parts)) if parts else Plain()
