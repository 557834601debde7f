"""Which hidden states are sent, and with how many bits: all, evenly over depth, or the most valuable per bit.

What a set of layers is worth is measured before anything is sent: a ridge regression from their hidden states, as they
would arrive, to the differences, fitted in closed form on one half of some samples; the worth is by how much it lowers
the mean squared error on the other half below that of the mean alone. It stands in for the side network, which would
cost a training run per set. The greedy choice adds what is worth most per bit on the air while the uplink has room.

Knows arrays, bits and a budget; not models, links or what a message weighs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from airtune.errors import ConfigError, DataError, DeadlineError
from airtune.links import ChannelState, Link

PRECISIONS = (8, 16)
"""Bits that the greedy choice has for each layer."""
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties as shares of the Gram matrix's trace; leave-one-out errors on the fitted half choose."""
LEAST_GAIN = 0.005
"""A step that explains less than this share of the error of the mean alone does not help."""
LEAST_SAMPLES = 8
AirBits = Callable[[tuple[int, ...], tuple[int, ...]], int]
"""Bits on the air of all samples with these layers (ascending) at these bits, everything included."""
AsReceived = Callable[[int, int], np.ndarray]
"""Hidden states of one layer as they arrive at some bits, ``(n, d)``."""


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """Which hidden states are sent, ascending, and bits per number of each.

    Args:
        explained: Share of the held-out error that a ridge regression on them explains; None where not measured.
    """

    layers: tuple[int, ...]
    bits: tuple[int, ...]
    explained: float | None = None


def every_layer(blocks: int, bits: int) -> LayerChoice:
    """What leaves each block."""
    return uniform_layers(blocks, blocks, bits)


