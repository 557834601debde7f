"""The entropy coder: tables against exact exponentials, words against constriction and a coder in whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.codec.entropy import LANE_CODES, LARGEST_CODE, TABLES, best_table, code_bits, lanes, largest_code, native
from airtune.codec.entropy.tables import RATIOS, table
from airtune.errors import PayloadError

ANY = settings(deadline=None, max_examples=40)
GAUSSIANS = range(1, TABLES)
NATIVE = pytest.param(native, marks=pytest.mark.skipif(not native.AVAILABLE, reason="constriction is not installed"))
CODERS = [pytest.param(lanes, id="numpy"), pytest.param(*NATIVE.values, marks=NATIVE.marks, id="constriction")]

Lane = tuple[np.ndarray, np.ndarray]


def lane_of(vectors: list[tuple[int, list[float]]]) -> Lane:
    """Codes and tables from stretches of one table, each code given as a share of the table's largest."""
    codes = [round(share * largest_code(index)) for index, shares in vectors for share in shares]
    tables = [index for index, shares in vectors for _ in shares]
    return np.array(codes, np.int16), np.array(tables, np.uint8)


SHARES = st.one_of(st.floats(-1, 1), st.floats(-0.2, 0.2), st.sampled_from([-1.0, 0.0, 1.0]))
LANES = st.lists(st.tuples(st.sampled_from(GAUSSIANS), st.lists(SHARES, max_size=25)), max_size=4).map(lane_of)


def scalar_words(codes: np.ndarray, tables: np.ndarray) -> list[int]:
    """Asymmetric numeral systems one code at a time, last code first, in Python's whole numbers."""
    state, words = 0, []
    for code, index in zip(codes.tolist()[::-1], tables.tolist()[::-1], strict=True):
        frequencies = table(index).frequencies.tolist()
        at = code + len(frequencies) // 2
        frequency = frequencies[at]
        if state >= frequency << 40:  # the next state would not fit 64 bits
            words.append(state % 2**32)
            state //= 2**32
        state = state // frequency * 2**24 + state % frequency + sum(frequencies[:at])
    while state:
        words.append(state % 2**32)
        state //= 2**32
    return words


def gaussian_lane(sigma: float, count: int, seed: int = 0) -> Lane:
    codes = np.rint(np.random.default_rng(seed).normal(scale=sigma, size=count)).astype(np.int16)
    return codes, np.full(count, best_table(codes)[0], np.uint8)


def outcome(decode: Callable, received: list[Lane]) -> list[list[int]] | str:
    try:
        return [codes.tolist() for codes in decode(received)]
    except PayloadError:
        return "refused"


def exact_weights(index: int) -> np.ndarray:
    """exp(-k^2 / (2 sigma^2)) with sigma = 2^(j / 2 - 3), of all codes, summing to 1."""
    k = np.arange(-largest_code(index), largest_code(index) + 1)
    weights = np.exp(-(k**2) / (2 * 4.0 ** (index / 2 - 3)))
    return weights / weights.sum()


def test_ratios_are_exponentials():
    assert RATIOS[0] == 0
    with localcontext() as context:
        context.prec = 60
        exact = [int(2**32 * (-(Decimal(2) ** (5 - index))).exp()) for index in GAUSSIANS]
    assert list(RATIOS[1:]) == exact


def test_largest_codes():
    assert largest_code(0) == 0
    for index in GAUSSIANS:
        root = next(m for m in range(2000) if m * m >= 2**index)
        assert largest_code(index) == root + 2 == table(index).largest
    assert LARGEST_CODE == 1026


