"""The fewest bits that any code spends on low-rank updates of a known spectrum: reverse water-filling.

A direction ``s u v^T`` has energy s^2 and numbers of u and v that are independent and normal, as singular vectors of
trained adapters nearly are (docs/log.md). At R bits a number a normal vector comes back with a share ``D = 2^(-2 R)``
of its energy lost (Shannon 1959; Cover and Thomas, 10.3), so an update with both its vectors coded loses
``1 - (1 - D_u)(1 - D_v)`` of s^2. The bits are spread over all directions so that no bit moved from one to another
lowers the error. Mixing a site's r directions with one another changes no update, so r^2 of its numbers are free; among
thousands they are not counted (0.13 % of OPT-1.3B's at rank 8). Knows energies and lengths; not codecs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

_HALVINGS = 100


def least_bits(energies: Floats, lengths: Floats, error: float) -> float:
    """Bits at which the squared error of all updates together is a share `error` of their energy.

    Args:
        energies: s^2 of every direction, shape (n,).
        lengths: How many numbers its u and its v have, shape (n, 2).
        error: Above 0, at most 1.
    """
    low, high = 1e-12 * float(energies.min()), float(energies.max())  # prices of a nat, in squared error
    for _ in range(_HALVINGS):
        price = (low * high) ** 0.5
        low, high = (price, high) if _spent(energies, lengths, price)[1] <= error else (low, price)
    ends = [_spent(energies, lengths, price) for price in (low, high)]  # between them some directions are dropped
    return float(np.interp(error, [lost for _, lost in ends], [bits for bits, _ in ends]))


def _spent(energies: Floats, lengths: Floats, price: float) -> tuple[float, float]:
    """Bits, and the share of the energy that is lost, where a nat is worth so much squared error."""
    a, b = price * lengths.T / energies  # optimal: D_u (1 - D_v) = a, D_v (1 - D_u) = b
    square = np.maximum((1 + a - b) ** 2 - 4 * a, 0)
    of_u = np.clip((1 + a - b - np.sqrt(square)) / 2, 1e-300, 1)
    of_v = np.clip(of_u - a + b, 1e-300, 1)
    lost, nats = 1 - (1 - of_u) * (1 - of_v), -(lengths.T * np.log([of_u, of_v])).sum(axis=0)
    kept = energies * (1 - lost) > price * nats
    lost, nats = np.where(kept, lost, 1), np.where(kept, nats, 0)
    return float(nats.sum() / 2 / np.log(2)), float((energies * lost).sum() / energies.sum())
