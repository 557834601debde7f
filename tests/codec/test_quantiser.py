"""Quantising under the curvature: against dense matrices, singular values and the theory of uniform rounding."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from airtune.codec import Factors
from airtune.codec.coded.quantiser import Curvature, Quantised, canonical_vectors, code_adapter, code_site, code_tensor
from airtune.codec.coded.rounding import Metric
from airtune.errors import PayloadError

LN2 = np.log(2)


def moments(size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2 * size, size)) @ rng.normal(size=(size, size))
    return rows.T @ rows / len(rows)


def damped(weights: np.ndarray | None, size: int) -> np.ndarray:
    if weights is None:
        return np.eye(size)
    matrix = np.diag(weights) if weights.ndim == 1 else weights
    return matrix + 0.01 * np.trace(matrix) / size * np.eye(size)


def adapter(out: int = 7, rank: int = 3, into: int = 9, seed: int = 0) -> Factors:
    rng = np.random.default_rng(seed)
    return Factors(rng.normal(size=(out, rank)), rng.uniform(-2, 2, size=rank), rng.normal(size=(rank, into)))


def quantised(site: Factors, slope: float = 1e-4, canonical: bool = False, **options) -> Quantised:
    return code_adapter({"a.site": site}, {}, slope, canonical=canonical, **options)


def received(found: Quantised) -> np.ndarray:
    site = found.coded.sites["a.site"]
    return (site.p * 2.0 ** (site.scales / 4)) @ site.q


def codes(found: Quantised) -> list[list]:
    site = found.coded.sites["a.site"]
    return [site.p.tolist(), site.q.tolist(), site.scales.tolist(), site.p_tables.tolist(), site.q_tables.tolist()]


BENDS = {
    "none": (None, None),
    "diagonal": (np.arange(1.0, 8.0), np.linspace(0.1, 5, 9)),
    "matrix": (moments(7, 1), moments(9, 2)),
    "one matrix": (None, moments(9, 3)),
}


@pytest.mark.parametrize(("g", "a"), BENDS.values(), ids=BENDS)
@pytest.mark.parametrize("rank", [1, 3, 7, 8, 12])
def test_canonical_directions_are_the_singular_ones(g, a, rank: int):
    site, outputs, inputs = adapter(rank=rank), Metric(g, 7), Metric(a, 9)
    columns, rows = canonical_vectors(site, outputs, inputs)
    update, dense_g, dense_a = site.p @ np.diag(site.lam) @ site.q, damped(g, 7), damped(a, 9)
    singular = np.linalg.svd(scipy.linalg.sqrtm(dense_g).real @ update @ scipy.linalg.sqrtm(dense_a).real)[1]
    kept = min(rank, 7)  # more directions than that say nothing more
    assert columns.shape == (kept, 7)
    assert rows.shape == (kept, 9)
    assert np.allclose(columns.T @ rows, update)
    assert np.allclose(columns @ dense_g @ columns.T, np.diag(singular[:kept] ** 2))
    assert np.allclose(rows @ dense_a @ rows.T, np.eye(kept))


@pytest.mark.parametrize(("g", "a"), BENDS.values(), ids=BENDS)
@pytest.mark.parametrize("slope", [1e-5, 1e-2, 0.3])
def test_gains_are_what_the_loss_falls_by(g, a, slope: float):
    rng = np.random.default_rng(4)
    columns, rows, dense_g, dense_a = rng.normal(size=(4, 7)), rng.normal(size=(4, 9)), damped(g, 7), damped(a, 9)
    site, gains = code_site(columns, rows, Metric(g, 7), Metric(a, 9), slope, 0.0)

    def loss(error: np.ndarray) -> float:
        return 0.5 * float(np.trace(dense_g @ error @ dense_a @ error.T))

    for at in range(4):
        update = np.outer(columns[at], rows[at])
        decoded = 2.0 ** (site.scales[at] / 4) * np.outer(1.0 * site.p[:, at], site.q[at])
        assert gains[at] == pytest.approx(loss(update) - loss(update - decoded))


def large(out: int, into: int) -> tuple[Factors, float, np.ndarray, np.ndarray]:
    """A Gaussian direction, the square of its update, and its vectors with the size shared between both."""
    rng = np.random.default_rng(5)
    p, q = rng.normal(size=out), 0.02 * rng.normal(size=into)
    size = np.sqrt((p @ p) * (q @ q))
    return Factors(p[:, None], np.ones(1), q[None]), size, p * np.sqrt(size / (p @ p)), q * np.sqrt(size / (q @ q))


def documented_step(slope: float, counts: float) -> float:
    return float(np.sqrt(6 * slope / (counts * LN2)))


@pytest.mark.parametrize("per_sigma", [0.15, 0.4, 0.8])
def test_errors_of_entries_are_a_twelfth_of_the_squared_step(per_sigma: float):
    site, size, p, q = large(12000, 20000)
    step = per_sigma * p.std()
    slope = step**2 * 0.5 * size * LN2 / 6  # an error e of an entry of p grows the loss by |q|^2 e^2 / 2
    assert documented_step(slope, 0.5 * size) == pytest.approx(step)
    coded = quantised(site, slope).coded.sites["a.site"]
    p_codes, q_codes = coded.p[:, 0].astype(float), coded.q[0].astype(float)
    tolerance = 4 * np.sqrt(0.8 / len(p)) + 0.005  # four deviations of a mean of squared uniform errors
    assert np.mean((p_codes * step - p) ** 2) == pytest.approx(step**2 / 12, rel=tolerance)
    q_step = 2.0 ** (coded.scales[0] / 4) / step
    wanted = documented_step(slope, 0.5 * step**2 * (p_codes @ p_codes))
    assert abs(np.log2(q_step / wanted)) <= 1 / 8 + 1e-9  # a quarter of an octave between scales
    best = q * (p @ p_codes) / (step * (p_codes @ p_codes))
    assert np.mean((q_codes * q_step - best) ** 2) == pytest.approx(q_step**2 / 12, rel=tolerance)


@pytest.mark.parametrize("per_sigma", [0.05, 0.2, 0.6])
def test_bits_are_the_entropy_of_a_rounded_gaussian(per_sigma: float):
    site, size, p, q = large(4096, 6000)
    step = per_sigma * p.std()
    coded = quantised(site, step**2 * 0.5 * size * LN2 / 6).coded.sites["a.site"]
    q_step = 2.0 ** (coded.scales[0] / 4) / step
    exact = sum(
        len(vector) * (0.5 * np.log2(2 * np.pi * np.e * np.mean(vector**2)) - np.log2(own))
        for vector, own in ((p, step), (q, q_step))
    )
    # half octaves of sigma are at most a quarter of an octave off: (ln 2^(1/4))^2 nats, 0.043 bits; and sampling
    assert -0.01 <= (coded.bits[0] - exact) / (len(p) + len(q)) <= 0.05


@pytest.mark.parametrize("slope", [1e-5, 1e-4, 1e-3, 1e-2])
def test_a_slope_four_times_larger_saves_a_bit_an_entry(slope: float):
    site, size, p, q = large(4096, 6000)
    assert documented_step(4 * slope, 0.5 * size) < 0.7 * min(p.std(), q.std())  # fine enough for the rule
    dear, cheap = (quantised(site, price).coded.sites["a.site"].bits[0] for price in (slope, 4 * slope))
    assert (dear - cheap) / (len(p) + len(q)) == pytest.approx(1, abs=0.03)


def test_slopes_are_the_exchange_rate_of_loss_and_bits():
    site, size, _, _ = large(1500, 2500)
    update, slope = np.outer(site.p[:, 0], site.q[0]), 2.0**-13 * size * LN2 / 12  # the steps' product is on the grid
    losses, bits = [], []
    for own in (slope / 2, 2 * slope):
        found = quantised(site, own)
        losses.append(0.5 * ((received(found) - update) ** 2).sum())
        bits.append(found.coded.sites["a.site"].bits[0])
    # n entries cost n s / ln 4 of loss at slope s, and a bit each lies between these two: a secant of 1.5 s / ln 4
    assert (losses[1] - losses[0]) / (bits[0] - bits[1]) == pytest.approx(1.5 * slope / np.log(4), rel=0.05)


def test_prefixes_of_plain_directions_stay():
    site = adapter(rank=4)
    found = quantised(site, 1e-7)
    got = found.coded.sites["a.site"]
    for rank in range(5):
        prefix = (got.p[:, :rank] * 2.0 ** (got.scales[:rank] / 4)) @ got.q[:rank]
        assert np.allclose(prefix, (site.p[:, :rank] * site.lam[:rank]) @ site.q[:rank], atol=0.02)


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
    expected = codes(quantised(double, canonical=canonical))
    for same in (half, backwards, fortran):
        assert codes(quantised(same, canonical=canonical)) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["p", "lam", "q"])
def test_values_that_are_not_finite_are_refused(part: str, value: float):
    site = adapter()
    getattr(site, part).flat[1] = value
    with pytest.raises(PayloadError, match=r"a\.site holds a value that is not finite"):
        quantised(site)
    with pytest.raises(PayloadError, match="a bias holds a value that is not finite"):
        code_adapter({}, {"a bias": np.array([1.0, value])}, 1.0, canonical=True)


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
    rows = np.random.default_rng(7).normal(size=(3, 4000))
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


def test_sites_without_curvature_count_every_entry_alike():
    site, bends = adapter(), Curvature(moments(9, 2), moments(7, 1))
    plain = codes(quantised(site, curvature={"another site": bends}))
    assert plain == codes(quantised(site)) == codes(quantised(site, curvature={"a.site": Curvature()}))
    assert plain != codes(quantised(site, curvature={"a.site": bends}))
