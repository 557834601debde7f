"""Format 2: what goes in comes out, alike in an independent decoder, whole, named and cut; sizes keep their bounds."""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from itertools import pairwise
from zlib import decompress

import numpy as np
import pytest
import second_coded_decoder
from coded_material import (
    META,
    CodedAdapter,
    CodedForgery,
    body,
    chunked_adapter,
    coded_adapters,
    directions,
    each_coder,  # noqa: F401 - runs everything with each coder
    small_adapter,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_material import BINDING, draw_factors

from airtune.codec import (
    Coded,
    CodedSite,
    Decoded,
    Factors,
    Quantised,
    chunk_ends,
    code_adapter,
    decode,
    held_static,
    inspect,
    self_contained,
)
from airtune.codec.coded.draft import Draft
from airtune.codec.contents import Binding, Contents
from airtune.codec.entropy import TABLES, decode_lanes, encode_lanes, largest_code
from airtune.codec.entropy import lanes as numpy_lanes
from airtune.errors import PayloadError

ANY = settings(deadline=None, max_examples=40)


def same(left: Factors, right: Factors) -> bool:
    return all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in ((left.p, right.p), (left.lam, right.lam), (left.q, right.q))
    )


def assert_decoders_agree(decoded: Decoded, data: bytes, prefix: bool = False, held: dict | None = None) -> None:
    sites, dense, static = second_coded_decoder.decode(data, prefix, held)
    assert list(sites) == list(decoded.factors)
    assert all(same(decoded.factors[name], Factors(*site)) for name, site in sites.items())
    assert list(dense) == list(decoded.dense)
    assert all(dense[name].tobytes() == decoded.dense[name].tobytes() for name in dense)
    assert static["meta"] == decoded.meta


def assert_coded_values(draft: Draft, decoded: Decoded) -> None:
    """What a receiver has are the draft's codes and the nearest float32 of 2^(j / 4), nothing else."""
    for name, site in decoded.factors.items():
        coded, rank = draft.coded.sites[name], site.rank
        assert site.shape == coded.shape
        assert np.array_equal(site.p, coded.p[:, :rank])
        assert np.array_equal(site.q, coded.q[:rank])
        assert np.array_equal(site.lam, np.float32(2.0 ** (coded.scales[:rank] / 4.0)))
    for name, tensor in decoded.dense.items():
        coded = draft.coded.dense[name]
        scales = np.float32(2.0 ** (coded.scales / 4.0))[:, None]
        assert np.array_equal(tensor, (coded.codes.astype(np.float32) * scales).reshape(coded.shape))
        assert tensor.dtype == np.float32


@ANY
@given(coded_adapters())
def test_ranks_are_honoured_values_exact_and_a_second_decoder_agrees(adapter: CodedAdapter):
    draft = adapter.draft()
    payload = draft.encode(adapter.ranks)
    decoded = decode(payload.data, BINDING)
    assert decoded.ranks == adapter.ranks
    assert decoded.complete
    assert (decoded.binding, decoded.meta) == (BINDING, META)
    assert set(decoded.dense) == set(adapter.dense)
    assert_coded_values(draft, decoded)
    assert_decoders_agree(decoded, payload.data)


@ANY
@given(coded_adapters(), st.floats(0, 1))
def test_sizes_are_bounded_and_ladders_keep_their_budget(adapter: CodedAdapter, share: float):
    draft = adapter.draft()
    payload, bound = draft.encode(adapter.ranks), draft.payload_bits(adapter.ranks)
    assert payload.bits <= bound <= 1.01 * payload.bits + 800
    least = draft.payload_bits([0] * len(adapter.ranks))
    most = draft.payload_bits([site.rank for site in adapter.factors.values()]) + 800
    budget = int(least + share * (most - least))
    ladder = decode(draft.ladder(budget).data, BINDING)
    assert draft.ladder(budget).bits <= budget
    assert_coded_values(draft, ladder)  # the first directions of each site
    assert decode(draft.ladder(most).data, None).ranks == tuple(site.rank for site in adapter.factors.values())
    with pytest.raises(PayloadError, match="budget"):
        draft.ladder(least - 1)


