"""Samples as bytes: formulae to the byte, precisions, and what is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from airtune.errors import DataError, TransportError
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.wire import (
    Samples,
    as_received,
    body_bytes,
    decode_samples,
    encode_samples,
    layer_bytes,
    row_bytes,
)


def identity(bits: tuple[int, ...], width: int = 4, outputs: int = 2) -> Identity:
    return Identity("b", "t", "x", width, tuple(range(1, len(bits) + 1)), bits, outputs)


def drawn(of: Identity, counts: list[int], seed: int = 0) -> Samples:
    rng, rows = np.random.default_rng(seed), sum(counts)
    return Samples(
        rng.integers(0, 2**63, len(counts)).astype(np.uint64) * 2 + 1,
        np.array(counts),
        rng.normal(size=(rows, len(of.layers), of.width)).astype(np.float32),
        rng.normal(size=(rows, of.outputs)).astype(np.float32),
    )


@pytest.mark.parametrize(("layers", "width", "outputs", "samples"), [(12, 768, 2, 100), (6, 384, 14, 7), (1, 1, 1, 1)])
def test_a_sample_weighs_what_the_formula_says(layers, width, outputs, samples):
    # N (8 + 2 L d + 4 C) at 16 bits, N (8 + L (d + 4) + 4 C) at 8, N (8 + 4 L d + 4 C) at 32
    for bits, one in ((16, 2 * layers * width), (8, layers * (width + 4)), (32, 4 * layers * width)):
        of = identity((bits,) * layers, width, outputs)
        expected = samples * (8 + one + 4 * outputs)
        assert body_bytes(of, samples, samples) == expected
        assert len(encode_samples(drawn(of, [1] * samples), of)) == expected


def test_the_published_sizes():
    # RoBERTa-base: 12 layers of 768 at 16 bits are 18.4 kB a sample, at 8 bits with a scale each 9.3 kB
    assert 12 * layer_bytes(16, 768) == 18_432
    assert 12 * layer_bytes(8, 768) == 9_264


def test_several_pivots_cost_their_rows_and_a_count():
    of = identity((16, 8), 4, 2)
    assert row_bytes(of) == 8 + 8 + 8
    samples = drawn(of, [3, 1, 2])
    body = encode_samples(samples, of, several=True)
    assert len(body) == body_bytes(of, 3, 6, several=True) == 3 * 12 + 6 * 24
    back = decode_samples(body, 3, of, several=True)
    assert back.counts.tolist() == [3, 1, 2]
    assert dict(back.rows_of()) == dict(zip(samples.ids.tolist(), (slice(0, 3), slice(3, 4), slice(4, 6)), strict=True))


def test_the_bytes_by_hand():
    of = identity((16, 8), 2, 1)
    activations = np.array([[[1.0, -2.0], [127.0, -63.5]]], np.float32)
    samples = Samples(np.array([2**64 - 1], np.uint64), np.array([1]), activations, np.array([[0.5]], np.float32))
    body = encode_samples(samples, of)
    assert body == struct.pack("<Q2ef2bf", 2**64 - 1, 1.0, -2.0, 1.0, 127, -64, 0.5)


def test_everything_comes_back_at_its_precision():
    of = identity((32, 16, 8), 64, 3)
    samples = drawn(of, [1] * 50)
    back = decode_samples(encode_samples(samples, of), 50, of)
    assert len(back) == 50
    assert np.array_equal(back.ids, samples.ids)
    assert back.ids.dtype == np.uint64
    assert np.array_equal(back.differences, samples.differences)
    assert np.array_equal(back.activations[:, 0], samples.activations[:, 0])
    assert np.array_equal(back.activations[:, 1], samples.activations[:, 1].astype(np.float16).astype(np.float32))
    step = np.abs(samples.activations[:, 2]).max(1, keepdims=True) / 127
    assert (np.abs(back.activations[:, 2] - samples.activations[:, 2]) <= step * (0.5 + 1e-4)).all()


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_what_arrived_arrives_again_unchanged(bits):
    of = identity((bits,), 64, 3)
    once = as_received(drawn(of, [1] * 20).activations, of)
    assert np.array_equal(as_received(once, of), once)


def test_as_received_is_what_a_decoder_finds():
    of = identity((8, 16, 32), 16, 5)
    samples = drawn(of, [1] * 9)
    back = decode_samples(encode_samples(samples, of), 9, of)
    assert np.array_equal(as_received(samples.activations, of), back.activations)


def test_a_row_of_zeros_survives_8_bits():
    of = identity((8,), 4, 1)
    assert np.array_equal(as_received(np.zeros((2, 1, 4), np.float32), of), np.zeros((2, 1, 4)))


def changed(samples: Samples, **fields: np.ndarray) -> Samples:
    return Samples(**{name: fields.get(name, getattr(samples, name)) for name in Samples.__slots__})


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["activations", "differences"])
def test_numbers_that_are_not_finite_are_not_sent(name, value):
    of = identity((16,))
    samples = drawn(of, [1, 1])
    broken = getattr(samples, name).copy()
    broken.flat[3] = value
    with pytest.raises(DataError, match=f"an {name[:-1]} is not finite"):
        encode_samples(changed(samples, **{name: broken}), of)


def test_what_16_bits_cannot_hold_is_not_sent():
    of = identity((16,))
    samples = drawn(of, [1, 1])
    large = samples.activations.copy()
    large[0, 0, 0] = 70_000
    with pytest.raises(DataError, match=r"layer 1 has 7e\+04, beyond 16 bits; send that layer at 8 or 32"):
        encode_samples(changed(samples, activations=large), of)
    for bits in (8, 32):
        encode_samples(changed(samples, activations=large), identity((bits,)))


@pytest.mark.parametrize(
    "fields",
    [
        {"activations": np.zeros((2, 2, 4), np.float32)},
        {"activations": np.zeros((2, 1, 5), np.float32)},
        {"activations": np.zeros((3, 1, 4), np.float32)},
        {"differences": np.zeros((2, 3), np.float32)},
        {"counts": np.array([1])},
    ],
)
def test_other_shapes_are_not_sent(fields):
    of = identity((16,))
    with pytest.raises(DataError, match="have shapes"):
        encode_samples(changed(drawn(of, [1, 1]), **fields), of)


def test_several_pivots_are_not_sent_as_one():
    of = identity((16,))
    with pytest.raises(DataError, match="a sample has 2 pivots, one expected"):
        encode_samples(drawn(of, [2, 1]), of)


@pytest.mark.parametrize("several", [False, True])
def test_a_body_of_any_other_length_is_refused(several):
    of = identity((8, 16))
    body = encode_samples(drawn(of, [1, 1]), of, several=several)
    for length in range(len(body)):
        with pytest.raises(TransportError, match="send"):
            decode_samples(body[:length], 2, of, several=several)
    with pytest.raises(TransportError, match=f"{len(body)} expected"):
        decode_samples(body + b"\0", 2, of, several=several)


@pytest.mark.parametrize("count", [-1, 0, 1, 3, 2**40])
def test_another_number_of_samples_is_refused(count):
    of = identity((16,))
    with pytest.raises(TransportError, match="send"):
        decode_samples(encode_samples(drawn(of, [1, 1]), of), count, of)


def test_ids_that_repeat_and_samples_without_a_pivot_are_refused():
    of = identity((16,))
    samples = drawn(of, [1, 1])
    with pytest.raises(TransportError, match="id occurs twice"):
        decode_samples(encode_samples(changed(samples, ids=samples.ids[[0, 0]]), of), 2, of)
    with pytest.raises(TransportError, match="has no pivot"):
        decode_samples(encode_samples(changed(samples, counts=np.array([2, 0])), of, several=True), 2, of, several=True)


@pytest.mark.parametrize(("at", "name"), [(8, "activation"), (8 + 8, "difference")])
def test_numbers_that_are_not_finite_are_not_taken(at, name):
    of = identity((16,), 4, 2)
    body = bytearray(encode_samples(drawn(of, [1]), of))
    body[at : at + 4] = struct.pack("<f", np.nan) if name == "difference" else struct.pack("<2e", np.nan, 1.0)
    with pytest.raises(TransportError, match=f"an {name} that came is not finite"):
        decode_samples(bytes(body), 1, of)


def test_a_scale_that_is_not_finite_is_not_taken():
    of = identity((8,), 4, 2)
    body = bytearray(encode_samples(drawn(of, [1]), of))
    body[8:12] = struct.pack("<f", np.inf)
    with pytest.raises(TransportError, match="an activation that came is not finite"):
        decode_samples(bytes(body), 1, of)
