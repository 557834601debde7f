"""Clipping and Gaussian noise on the device: what one upload of a sample tells is bounded by (epsilon, delta).

The record that is protected is one sample: its hidden states at all pivots and layers, and its differences. Knows
arrays; not models, labels or messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

from airtune.errors import ConfigError, DataError

SENSITIVITY = 2 * math.sqrt(2)
"""Of a sample's two parts, each of norm 1 at most, as one vector: replacing the sample moves either by 2 at most."""


def gaussian_delta(sigma: float, epsilon: float, sensitivity: float = 1.0) -> float:
    """The smallest delta at which noise N(0, sigma^2) on every coordinate is (epsilon, delta)-private.

    ``Phi(D / 2s - e s / D) - exp(e) Phi(-D / 2s - e s / D)`` with D the L2 sensitivity, s the noise and e epsilon
    (Balle and Wang 2018, theorem 8). Exact for the Gaussian mechanism, at every epsilon.
    """
    shift, spread = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
    return math.exp(log_ndtr(shift - spread)) - math.exp(epsilon + log_ndtr(-shift - spread))


def gaussian_sigma(epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """The smallest noise that is (epsilon, delta)-private: `gaussian_delta` solved for sigma.

    Raises:
        ConfigError: epsilon or sensitivity is not a positive number, or delta is not between 0 and 1.
    """
    if not (0 < epsilon < math.inf and 0 < delta < 1 and 0 < sensitivity < math.inf):
        raise ConfigError(
            f"epsilon {epsilon}, delta {delta} and sensitivity {sensitivity} have no noise; expected numbers above 0, "
            "delta below 1"
        )
    high = 1.0
    while gaussian_delta(high, epsilon) > delta:
        high *= 2
    low = high / 2
    while gaussian_delta(low, epsilon) <= delta:
        low /= 2
    found = brentq(
        lambda log: gaussian_delta(math.exp(log), epsilon) - delta, math.log(low), math.log(high), xtol=1e-13
    )
    return math.exp(found) * (1 + 1e-12) * sensitivity


def median_norms(
    activations: np.ndarray,
    differences: np.ndarray,
    counts: np.ndarray | None = None,
    *,
    centre: np.ndarray | float = 0.0,
) -> tuple[float, float]:
    """Norms to clip at: the medians over some samples, of hidden states ``(rows, K, d)`` and differences ``(rows, C)``.

    Args:
        counts: Rows of each sample ``(n,)``; one each when None.
        centre: As `GaussianNoise` has it.

    They depend on the samples they are taken of, and who sees clipped values can guess them: a little is leaked that
    epsilon does not count. Norms set beforehand, or measured on public texts, leak nothing. Measure once and keep
    them: other norms are another release.

    Raises:
        DataError: a median is 0 or not finite.
    """
    norms = _norms(activations - centre, differences, _rows_per_sample(len(activations), counts))
    found = tuple(float(np.median(part)) for part in norms)
    if not all(0 < one < math.inf for one in found):
        raise DataError(
            f"the median norms are {found}, above 0 expected; set privacy.clip_activations and _differences"
        )
    return found[0], found[1]


@dataclass(frozen=True, slots=True, eq=False)
class GaussianNoise:
    """Clips each sample's hidden states and differences, and adds noise to both: one mechanism over the pair.

    With A all hidden states of a sample, less a centre, clipped to norm c_A, and D its differences clipped to c_D, the
    vector (A / c_A, D / c_D) moves by at most 2 sqrt(2) when the sample is replaced by any other. Noise of `sigma` on
    it makes one upload of one sample (epsilon, delta)-private in the local model: the server need not be trusted. Both
    parts share that budget; nothing is to be added up. Rounding to fewer bits afterwards costs no privacy.

    Noise is drawn from secret and id, so that a sample sent again carries the same: sending often does not average it
    away. Hence an id must stay with its content, and the secret with one way to send (layers, space, norms): where
    either changes, both uploads together have their epsilons added, and need new noise, a new id or a new secret.
    The same text under two ids is two uploads. Ids are sent as they are; one computed from a text without a secret
    would give the text away to a guess.

    Limits: the generator is fast, not cryptographic, and floating-point noise has known gaps (Mironov 2012).

    Args:
        sigma: Noise on the scaled pair.
        clips: c_A and c_D.
        key: 128 secret bits.
        centre: Of hidden states, ``(K, d)``, taken off before clipping and put back after the noise. Most of a hidden
            state is the same in every text; without that, c_A and the noise are several times smaller. It must not
            depend on the samples: the mean over public texts, or that of `inversion.Dictionary`, which needs none.
    """

    sigma: float
    clips: tuple[float, float]
    key: tuple[int, int] = field(repr=False)
    centre: np.ndarray | float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        if not all(0 < clip < math.inf for clip in self.clips):
            raise ConfigError(f"clip norms are {self.clips}, above 0 expected; measure them with median_norms")

    @classmethod
    def calibrated(
        cls,
        epsilon: float,
        delta: float,
        clips: tuple[float, float],
        secret: np.random.Generator,
        *,
        centre: np.ndarray | float = 0.0,
    ) -> GaussianNoise:
        """The least noise for a budget; `secret` gives the key."""
        words = secret.integers(0, 2**64, 2, dtype=np.uint64).tolist()
        return cls(gaussian_sigma(epsilon, delta, SENSITIVITY), clips, (words[0], words[1]), centre)

    def outputs(self, outputs: int) -> int:
        return outputs

    def outgoing(
        self, ids: np.ndarray, activations: np.ndarray, differences: np.ndarray, counts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        counts = _rows_per_sample(len(activations), counts)
        plain = activations - self.centre, differences
        sent = []
        for values, norms, clip in zip(plain, _norms(*plain, counts), self.clips, strict=True):
            scales = clip / np.maximum(norms, clip)
            sent.append(values * np.repeat(scales, counts).reshape(-1, *[1] * (values.ndim - 1)))
        starts = np.cumsum(counts) - counts
        for one, start, count in zip(ids.tolist(), starts.tolist(), counts.tolist(), strict=True):
            counter = np.array([0, 0, 0, one], np.uint64)  # 2^192 numbers before two samples' streams meet
            rng = np.random.Generator(np.random.Philox(key=np.array(self.key, np.uint64), counter=counter))
            for values, clip in zip(sent, self.clips, strict=True):
                part = values[start : start + count]
                part += clip * self.sigma * rng.standard_normal(part.shape)
        return (sent[0] + self.centre).astype(activations.dtype), sent[1].astype(differences.dtype)

    def incoming(self, predicted: np.ndarray) -> np.ndarray:
        return predicted


def _rows_per_sample(rows: int, counts: np.ndarray | None) -> np.ndarray:
    return np.ones(rows, np.int64) if counts is None else np.asarray(counts, np.int64)


def _norms(activations: np.ndarray, differences: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms of each sample's two parts, over all its rows, ``(n,)``."""
    starts = np.cumsum(counts) - counts
    flat = (part.reshape(len(part), -1).astype(np.float64) for part in (activations, differences))
    hidden, difference = (np.sqrt(np.add.reduceat((part**2).sum(axis=1), starts)) for part in flat)
    return hidden, difference
