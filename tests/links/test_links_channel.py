"""Link and ChannelState: blocks, rates, airtime and the bits that fit a deadline."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from airtune.errors import LinkError
from airtune.links import ChannelState, Fading, Link, Nakagami, Rayleigh, Rician, Still, Trace, meets_deadline

_LINK = Link(bandwidth_hz=1e6, snr_db=0.0)
_BLOCK = ChannelState(0.0, 1e6)
_TRACE = Trace(np.array([-7.0, 2.0, 5.0, 11.0]))


def test_a_still_link_shows_its_mean_in_every_block():
    link = Link(100e6, -5.0)
    assert link.observe(np.random.default_rng(0), 3) == (ChannelState(-5.0, 100e6),) * 3
    assert link.mean_state == ChannelState(-5.0, 100e6)
    assert not link.fades


@pytest.mark.parametrize("fading", [Rayleigh(), Rician(4.0), Nakagami(2.0), _TRACE], ids=repr)
def test_blocks_have_the_asked_mean_snr(fading: Fading):
    link = Link(1e6, 10.0, fading)
    states = link.observe(np.random.default_rng(0), 20_000)
    assert link.fades
    assert {state.bandwidth_hz for state in states} == {1e6}
    assert np.mean([10 ** (state.snr_db / 10) for state in states]) == pytest.approx(10.0, rel=0.03)


def test_a_draw_follows_its_generator():
    link = Link(1e6, 10.0, Rayleigh())
    first, again = (link.observe(np.random.default_rng(4), 5) for _ in range(2))
    assert first == again
    assert len(set(first)) == 5
    assert first != link.observe(np.random.default_rng(5), 5)


@pytest.mark.parametrize(("power", "snr_db"), [(0.0, -60.0), (1e-30, -60.0), (1e30, 80.0), (0.01, -20.0)])
def test_a_block_beyond_the_range_is_cut_there(power: float, snr_db: float):
    class Fixed:
        name = "fixed"

        def gains(self, rng: np.random.Generator, blocks: int) -> np.ndarray:
            return np.full(blocks, math.sqrt(power) + 0j)

        def power_cdf(self, power: float) -> float:
            raise NotImplementedError

        power_quantile = mean_efficiency = power_cdf

    (state,) = Link(1e6, 0.0, Fixed()).observe(np.random.default_rng(0))
    assert state.snr_db == pytest.approx(snr_db, abs=1e-12)


def test_rate_by_hand():
    assert _LINK.rate_bps(_BLOCK) == 1e6
    assert _LINK.rate_bps(ChannelState(10 * math.log10(3), 5e5)) == pytest.approx(1e6, rel=1e-14)
    # a gap of 10 log10(3) dB at 10 log10(9) dB leaves an SNR of 3
    gapped = Link(1e6, 0.0, gap_db=10 * math.log10(3))
    assert gapped.rate_bps(ChannelState(10 * math.log10(9), 1e6)) == pytest.approx(2e6, rel=1e-14)


def test_airtime_and_budget_by_hand():
    assert _LINK.airtime_s(250_000, _BLOCK) == 0.25
    assert _LINK.airtime_s(0, _BLOCK) == 0.0
    assert _LINK.budget_bits(0.25, _BLOCK) == 250_000
    assert _LINK.budget_bits(1e-7, _BLOCK) == 0
    assert _LINK.airtime_s(np.int64(10), _BLOCK) == 1e-5


def test_exactly_in_time_is_in_time():
    assert meets_deadline(250_000, 1e6, 0.25)
    assert not meets_deadline(250_001, 1e6, 0.25)


def test_a_still_link_has_one_rate():
    link = Link(100e6, 5.0, gap_db=2.0)
    rate = link.rate_bps(link.mean_state)
    assert rate == link.ergodic_rate_bps() == link.outage_rate_bps(0.01) == link.outage_rate_bps(0.99)
    assert rate == pytest.approx(100e6 * math.log2(1 + 10**0.3), rel=1e-14)


@pytest.mark.parametrize("fading", [Rayleigh(), Rician(4.0), Nakagami(0.5), _TRACE], ids=repr)
def test_the_ergodic_rate_is_the_mean_of_block_rates(fading: Fading):
    link = Link(1e6, 5.0, fading, gap_db=3.0)
    rates = [link.rate_bps(state) for state in link.observe(np.random.default_rng(1), 20_000)]
    assert link.ergodic_rate_bps() == pytest.approx(np.mean(rates), abs=5 * np.std(rates) / math.sqrt(20_000) + 50)


@pytest.mark.parametrize("fading", [Rayleigh(), Rician(4.0), Nakagami(0.5)], ids=repr)
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.5])
def test_a_share_epsilon_of_blocks_is_below_the_outage_rate(fading: Fading, epsilon: float):
    link = Link(1e6, 5.0, fading, gap_db=3.0)
    outage = link.outage_rate_bps(epsilon)
    share = np.mean([link.rate_bps(state) < outage for state in link.observe(np.random.default_rng(2), 20_000)])
    assert share == pytest.approx(epsilon, abs=5 * math.sqrt(epsilon / 20_000))
    assert link.outage_probability(outage) == pytest.approx(epsilon, rel=1e-9)


def test_no_more_than_epsilon_of_a_traces_blocks_are_below_its_outage_rate():
    link = Link(1e6, 5.0, _TRACE)
    rates = sorted(link.rate_bps(state) for state in link.observe(np.random.default_rng(0), 4))
    for epsilon, worst in ((0.1, 0), (0.25, 0), (0.26, 1), (0.5, 1), (0.76, 3)):
        assert link.outage_rate_bps(epsilon) == pytest.approx(rates[worst], rel=1e-12)


def test_outage_probability_at_the_ends():
    link = Link(1e6, 0.0, Rayleigh())
    assert link.outage_probability(1e6) == pytest.approx(1 - math.exp(-1), rel=1e-14)
    assert link.outage_probability(1e-3) == pytest.approx(1e-9 * math.log(2), rel=1e-6, abs=0)
    assert link.outage_probability(1e12) == 1.0


@given(
    snr_db=st.floats(-60, 80),
    bandwidth_hz=st.floats(1e-3, 1e12),
    gap_db=st.floats(0, 60),
    deadline_s=st.floats(1e-9, 1e6),
)
@example(snr_db=0.0, bandwidth_hz=3.0, gap_db=0.0, deadline_s=1 / 3)
@example(snr_db=0.0, bandwidth_hz=1e6, gap_db=0.0, deadline_s=0.3)
@example(snr_db=0.0, bandwidth_hz=49.0, gap_db=0.0, deadline_s=1 / 49)
@example(snr_db=80.0, bandwidth_hz=1e12, gap_db=0.0, deadline_s=1e6)
def test_the_budget_meets_the_deadline_and_one_bit_more_does_not(
    snr_db: float, bandwidth_hz: float, gap_db: float, deadline_s: float
):
    link, state = Link(bandwidth_hz, 0.0, gap_db=gap_db), ChannelState(snr_db, bandwidth_hz)
    bits = link.budget_bits(deadline_s, state)
    assert isinstance(bits, int)
    assert link.airtime_s(bits, state) <= deadline_s
    if bits < 2**52:
        assert link.airtime_s(bits + 1, state) > deadline_s
    exact = Fraction(link.rate_bps(state)) * Fraction(deadline_s)  # without rounding
    assert abs(bits - exact) <= 1 + exact / 2**51


@given(bits=st.integers(1, 2**52), bandwidth_hz=st.floats(1e-3, 1e12))
def test_a_deadline_equal_to_an_airtime_admits_those_bits(bits: int, bandwidth_hz: float):
    link, state = Link(bandwidth_hz, 0.0), ChannelState(0.0, bandwidth_hz)
    deadline_s = link.airtime_s(bits, state)
    assume(1e-9 <= deadline_s <= 1e9)
    assert link.airtime_s(link.budget_bits(deadline_s, state), state) == deadline_s
    assert link.budget_bits(deadline_s, state) >= bits


@pytest.mark.parametrize("bandwidth_hz", [0.0, -1.0, math.nan, math.inf, 1e13, "1e6", None, True])
def test_an_unphysical_bandwidth_is_refused(bandwidth_hz):
    message = r"^bandwidth_hz is .*; choose 1e-06 to 1e\+12 Hz$"
    with pytest.raises(LinkError, match=message):
        ChannelState(0.0, bandwidth_hz)
    with pytest.raises(LinkError, match=message):
        Link(bandwidth_hz, 0.0)


@pytest.mark.parametrize("snr_db", [-60.1, 80.1, math.nan, math.inf, -math.inf, "5"])
def test_an_unphysical_snr_is_refused(snr_db):
    message = r"^snr_db is .*; choose -60 to 80 dB$"
    with pytest.raises(LinkError, match=message):
        ChannelState(snr_db, 1e6)
    with pytest.raises(LinkError, match=message):
        Link(1e6, snr_db)


@pytest.mark.parametrize("gap_db", [-0.1, 61.0, math.nan])
def test_a_gap_below_nothing_is_refused(gap_db: float):
    with pytest.raises(LinkError, match=r"gap_db is .*; choose 0 to 60 dB \(no code beats Shannon's rate\)"):
        Link(1e6, 0.0, gap_db=gap_db)


@pytest.mark.parametrize("fading", ["rayleigh", None, Rayleigh])
def test_what_is_no_fading_is_refused(fading):
    with pytest.raises(LinkError, match=r"fading is .*make_fading"):
        Link(1e6, 0.0, fading)


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, math.nan, math.inf, 1e10])
def test_a_deadline_that_is_none_is_refused(deadline_s: float):
    with pytest.raises(LinkError, match=r"deadline_s is .*; choose 1e-09 to 1e\+09 s"):
        _LINK.budget_bits(deadline_s, _BLOCK)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.1, 1.1, math.nan])
def test_an_epsilon_that_is_no_share_is_refused(epsilon: float):
    for link in (_LINK, Link(1e6, 0.0, Rayleigh())):
        with pytest.raises(LinkError, match=r"epsilon is .*; choose above 0 and below 1"):
            link.outage_rate_bps(epsilon)


@pytest.mark.parametrize("bits", [-1, 1.5, "8", 10**30, math.nan])
def test_bits_that_are_no_count_are_refused(bits):
    with pytest.raises(LinkError, match=r"bits is .*; choose a whole number"):
        _LINK.airtime_s(bits, _BLOCK)


def test_values_are_frozen_and_become_floats():
    state = ChannelState(5, np.float32(1e6))
    assert (type(state.snr_db), type(state.bandwidth_hz)) == (float, float)
    assert Link(1_000_000, 5) == Link(1e6, 5.0, Still(), 0.0)
    with pytest.raises(FrozenInstanceError):
        state.snr_db = 3.0  # type: ignore[misc]
