"""The bench of the codec on small shapes: bound, errors and rows against closed forms. No test judges a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from airtune.benches import codec
from airtune.benches.bound import least_bits
from airtune.benches.decoder import CODERS, peak_over_decoded
from airtune.benches.equal_error import format_2_at, relative_error, uniform_ways
from airtune.benches.large_adapter import SPECTRA, large_adapter
from airtune.codec import Allocation, Binding, Factors, Quantiser, encode
from airtune.errors import ModelError
from airtune.records import Silent

SMALL = {"layers": 1, "hidden": 48, "ffn": 96}


def small(seed: int = 0) -> dict[str, Factors]:
    return large_adapter(SPECTRA["text"], np.random.default_rng(seed), **SMALL)


def test_the_whole_adapter_has_opt_1_3b_s_numbers():
    sites = large_adapter(dict.fromkeys(SPECTRA["text"], (1.0,) * 8), np.random.default_rng(0))
    assert len(sites) == 144
    assert sum(site.p.size + site.lam.size + site.q.size for site in sites.values()) == codec.NUMBERS


@pytest.mark.parametrize("name", SPECTRA)
def test_a_drawn_adapter_has_the_spectrum_it_is_asked_for(name):
    assert sum(value**2 for values in SPECTRA[name].values() for value in values) == pytest.approx(6, rel=5e-3)
    drawn = large_adapter(SPECTRA[name], np.random.default_rng(0), layers=1, hidden=2048, ffn=2048)
    for site, values in zip(drawn.values(), SPECTRA[name].values(), strict=True):
        found = np.linalg.svd((np.linalg.qr(site.p * site.lam)[1]) @ np.linalg.qr(site.q.T)[1].T, compute_uv=False)
        assert found == pytest.approx(values, rel=0.1)


@pytest.mark.parametrize("lost", [1e-6, 0.05, 0.2])
def test_one_direction_takes_what_shannon_says(lost):
    """Both vectors at D = 2^(-2 R): 1 - (1 - D)^2 of the energy is lost."""
    bits = least_bits(np.array([3.0]), np.array([[100, 100]]), 1 - (1 - lost) ** 2)
    assert bits == pytest.approx(2 * 100 * 0.5 * math.log2(1 / lost), rel=1e-6)


def test_the_bound_is_what_a_general_minimiser_finds():
    energies, lengths, error = np.array([4.0, 1.0, 0.6]), np.array([[10, 30], [20, 20], [40, 5]]), 0.02

    def lost(logs: np.ndarray) -> float:
        kept = np.prod(1 - np.exp(logs.reshape(3, 2)), axis=1)
        return float((energies * (1 - kept)).sum() / energies.sum())

    found = minimize(
        lambda logs: -0.5 * (lengths.ravel() * logs).sum() / math.log(2),
        np.full(6, math.log(error / 2)),
        constraints=[{"type": "eq", "fun": lambda logs: 100 * (lost(logs) - error)}],
        bounds=[(-20, -1e-6)] * 6,
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    assert found.success
    assert least_bits(energies, lengths, error) == pytest.approx(found.fun, rel=1e-6)


def test_a_direction_beside_a_much_stronger_one_gets_no_bits():
    strong, weak = np.array([1.0]), np.array([1.0, 1e-6])
    lengths = np.full((2, 2), 50)
    assert least_bits(weak, lengths, 0.1) == pytest.approx(least_bits(strong, lengths[:1], 0.1), rel=1e-4)
    assert least_bits(weak, lengths, 1.0) == 0


def test_errors_are_those_of_the_updates():
    sent, other = small(0), small(1)
    lost = sum(((site.update() - other[name].update()) ** 2).sum() for name, site in sent.items())
    whole = sum((site.update() ** 2).sum() for site in sent.values())
    assert relative_error(sent, other) == pytest.approx(math.sqrt(lost / whole), rel=1e-5)
    assert relative_error(sent, sent) == pytest.approx(0, abs=1e-7)


def test_the_uniform_grid_has_fifteen_values_and_the_error_that_makes():
    """Numbers that are multiples of a seventh of the largest are met exactly; halves between two of them are not."""
    exact = Factors(np.array([[7.0], [-3.0], [0.0]]), np.array([0.5]), np.array([[1.0, -7.0, 5.0]]))
    largest, fitted = uniform_ways({"s": exact})
    assert largest.error == pytest.approx(0, abs=1e-7)
    assert largest.bits == fitted.bits == 6 * 4 + 16
    off = Factors(np.array([[7.0], [2.4]]), np.array([1.0]), np.array([[7.0]]))
    largest, _ = uniform_ways({"s": off})
    assert largest.error == pytest.approx(0.4 / math.hypot(7, 2.4))


def test_format_2_ends_just_below_the_error_asked_and_says_so_where_it_cannot():
    factors = small()
    quantiser = Quantiser(factors, {}, canonical=True)
    for asked in (0.05, 0.2):
        found = format_2_at(quantiser, factors, asked)
        assert 0.97 * asked <= found.error <= asked
    with pytest.raises(ModelError, match="at most 1e-09"):
        format_2_at(quantiser, factors, 1e-9)


def test_rows_hold_bits_airtime_and_a_bound_below_them():
    found = codec.measure({"text": small()}, 1, Silent())
    rows = {(row["spectrum"], row["sent as"]): row for row in found.rows}
    paper = rows["", "paper's count, float32"]
    assert paper["Mbit"] == pytest.approx(135.54, abs=0.01)
    assert paper["s, -5 dB"] == pytest.approx(135.54e6 / (1e8 * math.log2(1 + 10**-0.5)), rel=1e-4)
    assert rows["", "these shapes, float32"]["Mbit"] == pytest.approx(32e-6 * 8 * (4 * 97 + 2 * 145))
    coded = [row for row in found.rows if str(row["sent as"]).startswith("format 2")]
    assert len(coded) == 3 * 2 + 1  # three ways, rounded either way, and the bits asked
    for row in coded:
        assert 0.5 * row["Mbit"] < float(row["bound"]) < row["Mbit"]
        assert float(row["above"].rstrip("%")) == pytest.approx(100 * (row["Mbit"] / float(row["bound"]) - 1), abs=0.2)
    names = [ratio.name for ratio in found.ratios]
    assert sum(name.startswith("Mbit at the error of uniform 4 bits") for name in names) == 4
    assert sum(name.startswith("seconds to") for name in names) == 2 + len(CODERS)
    assert all(math.isfinite(ratio.measured) and ratio.measured > 0 for ratio in found.ratios)


def test_memory_is_at_least_what_is_decoded(tmp_path):
    """A megabyte of numbers from a payload in another process: they all lie in memory at the end."""
    rng = np.random.default_rng(0)
    factors = {"s": Factors(rng.normal(size=(16_000, 16)), np.ones(16), rng.normal(size=(16, 16_000)))}
    data = encode(factors, {}, Allocation.uniform(16, 8, sites=1), Binding("0" * 64, "0" * 64), {}).data
    (tmp_path / "p.atn").write_bytes(data)
    assert 1 < peak_over_decoded(tmp_path / "p.atn", "numpy") < 10
