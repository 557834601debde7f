"""What may be quantised: zeros, no directions, any layout and size of numbers, dense tensors; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from quantised_material import codes_of, quantised, received

from airtune.codec import Factors, Quantiser
from airtune.codec.coded.quantiser import code_adapter, code_tensor
from airtune.codec.coded.values import scale_values
from airtune.errors import PayloadError


def adapter(out: int = 7, rank: int = 3, into: int = 9, seed: int = 0) -> Factors:
    rng = np.random.default_rng(seed)
    return Factors(rng.normal(size=(out, rank)), rng.uniform(-2, 2, size=rank), rng.normal(size=(rank, into)))


@pytest.mark.parametrize("canonical", [False, True])
def test_zeros_and_rank_0(canonical: bool):
    nothing = quantised(adapter(rank=0), canonical=canonical)
    assert nothing.coded.sites["a.site"].rank == 0
    assert nothing.coded.sites["a.site"].shape == (7, 9)
    assert nothing.gains["a.site"].shape == (0,)
    zero = adapter()
    zero.lam[1] = 0
    found = quantised(zero, canonical=canonical)
    at = 2 if canonical else 1  # the smallest comes last
    site = found.coded.sites["a.site"]
    assert not site.p[:, at].any()
    assert not site.q[at].any()
    assert (site.bits[at], found.gains["a.site"][at], site.p_tables[at], site.q_tables[at]) == (0, 0, 0, 0)
    assert np.allclose(received(found), zero.p @ np.diag(zero.lam) @ zero.q, atol=0.1)


@pytest.mark.parametrize("canonical", [False, True])
def test_layouts_and_widths_of_the_same_numbers_give_the_same_codes(canonical: bool):
    exact = adapter()
    half = Factors(*(part.astype(np.float16) for part in (exact.p, exact.lam, exact.q)))
    double = Factors(*(part.astype(np.float64) for part in (half.p, half.lam, half.q)))
    backwards = Factors(*(part[::-1].copy()[::-1] for part in (half.p, half.lam, half.q)))
    fortran = Factors(np.asfortranarray(half.p), half.lam, np.repeat(half.q, 2, axis=1)[:, ::2])
    expected = codes_of(quantised(double, canonical=canonical))
    for same in (half, backwards, fortran):
        assert codes_of(quantised(same, canonical=canonical)) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["p", "lam", "q"])
def test_values_that_are_not_finite_are_refused(part: str, value: float):
    site = adapter()
    getattr(site, part).flat[1] = value
    with pytest.raises(PayloadError, match=r"a\.site holds a value that is not finite"):
        quantised(site)
    with pytest.raises(PayloadError, match="a bias holds a value that is not finite"):
        code_adapter({}, {"a bias": np.array([1.0, value])}, 1.0, canonical=True)


@pytest.mark.parametrize("value", [np.ones((2, 3), complex), np.array(["1", "2"]), np.array([None, 1])])
def test_numbers_that_are_not_real_are_refused(value: np.ndarray):
    with pytest.raises(PayloadError, match=r"a head has numbers of type .*, real ones expected"):
        code_adapter({}, {"a head": value}, 1.0, canonical=True)


def test_a_tensor_without_numbers_is_refused():
    with pytest.raises(PayloadError, match=r"a head has shape \(3, 0\), no numbers at all"):
        code_tensor("a head", np.zeros((3, 0)), 8.0)


@pytest.mark.parametrize("slope", [0.0, -1e-9, np.nan, np.inf])
def test_slopes_that_are_no_price_are_refused(slope: float):
    with pytest.raises(PayloadError, match="give the loss that a bit is worth, above 0"):
        quantised(adapter(), slope)


@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize(("of_p", "of_q"), [(1e-30, 1), (1e30, 1), (1e30, 1e-30), (1e-30, 1e30), (1e37, 1)])
def test_extreme_magnitudes_keep_their_accuracy(of_p: float, of_q: float, canonical: bool):
    site = adapter()
    scaled = Factors(
        (of_p * site.p).astype(np.float32), site.lam.astype(np.float32), (of_q * site.q).astype(np.float32)
    )
    at_one = quantised(site, 1e-4, canonical)
    found = quantised(scaled, 1e-4 * (of_p * of_q) ** 2, canonical)  # the loss grows with the square
    limit = 1.5 * np.abs(received(at_one) - (site.p * site.lam) @ site.q).max()  # scales fall elsewhere in the grid
    update = (scaled.p.astype(float) * scaled.lam.astype(float)) @ scaled.q.astype(float)
    assert np.abs(received(found) - update).max() <= limit * of_p * of_q
    assert np.isfinite(found.coded.sites["a.site"].factors().update()).all()


@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize(("of_p", "of_q"), [(1e30, 1e30), (3e38, 1), (1e200, 1), (1e200, 1e-200), (1e-200, 1e200)])
def test_what_float32_cannot_hold_is_refused(of_p: float, of_q: float, canonical: bool):
    site = adapter()
    with pytest.raises(PayloadError, match=r"a\.site reaches .* the limit is 8\.51e\+37") as refusal:
        quantised(Factors(of_p * site.p, site.lam, of_q * site.q), canonical=canonical)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("shape", [(), (5,), (4, 6), (3, 2, 5)])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_dense_errors_are_at_most_half_a_step(shape: tuple[int, ...], scale: float):
    value = scale * np.random.default_rng(6).normal(size=shape)
    found = code_tensor("bias", value, 16.0)
    rows = value.reshape((shape[0], -1) if len(shape) > 1 else (1, -1))
    spread = np.sqrt((rows**2).mean(axis=1))
    steps = 2.0 ** (found.scales / 4)
    assert (np.abs(np.log2(steps / (spread / 16))) <= 1 / 8 + 1e-9).all()
    decoded = found.tensor()
    assert (decoded.shape, decoded.dtype) == (shape, np.float32)
    assert (np.abs(decoded.reshape(rows.shape) - rows) <= steps[:, None] * 0.500001).all()


def test_dense_zeros_cost_nothing_and_outliers_widen_only_their_row():
    zeros = code_tensor("bias", np.zeros(40, np.float16), 16.0)
    assert (zeros.bits, zeros.tensor().tolist()) == (0, [0.0] * 40)
    rows = np.random.default_rng(7).normal(size=(3, 40000))
    rows[1, 5] = -1e6
    found = code_tensor("head", rows, 16.0)
    steps = 2.0 ** (found.scales / 4)
    assert 0.9e6 / 1026 <= steps[1] <= 1.3e6 / 1026  # as fine as the largest code allows
    assert np.allclose(steps[[0, 2]], 1 / 16, rtol=0.2)
    assert (np.abs(found.tensor() - rows) <= steps[:, None] * 0.500001).all()


def test_dense_values_beyond_float32_are_refused():
    for value in (np.float32(3.4e38), 1e60, 1e200):
        with pytest.raises(PayloadError, match="head reaches"):
            code_tensor("head", np.array([1.0, -value]), 16.0)


def test_dense_steps_follow_the_price_as_those_of_directions_do():
    """A bit at a quarter of the price: half the step. At any price a fourth of the root mean square, at most."""
    rng = np.random.default_rng(0)
    factors = {"a": Factors(rng.normal(size=(30, 2)), np.ones(2), rng.normal(size=(2, 20)))}
    head = rng.normal(size=(3, 400))
    quantiser = Quantiser(factors, {"head": head}, canonical=True)
    spread = np.sqrt((head**2).mean(axis=1))
    for price, levels in ((1, 16), (1 / 4, 32), (1 / 64, 128), (16, 4), (1e4, 4)):
        (tensor,) = quantiser.at(quantiser.usual_slope * price).coded.dense.values()
        steps = scale_values(tensor.scales)
        assert np.allclose(np.log2(spread / steps), np.log2(levels), atol=1 / 8)  # quarters of an octave
