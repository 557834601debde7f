"""Quantising under the curvature: against dense matrices, singular values and the theory of uniform rounding."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from quantised_material import codes_of, quantised, received

from airtune.codec import Factors
from airtune.codec.coded.curvature import Curvature, canonical_vectors, expected_loss
from airtune.codec.coded.directions import Directions, code_sites
from airtune.codec.coded.quantiser import Quantiser
from airtune.codec.coded.rounding import Metric
from airtune.codec.coded.values import CodedSite

LN2 = np.log(2)


def moments(size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2 * size, size)) @ rng.normal(size=(size, size))
    return rows.T @ rows / len(rows)


def damped(weights: np.ndarray | None, size: int) -> np.ndarray:
    if weights is None:
        return np.eye(size)
    matrix = np.diag(weights) if weights.ndim == 1 else weights
    return (matrix + 0.1 * np.trace(matrix) / size * np.eye(size)) / 1.1


def adapter(out: int = 7, rank: int = 3, into: int = 9, seed: int = 0) -> Factors:
    rng = np.random.default_rng(seed)
    return Factors(rng.normal(size=(out, rank)), rng.uniform(-2, 2, size=rank), rng.normal(size=(rank, into)))


def error_of(site: CodedSite, at: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What one direction's update still lacks."""
    decoded = 2.0 ** (site.scales[at] / 4) * np.outer(site.p[:, at].astype(float), site.q[at])
    return np.outer(columns[at], rows[at]) - decoded


def loss_of(error: np.ndarray, g: np.ndarray, a: np.ndarray) -> float:
    return 0.5 * float(np.trace(g @ error @ a @ error.T))


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
    site, gains = code_sites({"s": Directions.of(columns, rows, Metric(g, 7), Metric(a, 9))}, slope, 0.0)["s"]

    for at in range(4):
        before, after = np.outer(columns[at], rows[at]), error_of(site, at, columns, rows)
        assert gains[at] == pytest.approx(loss_of(before, dense_g, dense_a) - loss_of(after, dense_g, dense_a))


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


@pytest.mark.parametrize("spread", [0.0, 1.0], ids=["alike", "bent"])
def test_under_curvature_every_entry_costs_the_same_loss(spread: float):
    rng, slope = np.random.default_rng(8), 1e-3
    g, a = (spread * size * moments(size, size) / np.trace(moments(size, size)) + np.eye(size) for size in (20, 30))
    columns, rows = rng.normal(size=(100, 20)), rng.normal(size=(100, 30))
    site, _ = code_sites({"s": Directions.of(columns, rows, Metric(g, 20), Metric(a, 30))}, slope, 0.0)["s"]
    losses = [loss_of(error_of(site, at, columns, rows), damped(g, 20), damped(a, 30)) for at in range(100)]
    # w step^2 / 12 at a squared step of 6 s / (w ln 2), for P's entries and Q's, whatever w is
    assert np.mean(losses) == pytest.approx((20 + 30) * slope / np.log(4), rel=0.07)


@pytest.mark.parametrize("slope", [1e-3, 0.1, 0.5])
def test_q_is_rounded_against_the_rounded_p(slope: float):
    rng, g = np.random.default_rng(9), moments(7, 1)
    columns, rows = rng.normal(size=(6, 7)), rng.normal(size=(6, 9))
    site, _ = code_sites({"s": Directions.of(columns, rows, Metric(g, 7), Metric(None, 9))}, slope, 0.0)["s"]
    assert site.q.any()
    for at in range(6):
        p = 2.0 ** (site.scales[at] / 4) * site.p[:, at]
        if p.any():  # least squares under G for what is left to choose
            exact = p @ damped(g, 7) @ np.outer(columns[at], rows[at]) / (p @ damped(g, 7) @ p)
            assert np.array_equal(site.q[at], np.rint(exact))


def test_prefixes_of_plain_directions_stay():
    site = adapter(rank=4)
    found = quantised(site, 1e-7)
    got = found.coded.sites["a.site"]
    for rank in range(5):
        prefix = (got.p[:, :rank] * 2.0 ** (got.scales[:rank] / 4)) @ got.q[:rank]
        assert np.allclose(prefix, (site.p[:, :rank] * site.lam[:rank]) @ site.q[:rank], atol=0.02)


def test_sites_without_curvature_count_every_entry_alike():
    site, bends = adapter(), Curvature(moments(9, 2), moments(7, 1))
    plain = codes_of(quantised(site, curvature={"another site": bends}))
    assert plain == codes_of(quantised(site)) == codes_of(quantised(site, curvature={"a.site": Curvature()}))
    assert plain != codes_of(quantised(site, curvature={"a.site": bends}))


def test_a_site_of_which_calibration_saw_nothing_counts_a_hundredth_of_the_others():
    """As if its moments were a tenth of the others' mean; not as if they were 1, in units of another size."""
    sites = {name: adapter(seed=seed) for seed, name in enumerate("abc")}
    seen = {name: Curvature(1e-6 * moments(9, seed), 1e-9 * moments(7, seed)) for seed, name in enumerate("ab")}
    mean_a, mean_g = (
        np.mean([np.trace(getattr(bends, which)) / size for bends in seen.values()])
        for which, size in (("inputs", 9), ("outputs", 7))
    )
    zeros = Curvature(np.zeros((9, 9)), np.zeros(7))
    alike = Curvature(0.1 * mean_a * np.eye(9), np.full(7, 0.1 * mean_g))
    found, expected = (Quantiser(sites, {}, {**seen, "c": bends}, canonical=True).at(1e-18) for bends in (zeros, alike))
    np.testing.assert_allclose(found.gains["c"], expected.gains["c"], rtol=1e-9)
    assert np.array_equal(found.coded.sites["c"].p, expected.coded.sites["c"].p)
    assert found.coded.sites["c"].p.any()
    assert expected_loss(sites["c"], sites["a"], zeros) < 1e-90


@pytest.mark.parametrize("power", [-100, -64, 40])
def test_updates_of_any_size_are_rounded_alike(power: int):
    """Powers of two move the scales and nothing else."""
    site = adapter()
    plain, moved = (
        Quantiser({"s": Factors(site.p, lam, site.q)}, {}, canonical=True)
        for lam in (site.lam, np.ldexp(site.lam, power))
    )
    found, expected = moved.at(moved.usual_slope).coded.sites["s"], plain.at(plain.usual_slope).coded.sites["s"]
    assert moved.usual_slope == pytest.approx(plain.usual_slope * 2.0 ** (2 * power))
    assert np.array_equal(found.p, expected.p)
    assert np.array_equal(found.q, expected.q)
    assert np.array_equal(found.scales, expected.scales + 4 * power)
    assert found.p.any(axis=0).all()
