"""Drawn samples, their bodies, and an identity of small sizes, for tests of the server."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from airtune.methods.pae_mobillm.config import SideConfig
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.wire import Samples, encode_samples

SIDE = SideConfig(bottleneck=3, epochs=4, batch_size=4, learning_rate=0.01)


def identity(*, width: int = 6, bits: Sequence[int] = (16, 8, 32), outputs: int = 3, **others: str) -> Identity:
    hashes = {"backbone": "a" * 64, "tokenizer": "b" * 64, "template": "c" * 64} | others
    return Identity(width=width, layers=tuple(range(len(bits))), bits=tuple(bits), outputs=outputs, **hashes)


def drawn(ids: Sequence[int], of: Identity, *, seed: int = 0, counts: Sequence[int] | None = None) -> Samples:
    """Samples whose numbers depend on seed and their own id alone, with one pivot each or as many as `counts` says."""
    rows, differences = [], []
    for one, count in zip(ids, counts or [1] * len(ids), strict=True):
        rng = np.random.default_rng([seed, one])
        rows.append(rng.normal(size=(count, len(of.layers), of.width)))
        differences.append(rng.normal(size=(count, of.outputs)))
    counted = np.array(counts or [1] * len(ids))
    return Samples(
        np.array(ids, np.uint64),
        counted,
        np.concatenate(rows).astype(np.float32),
        np.concatenate(differences).astype(np.float32),
    )


def body(ids: Sequence[int], of: Identity, *, seed: int = 0, counts: Sequence[int] | None = None) -> bytes:
    return encode_samples(drawn(ids, of, seed=seed, counts=counts), of, several=counts is not None)


def at_wire_precision(values: np.ndarray, bits: int) -> np.ndarray:
    """What float32 `(n, d)` is after the wire, by the formula of the page on the wire: written here a second time."""
    if bits == 32:
        return values
    if bits == 16:
        return values.astype(np.float16).astype(np.float32)
    scale = (np.abs(values).max(axis=1, keepdims=True) / 127).astype(np.float32)
    return np.rint(values / scale).astype(np.float32) * scale
