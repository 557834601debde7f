"""The signs of the largest entries: after ComPEFT (Yadav et al. 2311.13171), tuned.

The share of entries that stay and their size are searched on dev, as there; the size is one for the whole adapter as
there, or one for each direction (of P and Q only the product matters). Their places cost the entropy of the share (the
paper has Golomb codes, which need more), signs a bit, sizes 16. Departs from the paper in what is coded: factors of
least energy (singular directions, balanced), not the change of A and B since their drawing, which nobody kept. Knows
factors and bits; not losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from airtune.codec import Factors
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.bits.candidate import Candidate
from airtune.methods.airllm.bits.grid import HEAD_WIDTHS, SCALE_BITS, head_on_grid

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)


def ternary(trained: Mapping[int, TrainedAdapter]) -> Iterator[Candidate]:
    """LoRA trained at each rank, at every share, size and scope of the size."""
    for rank, adapter in trained.items():
        balanced = {path: _balanced(site) for path, site in adapter.factors.items()}
        rows = [part for pair in balanced.values() for part in pair]
        heads = {f", head {width}": head_on_grid(adapter.dense, width) for width in HEAD_WIDTHS if adapter.dense}
        for share, (scope, at_share, sizes) in product(SHARES, SCOPES):
            for size in sizes:
                found, bits = at_share(rows, share, size)
                pairs = zip(balanced, found[::2], found[1::2], strict=True)
                factors = {path: Factors(p.T.copy(), np.ones(len(p), np.float32), q) for path, p, q in pairs}
                name = f"rank {rank}, {share:.0%} of entries, one size of {size:g} for each {scope}"
                for words, (head, head_bits) in (heads or {"": ({}, 0)}).items():
                    yield Candidate(name + words, bits + head_bits, factors, head)


def _balanced(site: Factors) -> tuple[np.ndarray, np.ndarray]:
    root = np.sqrt(np.abs(site.lam))[:, None]
    return site.p.T * root * np.sign(site.lam)[:, None], site.q * root


def _at_once(rows: Sequence[np.ndarray], share: float, size: float) -> tuple[list[np.ndarray], float]:
    every = np.concatenate([part.ravel() for part in rows])
    least = np.quantile(np.abs(every), 1 - share)
    scale = size * float(np.sqrt((every**2).mean()))
    found = [(np.sign(part) * scale * (np.abs(part) > least)).astype(np.float32) for part in rows]
    return found, _places_bits(found) + SCALE_BITS


def _by_direction(rows: Sequence[np.ndarray], share: float, size: float) -> tuple[list[np.ndarray], float]:
    """Rows of P, of Q and so on by turns."""
    found = []
    for part in rows:
        kept = np.abs(part) > np.quantile(np.abs(part), 1 - share, axis=1, keepdims=True)
        mean = np.abs(part * kept).sum(axis=1, keepdims=True) / np.maximum(kept.sum(axis=1, keepdims=True), 1)
        found.append((np.sign(part) * kept * size * mean).astype(np.float32))
    return found, _places_bits(found) + SCALE_BITS * sum(len(part) for part in rows[::2])


def _places_bits(found: Sequence[np.ndarray]) -> float:
    """Entropy of which entries stay, and a bit for each of their signs."""
    count = sum(part.size for part in found)
    kept = sum(int(np.count_nonzero(part)) for part in found)
    share = kept / count if count else 0.0
    entropy = 0.0 if share in (0.0, 1.0) else -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    return float(count * entropy + kept)


SCOPES = (("adapter", _at_once, (1.0, 1.5, 2.0, 3.0)), ("direction", _by_direction, (0.75, 1.0, 1.25)))
"""Who shares a size, and the sizes tried: over the root mean square of all, or over the mean of a row's kept."""