@ANY
@given(coded_adapters(), st.booleans())
def test_every_chunk_boundary_is_a_valid_adapter_with_the_same_directions(adapter: CodedAdapter, named: bool):
    draft = adapter.draft(named=named)
    data, held = draft.encode(adapter.ranks).data, draft.held
    whole, ends = decode(data, None, held=held), chunk_ends(data)
    assert ends[-1] == len(data)
    for chunks, end in enumerate(ends):
        part = decode(data[:end], BINDING, allow_prefix=True, held=held)
        assert part.complete == (end == len(data))
        assert all(same(site, whole.factors[name].prefix(site.rank)) for name, site in part.factors.items())
        assert set(part.dense) == (set(adapter.dense) if chunks else set())
        assert_decoders_agree(part, data[:end], prefix=True, held=held)


def test_several_chunks_and_lanes():
    adapter = chunked_adapter()
    draft = adapter.draft()
    payload = draft.encode(adapter.ranks)
    ends = chunk_ends(payload.data)
    assert len(ends) == 1 + 1 + 5  # the header, the head, and about 10 kB in chunks of 2 kB
    ranks = [decode(payload.data[:end], None, allow_prefix=True).ranks for end in ends]
    assert ranks[0] == ranks[1] == (0, 0, 0)
    assert ranks[-1] == (12, 5, 9)
    assert sorted(ranks) == ranks
    wide = CodedAdapter({"s": draw_factors(np.random.default_rng(3), 9000, 7000, 2)}, {}, 30.0, (2,)).draft()
    data = wide.encode((2,)).data  # 16000 codes a chunk: 2 lanes, the first ends inside P
    assert len(chunk_ends(data)) == 3
    assert_coded_values(wide, decode(data, None))
    assert_decoders_agree(decode(data, None), data)
    assert payload.bits <= draft.payload_bits(adapter.ranks) <= 1.01 * payload.bits + 800


def test_many_lanes_of_any_length_and_tables():
    """More lanes than are decoded one after the other, some of them empty; codes drawn far into the tails."""
    rng = np.random.default_rng(4)
    lanes = []
    for length in (*range(0, 300, 17), 2000, 0):
        tables = np.sort(rng.integers(1, TABLES, length)).astype(np.uint8)
        most = np.array([largest_code(int(table)) for table in tables], np.int64)
        lanes.append((rng.integers(-most, most + 1).astype(np.int16), tables))
    words = encode_lanes(lanes)
    assert all(np.array_equal(a, b) for a, b in zip(words, numpy_lanes.encode_lanes(lanes), strict=True))
    decoded = decode_lanes([(word, tables) for word, (_, tables) in zip(words, lanes, strict=True)])
    assert all(np.array_equal(found, codes) for found, (codes, _) in zip(decoded, lanes, strict=True))
    for word, (codes, tables) in zip(words, lanes, strict=True):
        assert second_coded_decoder.lane(tuple(word.tolist()), tables.tolist()) == codes.tolist()
    with pytest.raises(PayloadError, match="does not end where it should"):
        decode_lanes([(word, tables[:-1]) for word, (_, tables) in zip(words, lanes, strict=True)])


def test_ladders_of_growing_budgets_are_nested():
    draft = chunked_adapter().draft()
    budgets = range(draft.payload_bits((0, 0, 0)), draft.payload_bits((12, 12, 12)) + 20_000, 9_000)
    ranks = [decode(draft.ladder(budget).data, BINDING).ranks for budget in budgets]
    assert ranks[0] == (0, 0, 0)
    assert ranks[-1] == (12, 12, 12)
    assert all(a <= b for less, more in pairwise(ranks) for a, b in zip(less, more, strict=True))
    assert len(set(ranks)) > 8


def test_an_adapter_of_nothing():
    draft = CodedAdapter({}, {}).draft()
    data = draft.encode(()).data
    assert len(data) == 12 + len(draft.static) + 16
    assert decode(data, BINDING).ranks == ()
    assert_decoders_agree(decode(data, BINDING), data)


