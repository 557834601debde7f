"""Ranks as points of [-1, 1], the scale on which the refiner adds unit noise, and back (Eq. 18).

Knows ranks and their caps; does not know how latents are made. numpy only.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from airtune.errors import ConfigError, DataError

Rule = Literal["round", "floor"]
"""`round`: to the nearest rank, halves up. `floor`: the paper's Eq. 18."""


def encode(ranks: ArrayLike, cap: ArrayLike) -> NDArray[np.float32]:
    """2 r / cap - 1: rank 0 is -1, a full rank is 1; a site of cap 0 is always 0.

    Args:
        ranks: Integers in 0..cap, shape ``(..., sites)``.
        cap: r_max, one for all sites or one per site ``(sites,)``.

    Raises:
        ConfigError: a cap is negative or not an integer.
        DataError: a rank is not an integer in 0..cap.
    """
    r, caps = np.asarray(ranks), _caps(cap)
    if not np.issubdtype(r.dtype, np.integer):
        raise DataError(f"ranks are of type {r.dtype}; give integers")
    if ((r < 0) | (r > caps)).any():
        raise DataError(f"ranks run from {r.min()} to {r.max()}; give 0 to the site's cap (at most {caps.max()})")
    return np.where(caps > 0, 2.0 * r / np.maximum(caps, 1) - 1.0, 0.0).astype(np.float32)


def decode(latent: ArrayLike, cap: ArrayLike, rule: Rule = "round", least: int = 0) -> NDArray[np.int64]:
    """The ranks a latent stands for, clipped to least..cap (Eq. 18, on normalised ranks).

    `round` gives every encoded rank back, and still does under noise below half a step (1 / cap). `floor` takes half a
    rank off on average, reaches cap only at 1 and above, and loses a rank wherever an encoded rank is not exact in
    binary; a refiner trained on its own floored actions drifts to zero. It is here to reproduce the paper.

    Args:
        latent: Any real numbers, shape ``(..., sites)``.
        cap: r_max, one for all sites or one per site ``(sites,)``.
        least: No rank is below it, unless a cap is.

    Raises:
        ConfigError: a cap is negative or not an integer, or the rule is unknown.
        DataError: the latent holds a NaN.
    """
    x, caps = np.asarray(latent, dtype=np.float64), _caps(cap)
    if np.isnan(x).any():
        raise DataError(
            f"{int(np.isnan(x).sum())} of {x.size} latent values are NaN; the refiner has diverged, train it anew"
        )
    if rule not in get_args(Rule):
        raise ConfigError(f"decoding rule is {rule!r}; choose one of {', '.join(get_args(Rule))}")
    shift = 0.5 if rule == "round" else 0.0
    continuous = caps * (np.clip(x, -1.0, 1.0) + 1.0) / 2.0
    return np.maximum(np.floor(continuous + shift).astype(np.int64), np.minimum(least, caps))


def _caps(cap: ArrayLike) -> NDArray[np.int64]:
    caps = np.asarray(cap)
    if not np.issubdtype(caps.dtype, np.integer) or (caps < 0).any():
        raise ConfigError(f"rank cap is {cap!r}; give integers of at least 0")
    return caps.astype(np.int64)
