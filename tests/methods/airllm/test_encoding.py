"""Ranks to [-1, 1] and back: lossless for every rank and cap, and why the paper's floor is not the default."""

from __future__ import annotations

import numpy as np
import pytest

from airtune.errors import ConfigError, DataError
from airtune.methods.airllm.encoding import decode, encode

CAPS = range(1, 129)


def test_encoding_by_hand():
    np.testing.assert_array_equal(encode([0, 2, 4], 4), np.array([-1, 0, 1], dtype=np.float32))
    np.testing.assert_array_equal(encode([1, 3, 0], [4, 3, 0]), np.array([-0.5, 1, 0], dtype=np.float32))
    assert encode([1], 3).dtype == np.float32
    assert decode([0.0], 3).dtype == np.int64


def test_decoding_by_hand():
    """Latent x stands for the rank 4 (x + 1) / 2: 1.4, 1.5, 1.6, 2.5; and values outside [-1, 1] are clipped."""
    latent = np.array([-0.3, -0.25, -0.2, 0.25, -7.0, 7.0, -np.inf, np.inf])
    assert decode(latent, 4).tolist() == [1, 2, 2, 3, 0, 4, 0, 4]
    assert decode(latent, 4, "floor").tolist() == [1, 1, 1, 2, 0, 4, 0, 4]


def test_every_rank_of_every_cap_comes_back():
    for cap in CAPS:
        ranks = np.arange(cap + 1)
        latent = encode(ranks, cap)
        assert latent.dtype == np.float32
        assert latent.min() == -1
        assert latent.max() == 1
        np.testing.assert_array_equal(decode(latent, cap), ranks)


@pytest.mark.parametrize("share", [-0.999, -0.5, 0.5, 0.999])
def test_noise_below_half_a_step_changes_no_rank(share: float):
    for cap in CAPS:
        ranks = np.arange(cap + 1)
        noisy = encode(ranks, cap) + np.float32(share / cap)
        np.testing.assert_array_equal(decode(noisy, cap), ranks)


def test_noise_above_half_a_step_does():
    assert decode(encode([3], 8) + 1.001 / 8, 8).tolist() == [4]
    assert decode(encode([3], 8) - 1.001 / 8, 8).tolist() == [2]


def test_caps_differ_by_site_and_broadcast_over_a_batch():
    caps = np.array([8, 0, 3, 128])
    ranks = np.random.default_rng(0).integers(0, caps + 1, size=(50, 4))
    np.testing.assert_array_equal(decode(encode(ranks, caps), caps), ranks)


def test_a_site_of_cap_0_is_always_0():
    latent = np.random.default_rng(1).normal(size=(20, 2)) * 5
    for rule in ("round", "floor"):
        assert (decode(latent, [0, 4], rule)[:, 0] == 0).all()
    assert encode([0, 4], [0, 4]).tolist() == [0.0, 1.0]
    assert decode([np.inf, -np.inf, 0.9], 0).tolist() == [0, 0, 0]


def test_imitating_itself_keeps_the_mean_rank_when_rounded_and_loses_it_when_floored():
    """20 generations, each the last one's action with noise of a third of a step, of 10,000 ranks that start at 24.

    Rounding is unbiased, so the mean stays within 0.1 (drift of rank noise: about 20 x 0.37 / sqrt(10,000) at most).
    Floor takes half a rank a generation: 24 - 20 / 2 = 14.
    """
    means = {}
    for rule in ("round", "floor"):
        rng, ranks = np.random.default_rng(2), np.full(10_000, 24)
        for _ in range(20):
            latent = encode(ranks, 64) + rng.normal(scale=1 / 3 * 2 / 64, size=ranks.shape)
            ranks = decode(latent, 64, rule)
        means[rule] = ranks.mean()
    assert means["round"] == pytest.approx(24, abs=0.1)
    assert means["floor"] == pytest.approx(14, abs=0.3)


def test_floor_alone_loses_ranks_that_are_not_exact_in_binary():
    ranks = np.arange(11)
    lost = ranks - decode(encode(ranks, 10), 10, "floor")
    assert set(lost.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: encode([5], 4), DataError, "ranks run from 5 to 5; give 0 to the site's cap"),
        (lambda: encode([-1], 4), DataError, "ranks run from -1"),
        (lambda: encode([1.5], 4), DataError, "ranks are of type float64"),
        (lambda: encode([0], -1), ConfigError, "rank cap is -1"),
        (lambda: decode([0.0], 2.5), ConfigError, "rank cap is 2.5"),
        (lambda: decode([0.0, float("nan")], 4), DataError, "1 of 2 latent values are NaN"),
        (lambda: decode([0.0], 4, "ceil"), ConfigError, "decoding rule is 'ceil'"),
    ],
)
def test_nonsense_is_refused(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
