"""The order directions are sent in, against every choice of ranks; and how they fall into chunks."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.codec.coded.order import by_level, by_value, chunk_of

Lists = list[list[tuple[float, float]]]

GAINS_AND_BITS = st.lists(
    st.lists(st.tuples(st.integers(-6, 12), st.integers(1, 8)), max_size=4), min_size=1, max_size=3
)


def order_of(sites: Lists) -> list[tuple[int, int]]:
    gains = [np.array([gain for gain, _ in site], float) for site in sites]
    return by_value(gains, [np.array([bits for _, bits in site], float) for site in sites])


def total(sites: Lists, directions: list[tuple[int, int]]) -> tuple[float, float]:
    gains, bits = zip(*(sites[site][at] for site, at in directions), strict=True) if directions else ((), ())
    return sum(gains), sum(bits)


def every_choice(sites: Lists) -> list[tuple[float, float]]:
    """Gain and bits of every choice of how many of its first directions each site sends."""
    choices = product(*(range(len(site) + 1) for site in sites))
    return [total(sites, [(site, at) for site, rank in enumerate(ranks) for at in range(rank)]) for ranks in choices]


@settings(deadline=None, max_examples=150)
@given(GAINS_AND_BITS)
def test_every_direction_is_sent_once_after_those_before_it(sites: Lists):
    order = order_of(sites)
    assert sorted(order) == [(site, at) for site, directions in enumerate(sites) for at in range(len(directions))]
    for site in range(len(sites)):
        assert [at for other, at in order if other == site] == list(range(len(sites[site])))


@settings(deadline=None, max_examples=150)
@given(GAINS_AND_BITS, st.lists(st.floats(-7, 13), min_size=1, max_size=5))
def test_at_every_price_of_a_bit_a_prefix_is_the_best_choice(sites: Lists, prices: list[float]):
    order, choices = order_of(sites), every_choice(sites)
    prefixes = [total(sites, order[:length]) for length in range(len(order) + 1)]
    rates = [gain / bits for gain, bits in choices if bits]
    for price in (*prices, *rates[:8]):
        best = max(gain - price * bits for gain, bits in choices)
        assert max(gain - price * bits for gain, bits in prefixes) == pytest.approx(best, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 9)), max_size=4), min_size=1, max_size=3))
def test_concave_sites_are_sorted_by_gain_per_bit(sites: Lists):
    concave = [sorted(site, key=lambda pair: -pair[0] / pair[1]) for site in sites]
    rates = [concave[site][at][0] / concave[site][at][1] for site, at in order_of(concave)]
    assert rates == sorted(rates, reverse=True)


def test_every_prefix_of_a_concave_order_is_the_best_of_its_size():
    sites = [[(9.0, 1.0), (4.0, 1.0), (1.0, 1.0)], [(7.0, 1.0), (5.0, 1.0)], [(6.0, 1.0), (2.0, 1.0), (0.5, 1.0)]]
    order = order_of(sites)
    assert order == [(0, 0), (1, 0), (2, 0), (1, 1), (0, 1), (2, 1), (0, 2), (2, 2)]
    for length in range(len(order) + 1):
        best = max(gain for gain, bits in every_choice(sites) if bits <= length)
        assert total(sites, order[:length])[0] == best


def test_a_weak_direction_before_a_strong_one_counts_with_it():
    # site 0 alone: 1 per bit, then 9: 5 per bit together, between site 1's 6 and 4
    assert order_of([[(1, 1), (9, 1)], [(6, 1), (4, 1)]]) == [(1, 0), (0, 0), (0, 1), (1, 1)]
    # a third one raises both before it, but only while that is better
    assert order_of([[(1, 1), (2, 1), (12, 1), (1, 1)], [(5.5, 1), (4.5, 1)]])[:4] == [(1, 0), (0, 0), (0, 1), (0, 2)]


def test_directions_that_cost_nothing_and_sites_without_any():
    assert order_of([[], [(2.0, 0.0), (0.0, 0.0)], [(3.0, 2.0)], []]) == [(1, 0), (2, 0), (1, 1)]
    assert order_of([]) == []


def test_by_level_takes_first_directions_first():
    assert by_level([2, 0, 3, 1]) == [(0, 0), (2, 0), (3, 0), (0, 1), (2, 1), (2, 2)]
    assert by_level([0, 0]) == []
    assert by_level([]) == []


@pytest.mark.parametrize(
    ("total_bytes", "chunks"),
    [
        (1000, 1),
        (2048, 1),
        (4096, 2),  # at least 2048 bytes each
        (16384, 8),
        (65536, 8),
        (8 * 65536, 8),
        (16 * 65536, 16),  # at most 65536 each
        (1000 * 65536, 1000),
    ],
)
def test_the_number_of_chunks_by_hand(total_bytes: int, chunks: int):
    bits = np.full(8 * chunks, total_bytes / chunks)  # eight equal directions a chunk, 8 bits to a byte
    assert chunk_of(bits).tolist() == [chunk for chunk in range(chunks) for _ in range(8)]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(1, 40000), min_size=1, max_size=400), st.sampled_from([1, 30, 3000]))
def test_chunks_are_in_order_and_roughly_equal(bits: list[float], times: int):
    own = times * np.array(bits)
    found, whole = chunk_of(own), own.sum()
    assert (np.diff(found) >= 0).all()
    assert found[0] == 0
    size = min(max(whole / 64, 2048), 65536)  # bytes: an eighth of the whole, within the bounds
    count = max(1, round(whole / 8 / size))
    for chunk in set(found.tolist()):
        assert own[found == chunk].sum() <= whole / count + own.max() + 1e-6  # no more than one direction over
    if own.max() < whole / count:
        assert set(found.tolist()) == set(range(count))


def test_no_directions_have_no_chunks():
    assert chunk_of(np.zeros(0)).tolist() == []