@pytest.mark.parametrize("index", range(TABLES))
def test_tables_are_frequencies_out_of_2_to_the_24(index: int):
    frequencies = table(index).frequencies
    assert len(frequencies) == 2 * largest_code(index) + 1
    assert frequencies.sum() == 2**24
    assert frequencies.min() >= 1
    assert np.array_equal(frequencies, frequencies[::-1])
    assert (np.diff(frequencies[len(frequencies) // 2 :]) <= 0).all()


@pytest.mark.parametrize("index", GAUSSIANS)
def test_tables_are_discrete_gaussians(index: int):
    exact, found = exact_weights(index), table(index).frequencies / 2**24
    divergence = (exact * np.log2(np.maximum(exact, 1e-300) / found)).sum()
    # a part in 2^24 is kept for every code: with exact weights no code costs more than this over its ideal
    assert 0 <= divergence <= -np.log2(1 - len(exact) / 2**24) + 1e-6
    bounds = (exact * len(exact) + 3) / 2**24  # that share, and whole numbers
    bounds[largest_code(index)] = len(exact) / 2**24  # code 0 takes what whole numbers leave of all the others
    assert (np.abs(found - exact) <= bounds).all()


def test_code_bits_are_the_tables_logarithms():
    for index in (1, 9, 20):
        frequencies, bits = table(index).frequencies, code_bits(index)
        held = largest_code(index)
        assert np.allclose(2.0 ** (24 - bits[: held + 1]), frequencies[held:])
        assert np.isinf(bits[held + 1 :]).all()
        assert len(bits) == LARGEST_CODE + 1


@pytest.mark.parametrize("sigma", [0.25, 0.4, 1.7, 9.0, 130.0])
def test_best_table_is_the_cheapest_of_all(sigma: float):
    codes = np.rint(np.random.default_rng(1).normal(scale=sigma, size=300)).astype(np.int16)
    costs = {}
    for index in GAUSSIANS:
        largest, frequencies = largest_code(index), table(index).frequencies
        if np.abs(codes).max() <= largest:
            costs[index] = sum(24 - np.log2(frequencies[code + largest]) for code in codes.tolist())
    best, bits = best_table(codes)
    assert best == min(costs, key=costs.__getitem__)
    assert bits == pytest.approx(costs[best])


def test_zeros_and_nothing_cost_nothing():
    assert best_table(np.zeros(9, np.int16)) == (0, 0.0)
    assert best_table(np.zeros(0, np.int16)) == (0, 0.0)


def test_no_table_holds_what_is_too_large():
    """The last one holds LARGEST_CODE, at a price; one more none does."""
    for sign in (1, -1):
        index, bits = best_table(np.array([0, sign * LARGEST_CODE]))
        assert index == TABLES - 1
        assert 0 < bits < np.inf
        assert best_table(np.array([0, sign * (LARGEST_CODE + 1)]))[1] == np.inf


@ANY
@given(st.lists(LANES, max_size=5))
def test_words_are_those_of_a_coder_in_whole_numbers(material: list[Lane]):
    assert [words.tolist() for words in lanes.encode_lanes(material)] == [scalar_words(*lane) for lane in material]


@ANY
@given(st.lists(LANES, max_size=4))
def test_words_are_those_of_constriction(material: list[Lane]):
    constriction = pytest.importorskip("constriction")
    expected = []
    for codes, tables in material:
        coder = constriction.stream.stack.AnsCoder()
        for code, index in zip(codes.tolist()[::-1], tables.tolist()[::-1], strict=True):
            weights = (table(index).frequencies - 1).astype(np.float32)
            model = constriction.stream.model.Categorical(weights, perfect=False)
            coder.encode_reverse(np.array([code + largest_code(index)], np.int32), model)
        expected.append(coder.get_compressed().tobytes())
    assert [words.tobytes() for words in lanes.encode_lanes(material)] == expected
    assert [words.tobytes() for words in native.encode_lanes(material)] == expected


@pytest.mark.parametrize("writer", CODERS)
@pytest.mark.parametrize("reader", CODERS)
def test_either_reads_what_the_other_wrote(writer, reader):
    @ANY
    @given(st.lists(LANES, max_size=5))
    def round_trip(material: list[Lane]):
        words = writer.encode_lanes(material)
        assert all(found.dtype == np.uint32 for found in words)
        read = reader.decode_lanes([(found, tables) for found, (_, tables) in zip(words, material, strict=True)])
        assert [codes.tolist() for codes in read] == [codes.tolist() for codes, _ in material]
        assert all(codes.dtype == np.int16 for codes in read)

    round_trip()


@pytest.mark.parametrize("coder", CODERS)
def test_empty_lanes_and_lanes_of_one(coder):
    assert coder.encode_lanes([]) == []
    assert coder.decode_lanes([]) == []
    empty, one, other = lane_of([]), lane_of([(7, [0.25])]), lane_of([(20, [-1.0])])
    words = coder.encode_lanes([empty, one, other, empty])
    assert [len(found) for found in words] == [0, 1, 0, 0]  # the lowest code's range begins at 0, the empty state
    read = coder.decode_lanes([(words[0], empty[1]), (words[1], one[1]), (words[2], other[1])])
    assert [codes.tolist() for codes in read] == [[], one[0].tolist(), other[0].tolist()]


@pytest.mark.parametrize("sigma", [0.35, 0.8, 3.0, 21.0, 120.0])
def test_a_full_lane_costs_what_its_table_says(sigma: float):
    codes, tables = gaussian_lane(sigma, LANE_CODES)
    frequencies, largest = table(int(tables[0])).frequencies, largest_code(int(tables[0]))
    ideal = (24 - np.log2(frequencies[codes + largest])).sum()
    (words,) = lanes.encode_lanes([(codes, tables)])
    assert 0.999 * ideal <= 32 * len(words) <= 1.01 * ideal


def damaged(words: np.ndarray, kind: str, at: int, bit: int) -> np.ndarray:
    at = at % max(len(words), 1)
    if kind == "flip" and len(words):
        words = words.copy()
        words[at] ^= np.uint32(1 << bit)
    elif kind == "drop":
        words = np.delete(words, slice(at, at + 1))
    elif kind == "zero":
        words = np.append(words, np.uint32(0))
    elif kind == "more":
        words = np.append(words, np.array([bit * 77 + 1] * (1 + bit % 3), np.uint32))
    elif kind == "front":
        words = np.insert(words, 0, np.uint32(at))
    return words


@settings(deadline=None, max_examples=100)
@given(
    st.lists(LANES, min_size=1, max_size=3),
    st.sampled_from(["flip", "drop", "zero", "more", "front"]),
    st.integers(0, 40),
    st.integers(0, 31),
)
def test_damaged_words_are_refused_or_give_codes_in_range(material: list[Lane], kind: str, at: int, bit: int):
    words = lanes.encode_lanes(material)
    victim = at % len(words)
    words[victim] = damaged(words[victim], kind, at, bit)
    received = [(found, tables) for found, (_, tables) in zip(words, material, strict=True)]
    read = outcome(lanes.decode_lanes, received)
    if native.AVAILABLE:
        assert outcome(native.decode_lanes, received) == read
    if kind == "zero":
        assert read == "refused"
    if read != "refused":
        for codes, (_, tables) in zip(read, received, strict=True):
            assert len(codes) == len(tables)
            assert all(abs(code) <= largest_code(index) for code, index in zip(codes, tables.tolist(), strict=True))


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("words", [[0], [5, 0], [0, 0], [5, 0, 0], [3], [2**32 - 1] * 3])
def test_words_where_no_codes_are_expected_are_refused(coder, words: list[int]):
    with pytest.raises(PayloadError, match="get the payload again"):
        coder.decode_lanes([(np.array(words, np.uint32), np.zeros(0, np.uint8))])


@pytest.mark.parametrize("coder", CODERS)
def test_a_lane_cut_short_or_lengthened_never_decodes_to_its_codes(coder):
    codes, tables = gaussian_lane(6.0, 200)
    (words,) = coder.encode_lanes([(codes, tables)])
    for wrong in (words[:-1], words[1:], words[:0], np.append(words, np.uint32(9)), np.append(np.uint32(9), words)):
        read = outcome(coder.decode_lanes, [(wrong, tables)])
        assert read != [codes.tolist()]
