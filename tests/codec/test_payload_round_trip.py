"""What goes in comes out: exactly, within bounds, and alike in an independent decoder; for prefixes too."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import second_decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_material import BINDING, Adapter, adapters, draw_factors, fixed_adapter, large_adapter

from airtune.codec import Allocation, Binding, Decoded, Factors, Payload, chunk_ends, decode, encode
from airtune.errors import PayloadError

ANY = settings(deadline=None, max_examples=60)


def same(left: Factors, right: Factors) -> bool:
    return all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in ((left.p, right.p), (left.lam, right.lam), (left.q, right.q))
    )


def assert_decoders_agree(decoded: Decoded, data: bytes, prefix: bool) -> None:
    sites, dense, static = second_decoder.decode(data, prefix)
    assert list(sites) == list(decoded.factors)
    assert all(same(decoded.factors[name], Factors(*site)) for name, site in sites.items())
    assert list(dense) == list(decoded.dense)
    assert all(np.array_equal(dense[name], decoded.dense[name]) for name in dense)
    assert static["meta"] == decoded.meta


@ANY
@given(adapters())
def test_the_allocation_is_honoured_and_a_second_decoder_agrees(adapter: Adapter):
    payload = adapter.encode()
    decoded = decode(payload.data, BINDING)
    assert decoded.ranks == adapter.allocation.ranks
    assert decoded.complete
    assert decoded.binding == BINDING
    assert list(decoded.factors) == list(adapter.factors)
    for (name, site), rank in zip(adapter.factors.items(), adapter.allocation.ranks, strict=True):
        assert decoded.factors[name].rank == rank
        assert decoded.factors[name].shape == site.shape
        powers = np.log2(decoded.factors[name].lam / site.lam[:rank])
        assert np.array_equal(powers, np.round(powers))
        peaks = np.array([np.abs(site.p[:, :rank]).max(axis=0), np.abs(site.q[:rank]).max(axis=1)])
        assert not powers[((peaks >= 2.0**-10) & (peaks <= 2.0**10)).all(axis=0)].any()  # others move size into lam
    for name, tensor in adapter.dense.items():
        bits, sent = adapter.allocation.dense_bits, tensor.astype(np.float32)
        if bits == 8:  # half a step of absmax / 127, plus the rounding of its float16 scale
            bound = np.abs(sent).max(initial=0.0) / 127 * (0.5 + 127 * 2**-10) + 127 * 2.0**-24
            assert np.abs(decoded.dense[name] - sent).max(initial=0.0) <= bound
        else:
            width = np.float32 if bits == 32 else np.float16
            assert np.array_equal(decoded.dense[name], sent.astype(width).astype(np.float32))
        assert decoded.dense[name].dtype == np.float32
    assert_decoders_agree(decoded, payload.data, prefix=False)


@ANY
@given(adapters())
def test_32_bits_are_exact(adapter: Adapter):
    allocation = Allocation(adapter.allocation.ranks, (32,) * len(adapter.allocation))
    decoded = decode(encode(adapter.factors, {}, allocation, BINDING, {}).data, BINDING)
    for (name, site), rank in zip(adapter.factors.items(), allocation.ranks, strict=True):
        assert same(decoded.factors[name], site.prefix(rank))


@ANY
@given(adapters())
def test_every_chunk_boundary_is_a_valid_adapter_with_the_same_directions(adapter: Adapter):
    payload = adapter.encode()
    whole, ends = decode(payload.data, None), chunk_ends(payload.data)
    assert ends[-1] == len(payload.data)
    for chunks, end in enumerate(ends):
        part = decode(payload.data[:end], BINDING, allow_prefix=True)
        assert part.complete == (end == len(payload.data))
        assert part.ranks == tuple(site.rank for site in part.factors.values())
        levels = max(part.ranks, default=0)
        assert part.ranks == tuple(min(rank, levels) for rank in whole.ranks)
        assert list(part.factors) == list(whole.factors)
        assert all(same(site, whole.factors[name].prefix(levels)) for name, site in part.factors.items())
        assert set(part.dense) == (set(adapter.dense) if chunks else set())
        assert_decoders_agree(part, payload.data[:end], prefix=True)


def test_the_header_alone_is_rank_0_everywhere_without_dense():
    payload = fixed_adapter().encode()
    part = decode(payload.data[: chunk_ends(payload.data)[0]], BINDING, allow_prefix=True)
    assert part.ranks == (0, 0, 0)
    assert part.dense == {}
    assert [site.update().shape for site in part.factors.values()] == [(9, 6), (5, 7), (4, 70)]
    assert not any(site.update().any() for site in part.factors.values())


def test_levels_share_a_chunk_until_it_holds_4096_bytes():
    # at 16 bits a direction of (300, 200) has 4 + 2 * 500 = 1004 bytes; ranks 12, 5, 9: levels 0-4 have 3 sites (3012
    # bytes), levels 5-8 two (2008), levels 9-11 one (1004); so the chunks hold levels 01 23 4+5 678 9-11
    payload = large_adapter(bits=16).encode()
    lengths = np.diff(chunk_ends(payload.data))
    assert lengths.tolist() == [4 + 40, 4 + 6024, 4 + 6024, 4 + 5020, 4 + 6024, 4 + 3012]
    ranks = [decode(payload.data[:end], None, allow_prefix=True).ranks for end in chunk_ends(payload.data)]
    assert ranks == [(0, 0, 0), (0, 0, 0), (2, 2, 2), (4, 4, 4), (6, 5, 6), (9, 5, 9), (12, 5, 9)]


def test_a_payload_by_hand():
    site = Factors(p=np.array([[127.0], [-1.0]]), lam=np.array([2.0]), q=np.array([[0.0, 63.5, 1.5]]))
    data = encode({"s": site}, {}, Allocation((1,), (8,)), BINDING, {}).data
    assert data[:8] == b"\x89atn" + bytes([1, 0, 1, 0])
    static = int.from_bytes(data[8:12], "little")
    assert data[16 + static : 16 + static + 3] == bytes([1, 0, 8])  # rank u16, bits u8
    body = bytes([0, 0, 0, 0x40])  # lam 2.0
    body += bytes([0, 0x3C, 127, 255])  # P: scale 1.0, codes 127 and -1
    body += bytes([0, 0x38, 0, 127, 3])  # Q: scale 0.5, codes 0, 127, 3
    assert data[-17:] == bytes(4) + body  # chunk 0
    assert int.from_bytes(data[19 + static : 23 + static], "little") == 17
    assert data[23 + static : 55 + static] == sha256(bytes(4) + body).digest()


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_directions_have_the_same_values_at_every_allocated_rank(bits: int):
    factors = {"site": draw_factors(np.random.default_rng(4), 70, 65, 5)}
    full = decode(encode(factors, {}, Allocation((5,), (bits,)), BINDING, {}).data, BINDING).factors["site"]
    for rank in range(5):
        less = decode(encode(factors, {}, Allocation((rank,), (bits,)), BINDING, {}).data, BINDING).factors["site"]
        assert same(less, full.prefix(rank))


@pytest.mark.parametrize(("bits", "most"), [(4, 0.2), (8, 0.012), (16, 5e-4)])
def test_updates_stay_close(bits: int, most: float):
    site = draw_factors(np.random.default_rng(5), 384, 384, 8)
    decoded = decode(encode({"site": site}, {}, Allocation((8,), (bits,)), BINDING, {}).data, BINDING).factors["site"]
    error = np.linalg.norm(decoded.update() - site.update()) / np.linalg.norm(site.update())
    assert error < most


@pytest.mark.parametrize("bits", [4, 8, 16])
@given(st.integers(-60, 60), st.integers(-60, 60))
@settings(deadline=None, max_examples=30)
def test_powers_of_two_do_not_change_the_product(bits: int, left: int, right: int):
    site = draw_factors(np.random.default_rng(6), 20, 30, 3)
    moved = Factors(np.ldexp(site.p, left), np.ldexp(site.lam, -left - right), np.ldexp(site.q, right))
    allocation = Allocation((3,), (bits,))
    plain = decode(encode({"s": site}, {}, allocation, BINDING, {}).data, None).factors["s"].update()
    found = decode(encode({"s": moved}, {}, allocation, BINDING, {}).data, None).factors["s"].update()
    # other powers of two only change how scales and small numbers round in float16
    assert np.linalg.norm(found - site.update()) <= 1.1 * np.linalg.norm(plain - site.update()) + 1e-3


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", np.int8])
def test_any_real_dtype_and_strides(dtype):
    rng = np.random.default_rng(7)
    p, lam, q = ((8 * rng.normal(size=size)).astype(dtype) for size in ((8, 18), 12, (6, 20)))
    site = Factors(p.T[::3], lam[::-1][:8], q.T[::2].T.repeat(2, axis=0)[:8, ::-1])
    head = rng.normal(size=(4, 6)).T[::2]
    allocation = Allocation((5,), (32,))
    decoded = decode(encode({"site": site}, {"head": head}, allocation, BINDING, {}).data, BINDING)
    expected = Factors(*(part.astype(np.float32) for part in (site.p, site.lam, site.q)))
    assert same(decoded.factors["site"], expected.prefix(5))
    assert np.array_equal(decoded.dense["head"], head.astype(np.float32))


def test_inputs_are_not_changed():
    adapter = fixed_adapter()
    before = [site.p.copy() for site in adapter.factors.values()]
    adapter.encode()
    assert all(np.array_equal(a, site.p) for a, site in zip(before, adapter.factors.values(), strict=True))


def test_decoded_tensors_do_not_share_memory_with_the_payload():
    data = bytearray(fixed_adapter(bits=(32, 32, 32)).encode().data)
    decoded = decode(data, BINDING)
    kept = [site.update() for site in decoded.factors.values()]
    head = decoded.dense["head.weight"].copy()
    data[:] = bytes(len(data))
    assert all(np.array_equal(a, site.update()) for a, site in zip(kept, decoded.factors.values(), strict=True))
    assert np.array_equal(head, decoded.dense["head.weight"])


def test_the_order_of_meta_does_not_matter_and_the_order_of_sites_does():
    adapter = fixed_adapter()
    turned = Adapter(adapter.factors, adapter.dense, adapter.allocation, meta=dict(reversed(adapter.meta.items())))
    assert turned.encode() == adapter.encode()
    site = draw_factors(np.random.default_rng(0), 2, 2, 1)
    payload = encode({"b": site, "a": site}, {}, Allocation((1, 1), (8, 8)), BINDING, {})
    assert list(decode(payload.data, None).factors) == ["b", "a"]


def test_a_head_beyond_float16_goes_where_every_site_is_at_32_bits():
    head = {"head": np.array([70000.0, 1.0])}
    for factors, allocation in (({}, Allocation((), ())), ({"s": SITE}, Allocation((1,), (32,)))):
        assert decode(encode(factors, head, allocation, BINDING, {}).data, None).dense["head"].tolist() == [70000, 1]


def test_payload_facts():
    data = fixed_adapter().encode().data
    payload = Payload(data)
    assert payload.bits == 8 * len(data)
    assert payload.sha256 == sha256(data).hexdigest()


def test_meta_keeps_types_and_text():
    meta = {"model": "gefräßig/模型", "seed": -(2**63), "rate": 0.1, "steps": 3}
    decoded = decode(encode({}, {}, Allocation((), ()), BINDING, meta).data, BINDING)
    assert decoded.meta == meta
    assert [type(decoded.meta[key]) for key in meta] == [str, int, float, int]


def test_another_base_model_or_tokenizer_is_refused_naming_both():
    data, other = fixed_adapter().encode().data, "c3" * 32
    with pytest.raises(PayloadError, match=r"base model a1a1a1a1a1a1, this receiver has c3c3c3c3c3c3"):
        decode(data, Binding(other, BINDING.tokenizer_sha256))
    with pytest.raises(PayloadError, match=r"tokenizer b2b2b2b2b2b2, this receiver has c3c3c3c3c3c3"):
        decode(data, Binding(BINDING.base_sha256, other))
    assert decode(data, None).binding == BINDING


def spoiled(value: float, part: str) -> Factors:
    site = draw_factors(np.random.default_rng(8), 4, 3, 2)
    getattr(site, part).flat[-1] = value
    return site


@pytest.mark.parametrize("part", ["p", "lam", "q"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rank", [0, 2])
def test_values_that_are_not_finite_name_their_site(part: str, value: float, rank: int):
    factors = {"fine": draw_factors(np.random.default_rng(9), 4, 3, 2), "broken.query": spoiled(value, part)}
    with pytest.raises(PayloadError, match=r"^broken\.query holds a value that is not finite"):
        encode(factors, {}, Allocation((1, rank), (8, 8)), BINDING, {})


SITE = draw_factors(np.random.default_rng(10), 4, 3, 2)
HUGE = Factors(np.full((2, 1), 1e30), np.full(1, 1e30), np.ones((1, 2)))


@pytest.mark.parametrize(
    ("factors", "dense", "ranks", "meta", "message"),
    [
        ({"s": SITE}, {}, (3,), {}, "s, which has 2"),
        ({"s": SITE}, {}, (4,), {}, "min"),
        ({"s": SITE}, {}, (1, 1), {}, "2 sites, the adapter has 1"),
        ({"s": HUGE}, {}, (1,), {}, "s has a direction beyond float32"),
        ({"s": Factors(np.full((2, 1), 1e300), np.ones(1), np.ones((1, 2)))}, {}, (1,), {}, "s holds a value"),
        ({"s": Factors(np.ones((2, 1), complex), np.ones(1), np.ones((1, 2)))}, {}, (1,), {}, "complex128"),
        ({"": SITE}, {}, (1,), {}, "a site is called ''"),
        ({"a\nb": SITE}, {}, (1,), {}, "printable"),
        ({"\ud800": SITE}, {}, (1,), {}, "printable"),
        ({"s" * 256: SITE}, {}, (1,), {}, "255"),
        ({"s": SITE}, {"head": np.array([70000.0])}, (1,), {}, "head: a value of 70000 does not fit 8 bits"),
        ({"s": SITE}, {"head": np.array([np.nan])}, (1,), {}, "head holds a value that is not finite"),
        ({"s": SITE}, {"head": np.zeros((0, 2))}, (1,), {}, "head has shape"),
        ({"s": SITE}, {"head": np.zeros((1,) * 9)}, (1,), {}, "at most 8 dimensions"),
        ({"s": SITE}, {}, (1,), {"k": np.nan}, "meta 'k'"),
        ({"s": SITE}, {}, (1,), {"k": True}, "meta 'k'"),
        ({"s": SITE}, {}, (1,), {"k": None}, "meta 'k'"),
        ({"s": SITE}, {}, (1,), {"k": 2**63}, "meta 'k'"),
        ({"s": SITE}, {}, (1,), {"k": "a\x1b[2J"}, "meta 'k'"),
        ({"s": SITE}, {}, (1,), {1: "a"}, "meta key"),
    ],
)
def test_encoding_refuses_with_one_clear_line(factors, dense, ranks, meta, message: str):
    with pytest.raises(PayloadError, match=message) as refusal:
        encode(factors, dense, Allocation(ranks, (8,) * len(ranks)), BINDING, meta)
    assert "\n" not in str(refusal.value)
