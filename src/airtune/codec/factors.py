"""One site's low-rank update. Knows linear algebra; not bits, bytes or models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from airtune.errors import PayloadError


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The update P diag(lam) Q of one site (Eq. 2), directions in the order they are to be kept.

    Args:
        p: P, shape (out, r).
        lam: The diagonal, shape (r,).
        q: Q, shape (r, in).

    Raises:
        PayloadError: the three shapes do not fit together.
    """

    p: npt.NDArray[np.floating]
    lam: npt.NDArray[np.floating]
    q: npt.NDArray[np.floating]

    def __post_init__(self) -> None:
        shapes = np.shape(self.p), np.shape(self.lam), np.shape(self.q)
        fits = tuple(map(len, shapes)) == (2, 1, 2) and shapes[0][1] == shapes[1][0] == shapes[2][0]
        if not fits:
            raise PayloadError(f"factors P, lam, Q have shapes {shapes}; give (out, r), (r,) and (r, in)")

    @classmethod
    def nothing(cls, fan_out: int, fan_in: int) -> Factors:
        """No directions at a site of this shape."""
        return cls(np.zeros((fan_out, 0), np.float32), np.zeros(0, np.float32), np.zeros((0, fan_in), np.float32))

    @property
    def rank(self) -> int:
        return int(self.lam.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the update."""
        return int(self.p.shape[0]), int(self.q.shape[1])

    def prefix(self, rank: int) -> Factors:
        """The first `rank` directions, or all where there are fewer."""
        return Factors(self.p[:, :rank], self.lam[:rank], self.q[:rank])

    def update(self) -> npt.NDArray[np.floating]:
        """P diag(lam) Q, shape (out, in)."""
        return (self.p * self.lam) @ self.q
