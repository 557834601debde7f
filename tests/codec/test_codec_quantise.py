"""Packed numbers: bytes worked out by hand, error bounds, and rows that do not depend on one another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from airtune.codec.blockwise.quantise import pack, packed_bytes, unpack
from airtune.errors import PayloadError

ANY = settings(deadline=None, max_examples=60)
ROWS = arrays(
    np.float32,
    st.tuples(st.integers(0, 3), st.integers(1, 150)),
    elements=st.one_of(
        st.floats(-1, 1, width=32), st.floats(-60000, 60000, width=32), st.floats(-(2.0**-18), 2.0**-18, width=32)
    ),
)


def back(rows: np.ndarray, bits: int) -> np.ndarray:
    return unpack(pack(rows, bits), rows.shape[1], bits)


def peaks(rows: np.ndarray) -> np.ndarray:
    """Largest magnitude in each number's block of 64, in float64."""
    found = np.zeros(rows.shape)
    for start in range(0, rows.shape[1], 64):
        block = np.abs(rows[:, start : start + 64].astype(float))
        found[:, start : start + 64] = block.max(axis=1, keepdims=True, initial=0)
    return found


def test_8_bits_by_hand():
    packed = pack(np.array([[127, -64, 0, 1]], np.float32), 8)
    assert packed.tobytes() == b"\x00\x3c" + bytes([127, 256 - 64, 0, 1])  # scale 1.0 in float16, then codes


def test_4_bits_by_hand():
    packed = pack(np.array([[7, -7, 0, 1, 3]], np.float32), 4)
    # scale 1.0; codes + 8 are 15, 1, 8, 9, 11; the earlier of two in the low half
    assert packed.tobytes() == b"\x00\x3c" + bytes([0x1F, 0x98, 0x0B])


def test_16_and_32_bits_are_ieee_floats():
    row = np.array([[1.0, -2.5]], np.float32)
    assert pack(row, 16).tobytes() == b"\x00\x3c\x00\xc1"
    assert pack(row, 32).tobytes() == b"\x00\x00\x80\x3f\x00\x00\x20\xc0"


@pytest.mark.parametrize(
    ("numbers", "bits", "expected"),
    [(64, 4, 34), (65, 4, 37), (1, 4, 3), (64, 8, 66), (65, 8, 69), (384, 8, 396), (3, 16, 6), (3, 32, 12)],
)
def test_packed_bytes_by_hand(numbers: int, bits: int, expected: int):
    assert packed_bytes(numbers, bits) == expected
    assert pack(np.ones((2, numbers), np.float32), bits).shape == (2, expected)


@ANY
@given(ROWS)
def test_32_bits_are_exact(rows: np.ndarray):
    assert back(rows, 32).tobytes() == rows.tobytes()


@ANY
@given(ROWS)
def test_16_bits_round_as_float16_does(rows: np.ndarray):
    assert np.array_equal(back(rows, 16), rows.astype(np.float16).astype(np.float32))


@ANY
@given(ROWS)
def test_8_bit_errors_are_within_half_a_scale(rows: np.ndarray):
    # absmax / 254, the scale at most 2^-10 or one subnormal step larger, and float32 rounding of x / scale
    bound = peaks(rows) / 254 * (1 + 2.0**-10) + 2.0**-25
    assert (np.abs(back(rows, 8) - rows.astype(float)) <= bound * (1 + 2.0**-14)).all()


@ANY
@given(ROWS)
def test_4_bit_squared_errors_are_no_worse_than_absmax_scales(rows: np.ndarray):
    error = np.square(back(rows, 4).astype(float) - rows)
    bound = np.square(peaks(rows) / 14 * (1 + 2.0**-10) + 2.0**-25)
    for start in range(0, rows.shape[1], 64):
        block = slice(start, start + 64)
        assert (error[:, block].mean(axis=1) <= bound[:, block].mean(axis=1) * (1 + 2.0**-14)).all()


def test_the_4_bit_scale_search_beats_absmax_on_normal_numbers():
    rows = np.random.default_rng(0).normal(size=(32, 640)).astype(np.float32)
    scale = peaks(rows) / 7
    absmax = np.square(np.rint(rows / scale) * scale - rows).sum()
    searched = np.square(back(rows, 4) - rows).sum()
    assert searched < 0.9 * absmax


@pytest.mark.parametrize("bits", [4, 8])
def test_multiples_of_a_float16_scale_are_exact(bits: int):
    largest = {4: 7, 8: 127}[bits]
    row = np.arange(largest, max(-largest - 1, largest - 64), -1, dtype=np.float32)[None] * 0.25  # one block
    assert np.array_equal(back(row, bits), row)


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_zeros_stay_zeros(bits: int):
    assert not back(np.zeros((2, 70), np.float32), bits).any()


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_a_row_packs_the_same_alone_and_among_others(bits: int):
    rows = np.random.default_rng(3).normal(size=(5, 131)).astype(np.float32)
    together = pack(rows, bits)
    alone = np.concatenate([pack(rows[i : i + 1], bits) for i in range(5)])
    assert np.array_equal(together, alone)
    assert np.array_equal(unpack(together[2:3], 131, bits)[0], unpack(together, 131, bits)[2])


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_beyond_float16_is_refused_below_32_bits(bits: int):
    rows = np.array([[1.0, -65520.0]], np.float32)
    with pytest.raises(PayloadError, match="65520"):
        pack(rows, bits)
    assert np.array_equal(back(rows, 32), rows)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("bits", [4, 8])
def test_scales_that_are_negative_or_not_finite_are_refused(bits: int, scale: float):
    packed = pack(np.ones((1, 65), np.float32), bits)
    packed[0, 2:4] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    with pytest.raises(PayloadError, match="scale"):
        unpack(packed, 65, bits)


@pytest.mark.parametrize("bits", [16, 32])
def test_floats_that_are_not_finite_are_refused(bits: int):
    packed = np.full((1, bits // 8), 0xFF, np.uint8)
    with pytest.raises(PayloadError, match="not finite"):
        unpack(packed, 1, bits)


@pytest.mark.parametrize(("bits", "byte"), [(4, 0x08), (4, 0x80), (8, 0x80)])
def test_codes_that_have_no_opposite_are_refused(bits: int, byte: int):
    packed = pack(np.ones((1, 2), np.float32), bits)
    packed[0, 2] = byte
    with pytest.raises(PayloadError, match="code below"):
        unpack(packed, 2, bits)


def test_padding_of_an_odd_4_bit_row_is_zero():
    packed = pack(np.ones((1, 3), np.float32), 4)
    packed[0, -1] |= 0x10
    with pytest.raises(PayloadError, match="padding"):
        unpack(packed, 3, 4)
