"""Singular values of a trained update, and which directions to keep of them.

An update is factored through its thin factors, so nothing of size fan_out x fan_in is decomposed. The first r of a
site's directions are its best rank-r approximation (Eckart and Young 1936), so cutting ranks is cutting prefixes. This
is what resizing a LoRA after training does: it looks at weights, at no data. Knows factors and costs; not losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from airtune.adapters import RankVector
from airtune.codec import Factors
from airtune.errors import ConfigError


def spectral(factors: Factors) -> Factors:
    """The same update with orthonormal P and Q and its singular values in lam, largest first.

    P diag(lam) Q = (Q_P R_P) diag(lam) (Q_Q R_Q)', so an SVD of the small core R_P diag(lam) R_Q' gives it.

    Args:
        factors: Any P (out, r), lam (r,), Q (r, in).

    Returns:
        float32 factors of min(r, out, in) directions.
    """
    p, lam, q = (np.asarray(values, np.float64) for values in (factors.p, factors.lam, factors.q))
    p_basis, p_rest = np.linalg.qr(p)
    q_basis, q_rest = np.linalg.qr(q.T)
    left, values, right = np.linalg.svd((p_rest * lam) @ q_rest.T, full_matrices=False)
    found = (p_basis @ left, values, right @ q_basis.T)
    return Factors(*(np.ascontiguousarray(part, np.float32) for part in found))


def cut(factors: Mapping[str, Factors], ranks: RankVector) -> dict[str, Factors]:
    """The first directions of every site, as many as `ranks` says."""
    return {path: site.prefix(rank) for (path, site), rank in zip(factors.items(), ranks.ranks, strict=True)}


def keep_within(
    factors: Mapping[str, Factors],
    direction_bits: np.ndarray,
    payload_bits: Callable[[RankVector], int],
    budget_bits: float,
) -> RankVector:
    """Ranks that keep the most energy (squared singular value) per bit, as many directions as the budget holds.

    A site whose next direction no longer fits is closed; cheaper ones go on.

    Args:
        factors: From `spectral`.
        direction_bits: What a direction of each site costs, shape ``(sites,)``.
        payload_bits: Bits of the whole payload of these ranks.

    Raises:
        ConfigError: not even rank 0 everywhere fits.
    """
    kept, closed = [0] * len(factors), set[int]()
    if (least := payload_bits(RankVector.of(kept))) > budget_bits:
        raise ConfigError(f"head and container alone take {least} bits, the budget is {budget_bits:.0f}; allow more")
    gains = [
        site.lam.astype(np.float64) ** 2 / bits for site, bits in zip(factors.values(), direction_bits, strict=True)
    ]
    for site, _ in _descending(gains):
        if site in closed:
            continue
        kept[site] += 1
        if payload_bits(RankVector.of(kept)) > budget_bits:
            kept[site] -= 1
            closed.add(site)
    return RankVector.of(kept)


def _descending(sizes: list[np.ndarray]) -> list[tuple[int, int]]:
    """(site, direction) of every direction, largest first; equal ones in the order of sites, then of directions."""
    places = [(site, direction) for site, values in enumerate(sizes) for direction in range(len(values))]
    return sorted(places, key=lambda place: -sizes[place[0]][place[1]])
