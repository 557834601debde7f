"""The symbol-level channel: what it measures is what the rest of the room assumes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from airtune.errors import LinkError
from airtune.links import Rayleigh, db_to_linear, linear_to_db
from airtune.links.waveform import mean_power, normalised, received_snr, transmit

_SYMBOLS = 200_000


def _codeword(power: float) -> np.ndarray:
    rng = np.random.default_rng(7)
    return normalised(rng.choice(np.array([1 + 1j, 1 - 1j, -1 + 1j, -3 - 1j]), _SYMBOLS), power)


def test_mean_power_by_hand():
    assert mean_power(np.array([3 + 4j, 0, 1j])) == pytest.approx(26 / 3)
    assert mean_power(np.array([2, -2])) == 4.0


@pytest.mark.parametrize("power", [1e-9, 1.0, 40.0])
def test_a_normalised_codeword_has_the_power_and_the_same_shape_of_signal(power: float):
    codeword = np.array([1 + 1j, -2.0, 0.5j])
    scaled = normalised(codeword, power)
    assert mean_power(scaled) == pytest.approx(power, rel=1e-14, abs=0)
    np.testing.assert_allclose(scaled / scaled[0], codeword / codeword[0], rtol=1e-14)
    assert transmit(scaled, gain=1.0, power=power, noise_power=1.0, rng=np.random.default_rng(0)).shape == (3,)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 15.0])
@pytest.mark.parametrize("gain", [1.0, 0.3 - 0.8j])
def test_measured_snr_is_the_asked_one(snr_db: float, gain: complex):
    power = 2.0
    noise_power = abs(gain) ** 2 * power / db_to_linear(snr_db)
    codeword = _codeword(power)
    received = transmit(codeword, gain=gain, power=power, noise_power=noise_power, rng=np.random.default_rng(1))
    noise = received - gain * codeword
    measured = np.mean(np.abs(gain * codeword) ** 2) / np.mean(np.abs(noise) ** 2)
    assert linear_to_db(float(measured)) == pytest.approx(snr_db, abs=0.05)
    assert linear_to_db(received_snr(gain, power, noise_power)) == pytest.approx(snr_db, abs=1e-12)


def test_noise_is_circular_white_and_independent_of_the_signal():
    codeword = _codeword(1.0)
    noise = transmit(codeword, gain=1.0, power=1.0, noise_power=0.5, rng=np.random.default_rng(2)) - codeword
    error = 5 / math.sqrt(_SYMBOLS)
    assert np.var(noise.real) == pytest.approx(0.25, abs=error)
    assert np.var(noise.imag) == pytest.approx(0.25, abs=error)
    assert abs(np.mean(noise.real * noise.imag)) < error
    assert abs(np.mean(noise[1:] * noise[:-1].conj())) < error
    assert abs(np.mean(noise * codeword.conj())) < error


def test_one_gain_holds_for_the_whole_block():
    (gain,) = Rayleigh().gains(np.random.default_rng(3), 1)
    codeword = _codeword(1.0)
    received = transmit(codeword, gain=gain, power=1.0, noise_power=1e-20, rng=np.random.default_rng(4))
    np.testing.assert_allclose(received / codeword, gain, rtol=1e-8)


def test_a_codeword_over_the_power_constraint_is_refused():
    codeword = normalised(np.ones(4), 1.01)
    with pytest.raises(LinkError, match=r"mean power 1\.01, allowed is 1; scale it with normalised\(\)"):
        transmit(codeword, gain=1.0, power=1.0, noise_power=1.0, rng=np.random.default_rng(0))


def test_the_constraint_is_on_the_mean_and_lets_peaks_through():
    peaked = np.array([2.0, 0, 0, 0])
    received = transmit(peaked, gain=1.0, power=1.0, noise_power=1e-12, rng=np.random.default_rng(0))
    np.testing.assert_allclose(received, peaked, atol=1e-4)


@pytest.mark.parametrize("codeword", [np.array([]), np.ones((2, 2)), np.array(["a"]), np.array([math.nan]), 1.0])
def test_what_is_no_codeword_is_refused(codeword):
    with pytest.raises(LinkError, match="a codeword has"):
        mean_power(codeword)


def test_silence_cannot_be_scaled():
    with pytest.raises(LinkError, match="mean power 0; give at least one symbol that is not zero"):
        normalised(np.zeros(3), 1.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"power": 0.0}, r"power is 0\.0"),
        ({"noise_power": -1.0}, r"noise_power is -1\.0"),
        ({"noise_power": math.nan}, "noise_power is nan"),
        ({"gain": complex(math.nan, 0)}, "gain| is nan"),
    ],
)
def test_unphysical_values_are_refused(bad: dict[str, complex], message: str):
    good = {"gain": 1.0, "power": 1.0, "noise_power": 1.0}
    with pytest.raises(LinkError, match=message):
        transmit(np.ones(2), **{**good, **bad}, rng=np.random.default_rng(0))