def uniform_layers(blocks: int, count: int, bits: int) -> LayerChoice:
    """What leaves `count` blocks (all, where there are fewer), evenly over depth; the last is always among them."""
    count = min(blocks, count)
    layers = tuple((2 * blocks * step + count) // (2 * count) for step in range(1, count + 1))
    return LayerChoice(layers, (bits,) * count)


def named_layers(how: str, blocks: int, count: int, bits: int) -> LayerChoice:
    """What needs no measuring: `all`, `uniform`, or a list as `1,2,5` or `1:8,2:8,5`, where 5 has the given bits.

    Raises:
        ConfigError: a layer that the backbone does not have, or one that is named twice.
    """
    if how == "all":
        return every_layer(blocks, bits)
    if how == "uniform":
        return uniform_layers(blocks, count, bits)
    parts = [one.partition(":") for one in how.split(",")]
    chosen = {int(layer): int(own or bits) for layer, _, own in parts}
    if max(chosen) > blocks or len(chosen) < len(parts):
        raise ConfigError(f"device.layers is {how}; the backbone has blocks 1 to {blocks}, name each once at most")
    return LayerChoice(*_ordered(chosen))


def uplink_budget(link: Link, deadline_s: float, late_share: float, state: ChannelState) -> int:
    """Bits on the air that the upload of all samples may take.

    On a still link, what the block carries by the deadline. Under fading the coming blocks are not known: what all but
    `late_share` of them carry, or with `late_share` 0 what the one last seen carries.
    """
    if link.fades and late_share > 0:
        return int(link.outage_rate_bps(late_share) * deadline_s)
    return link.budget_bits(deadline_s, state)


def greedy_layers(
    layers: Sequence[int],
    worth: LayerWorth,
    air_bits: AirBits,
    budget_bits: int,
    precisions: Sequence[int] = PRECISIONS,
) -> LayerChoice:
    """Add (or send more finely) the layer that is worth most per bit, while one fits and helps.

    Args:
        layers: To choose from.
        worth: Measures sets of them.
        budget_bits: For all samples; see `uplink_budget`.

    Raises:
        DeadlineError: not even the cheapest layer fits.
    """
    least = min(air_bits((layer,), (min(precisions),)) for layer in layers)
    if least > budget_bits:
        raise DeadlineError(
            f"the uplink carries {budget_bits} bits by the deadline, all samples with one layer at {min(precisions)} "
            f"bits need {least}; allow a longer deadline, more bandwidth or fewer samples"
        )
    chosen: dict[int, int] = {}
    error, spent = worth.error({}), 0
    start = error
    while True:
        steps = []
        for layer in layers:
            for bits in precisions:
                if bits <= chosen.get(layer, 0):
                    continue
                tried = chosen | {layer: bits}
                cost = air_bits(*_ordered(tried))
                if cost <= budget_bits:
                    left = worth.error(tried)
                    if chosen and error - left < LEAST_GAIN * start:
                        continue
                    steps.append(((error - left) / (cost - spent), -layer, -bits, left, cost, tried))
        best = max(steps, key=lambda step: step[:3], default=None)
        if best is None:
            found = _ordered(chosen)
            return LayerChoice(*found, 1 - error / start if start else 0.0)
        *_, error, spent, chosen = best


@final
class LayerWorth:
    """Held-out mean squared error of a ridge regression on sets of layers, each layer scaled to mean squared norm 1.

    It works on Gram matrices, whose sum over layers is that of their hidden states side by side, so that no set is
    ever built and one costs O(n^3).

    Args:
        received: Hidden states of a layer as they arrive.
        differences: Of the same samples, ``(n, C)``. The first half is fitted, the second held out, so give samples
            in random order.

    Raises:
        DataError: fewer than `LEAST_SAMPLES` samples.
    """

    def __init__(self, received: AsReceived, differences: np.ndarray) -> None:
        if len(differences) < LEAST_SAMPLES:
            raise DataError(
                f"layers are to be valued on {len(differences)} samples; give device.value_items at least "
                f"{LEAST_SAMPLES} and a task with as many"
            )
        self._received = received
        self._fitted = len(differences) // 2
        wanted = np.asarray(differences, np.float64)
        if wanted.shape[1] > len(wanted):  # a vocabulary: the rows' own span holds all their distances
            wanted = np.asarray(np.linalg.qr(wanted.T, mode="r")).T
        self._wanted = wanted - wanted[: self._fitted].mean(0)
        self._grams: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def error(self, bits: dict[int, int]) -> float:
        """Mean over held-out samples of the squared distance to their difference, with these layers at these bits."""
        fitted, held = self._wanted[: self._fitted], self._wanted[self._fitted :]
        if not bits:
            return _mean_square(held)
        grams = [self._gram(layer, precision) for layer, precision in sorted(bits.items())]
        gram, across = sum(one for one, _ in grams), sum(one for _, one in grams)
        return _mean_square(held - across @ _ridge(np.asarray(gram), fitted))

    def _gram(self, layer: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
        if (layer, bits) not in self._grams:
            states = np.asarray(self._received(layer, bits), np.float64)
            states = states - states[: self._fitted].mean(0)
            fitted = states[: self._fitted]
            power = _mean_square(fitted) or 1.0
            self._grams[layer, bits] = fitted @ fitted.T / power, states[self._fitted :] @ fitted.T / power
        return self._grams[layer, bits]


def _ridge(gram: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Dual weights (gram + penalty)^-1 wanted, with the penalty of least leave-one-out error.

    The error left out of sample i is that sample's dual weight over the inverse's i-th diagonal entry (Hastie,
    Tibshirani and Friedman, The Elements of Statistical Learning, 7.10).
    """
    values, vectors = np.linalg.eigh(gram)
    turned, squares = vectors.T @ wanted, vectors**2
    best, weights = np.inf, np.zeros_like(wanted)
    for penalty in np.multiply(PENALTIES, np.trace(gram) or 1.0):
        inverse = 1 / (np.maximum(values, 0) + penalty)
        found = vectors @ (inverse[:, None] * turned)
        left_out = _mean_square(found / (squares @ inverse)[:, None])
        if left_out < best:
            best, weights = left_out, found
    return weights


def _mean_square(rows: np.ndarray) -> float:
    return float((rows**2).sum(1).mean())


def _ordered(chosen: dict[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    layers = tuple(sorted(chosen))
    return layers, tuple(chosen[layer] for layer in layers)