def test_an_adapter_of_zeros_costs_its_header():
    zeros = Factors(np.zeros((50, 8)), np.zeros(8), np.zeros((8, 40)))
    draft = CodedAdapter({"a": zeros, "b": zeros}, {}, 1.0, (8, 8)).draft()
    data = draft.encode((8, 8)).data
    assert len(data) == 12 + len(draft.static) + 20 + 16 + (2 + 4 * 3 + 2)
    decoded = decode(data, None)
    assert decoded.ranks == (8, 8)
    assert not any(site.p.any() or site.q.any() for site in decoded.factors.values())


def test_a_named_static_part_needs_its_holder():
    draft = small_adapter().draft(named=True)
    data = draft.encode((3, 0, 2)).data
    text = decompress(draft.static)
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")).encode()
    bare = json.dumps(json.loads(text) | {"meta": {}}, sort_keys=True, separators=(",", ":")).encode()
    name = sha256(bare).digest()[:16]
    assert data[8:28] == bytes(4) + name
    assert held_static(draft.contents) == draft.held == {name: draft.static}
    assert decode(data, BINDING, held={name: draft.static}).ranks == (3, 0, 2)
    whole = small_adapter().draft().encode((3, 0, 2)).data
    assert len(whole) - len(data) == len(draft.static) - 16
    assert self_contained(data, draft.held) == self_contained(whole, {}) == whole
    for held in (None, {}, {bytes(16): draft.static}):
        with pytest.raises(PayloadError, match=f"names static part {name.hex()}"):
            decode(data, BINDING, held=held)


def test_a_payload_by_hand():
    """One direction: P = (1, 0) under table 2, Q = (0) under table 0; lam = 2^(5/4)."""
    # table 2: frequencies 1, 1, 1, 5625, 16765960, ...: code 0 starts at 5628, code 1 at 5628 + 16765960.
    # The last code first: 0 takes the state from 0 to 5628; then 1 to (5628 div 5625) 2^24 + 5628 mod 5625 + 16771588.
    word = 2**24 + 3 + 16771588
    hand = struct.pack("<H", 1)  # directions
    hand += struct.pack("<hBhBhBhB", 1, 0, 5, 0, 2, 0, 0, 0)  # counts, scales, tables of P, tables of Q
    hand += struct.pack("<HHI", 0, 1, word)  # no side words, one lane of one word
    assert directions([1], [5], [(2, 0)], [[1, 0], [0]]) == hand
    document = CodedForgery.of(small_adapter(dense=False).draft().encode((0, 0, 0)).data).document
    data = CodedForgery({**document, "sites": [["s", 2, 1]]}, [hand]).build()
    site = decode(data, BINDING).factors["s"]
    assert (site.p.tolist(), site.q.tolist()) == ([[1.0], [0.0]], [[0.0]])
    assert site.lam.tolist() == [np.float32(2**1.25)]
    assert_decoders_agree(decode(data, None), data)


def test_the_text_that_names_a_static_part_has_characters_as_themselves():
    contents = Contents.of({'gefräßig/模型"\\': (2, 1)}, {}, Binding("0" * 64, "1" * 64), {"seed": 1})
    text = '{"base":"%s","codec":"coded","dense":[],"meta":{},"sites":[["gefräßig/模型\\"\\\\",2,1]],"tokenizer":"%s"}'
    assert list(held_static(contents)) == [sha256((text % ("0" * 64, "1" * 64)).encode()).digest()[:16]]


def test_any_scale_and_the_largest_codes():
    scales = [-500, -499, -3, -1, 0, 1, 498, 500]
    p, q = [[1026, -1026, 0, 1] * 2] * 6, [[-1026, 1026, 5, -7] * 2] * 6
    p, q = [*p, *[[1, -1, 0, 1] * 2] * 2], [*q, *[[-1, 1, 1, -1] * 2] * 2]  # an update has to be one in float32
    vectors = [vector for pair in zip(p, q, strict=True) for vector in pair]
    chunk = directions([8], scales, [(20, 20)] * 8, vectors)
    document = CodedForgery.of(small_adapter(dense=False).draft().encode((0, 0, 0)).data).document
    data = CodedForgery({**document, "sites": [["s", 8, 8]]}, [chunk]).build()
    decoded = decode(data, BINDING)
    assert np.array_equal(decoded.factors["s"].lam, np.float32(2.0 ** (np.array(scales) / 4)))
    assert decoded.factors["s"].p.T.tolist() == p
    assert_decoders_agree(decoded, data)
    dense = CodedForgery(
        {**document, "sites": [], "dense": [["d", [2, 2]]]},
        [body([[-500, 468], [20, 20]], [([1, -1026], 20), ([1026, 0], 20)])],
    )
    tensor = decode(dense.build(), BINDING).dense["d"]
    assert tensor.tolist() == [[2.0**-125, -1026 * 2.0**-125], [1026 * 2.0**117, 0.0]]


@pytest.mark.parametrize(
    ("ranks", "message"),
    [((3, 0), "2 ranks are given"), ((3, 0, 4), r"rank 4 is asked of site 2"), ((3, -1, 2), "rank -1 is asked")],
)
def test_ranks_that_do_not_fit_are_refused(ranks: tuple[int, ...], message: str):
    with pytest.raises(PayloadError, match=message):
        small_adapter().draft().encode(ranks)


def test_what_no_decoder_takes_is_not_encoded():
    with pytest.raises(PayloadError, match=r"s has 3 directions, above min\(out, in\) = 2"):
        CodedAdapter({"s": draw_factors(np.random.default_rng(0), 2, 9, 3)}, {}).draft()
    with pytest.raises(PayloadError, match="head reaches 1e"):
        CodedAdapter({}, {"head": np.array([1e300])}).draft()
    ones = np.eye(4, 2**20, dtype=np.int16)  # 2^20 codes of little more than what lanes take
    sparse = Coded({"s": CodedSite.of(ones, ones, np.zeros(4, np.int16))}, {})
    draft = Draft(Quantised(sparse, {"s": np.ones(4)}), BINDING, {})
    assert decode(draft.encode((2,)).data, None).ranks == (2,)
    with pytest.raises(PayloadError, match=r"declare 8388608 codes, and may declare .*, or send fewer directions"):
        draft.encode((4,))


def test_inspect_tells_each_site_s_share_of_the_update_and_what_rounding_lost():
    """Against the factors themselves, which `inspect` does not have."""
    rng = np.random.default_rng(3)
    factors = {
        f"site.{i}": Factors(rng.normal(size=(200, 4)), rng.normal(size=4) * 10.0**-i, rng.normal(size=(4, 300)))
        for i in range(2)
    }
    draft = Draft(code_adapter(factors, {}, 3e-3, canonical=True), BINDING, {})
    data = draft.encode((4, 4)).data
    rows, decoded = inspect(data).sites, decode(data, BINDING).factors
    squares = [float((decoded[name].update() ** 2).sum()) for name in factors]
    for row, square in zip(rows, squares, strict=True):
        lost = float(((factors[row.name].update() - decoded[row.name].update()) ** 2).sum())
        assert row.update == pytest.approx(square / sum(squares), rel=1e-5)
        assert row.error == pytest.approx(lost / square, rel=0.05)
    nothing = inspect(draft.encode((0, 4)).data).sites[0]
    assert (nothing.update, nothing.error) == (0, 0)


def test_sites_of_too_unlike_ranks_for_one_chunk_are_refused_in_one_line():
    """Of ranks 2200 and 0 one lies 1100 from their mean, beyond every table of side numbers."""
    rng = np.random.default_rng(0)
    wide = Factors(np.zeros((2200, 2200)), np.zeros(2200), np.zeros((2200, 2200)))
    small = Factors(rng.normal(size=(4, 4)), np.ones(4), rng.normal(size=(4, 4)))
    draft = Draft(code_adapter({"a": wide, "b": small}, {}, 1e-3, canonical=False), BINDING, {})
    with pytest.raises(PayloadError, match="side numbers run from 0 to 2200, too far apart for one chunk"):
        draft.encode([2200, 0])
