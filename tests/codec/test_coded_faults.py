"""Payloads of format 2 that were damaged, cut, moved or forged: one PayloadError in little memory, or what is said."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import second_coded_decoder
from coded_material import (
    CodedForgery,
    body,
    chunked_adapter,
    directions,
    each_coder,  # noqa: F401 - runs everything with each coder
    forge_coded,
    small_adapter,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_material import BINDING, OTHER

from airtune.codec import Decoded, Limits, chunk_ends, decode, inspect
from airtune.codec.coded import bodies
from airtune.errors import PayloadError

SMALL_DRAFT = small_adapter().draft()
SMALL = SMALL_DRAFT.encode(small_adapter().ranks).data
LARGE = chunked_adapter().draft().encode(chunked_adapter().ranks).data
DOCUMENT = {**CodedForgery.of(SMALL).document, "dense": []}


def refused(data: bytes, message: str | None = None, *, listed: bool = False, **options) -> None:
    """By `decode`, and unless it may be listed by `inspect`."""
    by_decode = partial(decode, data, BINDING, **options)
    for ask in (by_decode,) if listed else (by_decode, partial(inspect, data, **options)):
        with pytest.raises(PayloadError, match=message) as refusal:
            ask()
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 300


def outcome(data: bytes) -> Decoded | PayloadError:
    try:
        return decode(data, None)
    except PayloadError as error:
        return error


def assert_finite(decoded: Decoded) -> None:
    for site in decoded.factors.values():
        assert all(np.isfinite(part).all() for part in (site.p, site.lam, site.q))
    assert all(np.isfinite(tensor).all() for tensor in decoded.dense.values())


def assert_second_agrees(decoded: Decoded, data: bytes) -> None:
    sites, dense, _ = second_coded_decoder.decode(data)
    for name, (p, lam, q) in sites.items():
        found = decoded.factors[name]
        assert all(map(np.array_equal, (found.p, found.lam, found.q), (p, lam, q)))
    assert all(np.array_equal(dense[name], decoded.dense[name]) for name in decoded.dense)


def test_the_forger_rebuilds_a_valid_payload():
    assert decode(forge_coded(SMALL, lambda payload: None), BINDING).complete
    assert len(CodedForgery.of(LARGE).chunks) == 6


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_every_truncation_is_refused(data: bytes):
    step = 1 if len(data) < 2000 else 97
    for end in (*range(0, len(data), step), len(data) - 1):
        refused(data[:end])


def test_a_prefix_that_ends_inside_a_part_is_refused_and_told_where_to_cut():
    for end in set(range(len(SMALL))).difference(chunk_ends(SMALL)):
        refused(SMALL[:end], allow_prefix=True)
    for end in chunk_ends(LARGE)[:-1]:
        refused(LARGE[: end + 1], f"cut the prefix to {end} bytes", allow_prefix=True)


@pytest.mark.parametrize("allow_prefix", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_every_single_bit_flip_is_refused(allow_prefix: bool, named: bool):
    draft = small_adapter().draft(named=named)
    whole, held = draft.encode((3, 0, 2)).data, {draft.encode((3, 0, 2)).data[12:28]: draft.static}
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        refused(data, allow_prefix=allow_prefix, held=held)


@pytest.mark.parametrize("tail", [b"\0", b"x" * 5000, SMALL])
def test_trailing_bytes_are_refused(tail: bytes):
    for allow_prefix in (False, True):
        refused(SMALL + tail, f"the payload has {len(SMALL)}", allow_prefix=allow_prefix)


def test_a_newer_format_and_another_base_model_are_named():
    refused(SMALL[:4] + b"\x03\x00" + SMALL[6:], "format version 3, this airtune reads 1 and 2; update airtune")
    refused(SMALL[:4] + b"\x01\x00" + SMALL[6:])  # its header is not one of format 1
    other = forge_coded(SMALL, lambda payload: payload.document.update(base=OTHER))
    refused(other, "base model c3c3c3c3c3c3, this receiver has a1a1a1a1a1a1", listed=True)
    assert decode(other, None).complete


def test_a_damaged_chunk_of_a_prefix_is_refused():
    data = bytearray(LARGE[: chunk_ends(LARGE)[3]])
    data[chunk_ends(LARGE)[2] + 100] ^= 1
    refused(bytes(data), "chunk 2 does not match its hash", allow_prefix=True)


def only(*chunks: bytes, sites: object = (("s", 3, 2),), dense: object = ()) -> Callable[[CodedForgery], object]:
    """A payload of these chunks about these sites and dense tensors."""

    def change(payload: CodedForgery) -> None:
        payload.chunks = list(chunks)
        payload.document.update(sites=sites, dense=dense)

    return change


def put(chunk: int, at: int, form: str, value: int) -> Callable[[CodedForgery], object]:
    return lambda payload: payload.put(chunk, at, form, value)


def static(make: Callable[[dict], bytes]) -> Callable[[CodedForgery], object]:
    return lambda payload: setattr(payload, "static", make(payload.document))


VECTORS = [[1, 0, -2], [2, 1]]
ONE = directions([1], [0], [(20, 20)], VECTORS)
"""A direction of a site (3, 2): a head of 14 bytes, no side words, one lane."""
LANES = 2 + 3 * 4 + 2
"""Where its lanes' counts begin."""
WORDS = ONE[LANES + 2 :]
CODES = struct.unpack("<H", ONE[LANES : LANES + 2])[0]


def lane(words: bytes) -> bytes:
    """ONE, with other words in its lane."""
    return ONE[:LANES] + struct.pack("<H", len(words) // 4) + words


def side(words: bytes) -> bytes:
    """ONE, with words in its side stream, which holds no codes."""
    return ONE[: LANES - 2] + struct.pack("<H", len(words) // 4) + words + ONE[LANES:]


WIDE = (("s", 2**20, 2**20),)
ZEROS = struct.pack("<HhBhBhBhBH", 1000, 1000, 0, 0, 0, 0, 0, 0, 0, 0)
"""A thousand directions of zeros at one site, in 16 bytes."""

LONG = struct.pack("<HhBhBhBhBH", 32767, 32767, 0, 0, 0, 0, 0, 0, 0, 0)
"""As many as one count of them says."""
SPREAD = struct.pack("<HhBhBhBhBH", 65520, 16, 0, 0, 0, 0, 0, 0, 0, 0)
"""16 directions of zeros at each of 4,095 sites."""

EMPTY = bytes(2 + 3 * 4 + 2)
"""No directions."""


def wordless(d: int) -> bytes:
    """So many directions of a site (2^20, 2^20) under table 1, in lanes of 8192 codes and no words."""
    return struct.pack("<HhBhBhBhBH", d, d, 0, 0, 0, 1, 0, 1, 0, 0) + bytes(2 * 256 * d)


FORGERIES: dict[str, tuple[Callable[[CodedForgery], object], str]] = {
    # the header
    "huge lengths": (lambda p: setattr(p, "lengths", [2**32 - 1] * 2), "of 8589934825 bytes|end inside a chunk"),
    "zero lengths": (lambda p: setattr(p, "lengths", [0] * 2), "cut off what follows"),
    "one length too long": (lambda p: setattr(p, "lengths", [len(p.chunks[0]) + 1, len(p.chunks[1]) - 1]), "its hash"),
    "most chunks": (lambda p: setattr(p, "count", 2**16 - 1), "the header alone declares"),
    "fewer chunks than rows": (lambda p: setattr(p, "count", 1), "header does not match its hash"),
    "no chunks counted": (lambda p: setattr(p, "count", 0), "header does not match its hash"),
    "huge static part": (lambda p: setattr(p, "static_size", 2**32 - 2), "static part, the limit is 1048576"),
    "static part beyond the file": (lambda p: setattr(p, "static_size", 2**20), "the header alone declares"),
    "static part said to be held": (lambda p: setattr(p, "static_size", 2**32 - 1), "header does not match its hash"),
    "static part said to be named": (lambda p: setattr(p, "static_size", 0), "header does not match its hash"),
    # chunks
    "no chunks": (lambda p: p.chunks.clear(), "no chunk for them"),
    "dense chunk missing": (lambda p: p.chunks.pop(0), "names table"),
    "chunks swapped": (lambda p: p.chunks.reverse(), r"655\d\d directions, its sites hold 15"),
    "empty chunk last": (lambda p: p.chunks.append(b""), "ends inside its head"),
    "empty chunk first": (lambda p: p.chunks.insert(0, b""), r"655\d\d directions, its sites hold 15"),
    "chunk of one byte": (lambda p: p.chunks.append(b"\1"), "ends inside its head"),
    "chunk of a head": (lambda p: p.chunks.append(bytes(13)), "ends inside its streams"),
    # heads and runs
    "table 21 of counts": (put(1, 4, "B", 21), "names table .* to 21 of 21"),
    "table 255 of a run": (put(1, 13, "B", 255), "to 255 of 21"),
    "table 21 of dense scales": (put(0, 2, "B", 21), "to 21 of 21"),
    "tables of vectors at 21": (only(directions([1], [0], [(21, 21)])), "names table 21 to 21 of 21"),
    "tables of vectors below 0": (only(directions([1], [0], [(-1, 3)])), "names table -1 to 3 of 21"),
    "table of a vector at the centre's end": (only(directions([1], [0], [(32767, 3)])), "to 32767 of 21"),
    "table of a dense row": (only(body([[0], [21]]), dense=[["d", [3]]], sites=[]), "names table 21"),
    "scale 501": (only(directions([1], [501], [(0, 0)])), "scale beyond 2.*500/4"),
    "scale -501": (only(directions([1], [-501], [(0, 0)])), "scale beyond"),
    "scale of a dense row": (only(body([[-32768], [0]]), dense=[["d", [3]]], sites=[]), "scale beyond"),
    "more counted than directions": (only(directions([2], [0], [(0, 0)])), "do not add up"),
    "fewer counted than directions": (only(directions([0], [0], [(0, 0)])), "do not add up"),
    "a negative count": (
        only(directions([-1, 2], [0], [(0, 0)]), sites=[["a", 3, 2], ["b", 3, 2]]),
        "do not add up",
    ),
    "directions without sites": (only(directions([], [0], [(0, 0)]), sites=[]), "1 directions, its sites hold 0"),
    "most directions": (put(1, 0, "H", 2**16 - 1), "65535 directions, its sites hold 15"),
    "rank above min(out, in)": (
        only(directions([3, 0], [0] * 3, [(0, 0)] * 3), sites=[["s", 3, 2], ["t", 1, 9]]),
        r"rank 3 at s is above min\(out, in\) = 2",
    ),
    "rank above it in two chunks": (
        only(*[directions([2], [0] * 2, [(0, 0)] * 2)] * 2),
        "4 directions, its sites hold 2 ",
    ),
    "rank beyond the limit": (only(ZEROS, ZEROS, sites=WIDE), "2000 directions, its sites hold 1024 at"),
    # the side stream
    "side words beyond the body": (put(1, 14, "H", 2**16 - 1), "ends inside its streams"),
    "side words for no codes": (only(side(struct.pack("<I", 7))), "does not end where it should"),
    "a zero side word for no codes": (only(side(bytes(4))), "zero word"),
    # lanes
    "lane with a word before": (only(lane(b"\1\2\3\4" + WORDS)), "does not end where it should"),
    "lane with a zero word before": (only(lane(bytes(4) + WORDS)), "does not end where it should"),
    "lane with a word behind": (only(lane(WORDS + b"\1\2\3\4")), "does not end where it should"),
    "lane with a zero last word": (only(lane(WORDS + bytes(4))), "zero word"),
    "lane with a bit more": (only(lane(WORDS[:-1] + bytes([WORDS[-1] ^ 0x40]))), "does not end where it should"),
    "lane counted too long": (only(ONE[:LANES] + struct.pack("<H", CODES + 1) + WORDS), "ends inside its streams"),
    "lane counted too short": (only(ONE[:LANES] + struct.pack("<H", CODES - 1) + WORDS), "4 bytes more"),
    "a byte behind the lanes": (only(ONE + b"\0"), "1 bytes more than its streams"),
    "words without codes": (only(directions([1], [0], [(0, 0)]) + b"\0\0"), "2 bytes more than its streams"),
    # bombs
    "a thousand long chunks": (only(*[LONG] * 1000, sites=WIDE), "32767000 directions, its sites hold 1024 at"),
    # 1029 times 16 bytes are 16464: 1024 + 4
    "many empty chunks": (only(*[EMPTY] * 1029), "16464 bytes are 1029 chunks, which no adapter is"),
    # 6 (4095 + 3 65520) numbers in 6 times 16 bytes; 2^20 + 16 96 is 1050112
    "side numbers of directions": (
        only(*[SPREAD] * 6, sites=[[f"{i}", 362, 362] for i in range(4095)]),
        "96 bytes declare 1203930 side numbers",
    ),
    "side numbers of empty chunks": (
        only(*[EMPTY] * 500, sites=[[f"{i}", 3, 2] for i in range(4096)]),
        "8000 bytes declare 2048000 side numbers",
    ),
    "side numbers of dense rows": (
        only(bytes(10), dense=[["a", [2**19, 1]], ["b", [2, 1]], ["c", [100, 1]]], sites=[]),
        "10 bytes declare 1048780 side numbers",
    ),
    # 6 2^20 codes in 768 lanes without words; 2^22 + 256 (2 + 3 4 + 2 + 2 768) is 4591616
    "codes of no words": (only(wordless(3), sites=WIDE), "1552 bytes declare 6291456 codes, and may declare 4591616"),
    "codes of no words in many chunks": (
        only(*[wordless(1)] * 3, sites=WIDE),
        "1584 bytes declare 6291456 codes, and may declare 4599808",
    ),
    "zeros beyond the decoded size": (only(ZEROS, sites=WIDE), "decodes to 8388612000 bytes"),
    "zeros that take no bytes": (
        only(ZEROS, sites=(("s", 2**16, 2**16),)),
        "524288000 bytes of zeros that it does not send, the limit is 268435456",
    ),
    "zeros of a dense tensor": (
        only(body([[0], [0]]), dense=[["d", [2**7, 2**20]]], sites=[]),
        "536870912 bytes of zeros",
    ),
    "dense rows overflow": (only(bytes(10), dense=[["d", [2**20] * 8]], sites=[]), "declare 2097152 side numbers"),
    "dense row overflows": (only(body([[0], [0]]), dense=[["d", [1] + [2**20] * 7]], sites=[]), "decodes to"),
    "dense codes of no words": (
        only(body([[0] * 5, [1] * 5]), dense=[["d", [5, 2**20]]], sites=[]),
        "8 bytes declare 5242880 codes, and may declare 4196352",
    ),
    "update beyond float32": (
        only(directions([1], [500], [(20, 20)], [[1026] * 3, [1026] * 2])),
        "update of s may be beyond float32",
    ),
    "P of an update beyond float32, Q of zeros": (
        only(directions([1], [500], [(20, 0)], [[1026] * 3])),
        "update of s may be beyond float32",
    ),
    # 2 2^125 and 3 2^125 are more than 2^127
    "directions add up beyond float32": (
        only(directions([2], [500, 500], [(20, 20)] * 2, [[2, 0, 0], [1, 1], [0, 3, 0], [1, 1]])),
        "update of s may be beyond float32",
    ),
    "dense beyond float32": (only(body([[472], [20]], [([1026], 20)]), dense=[["d", []]], sites=[]), "beyond float32"),
    # the static part
    "bomb": (static(lambda document: zlib.compress(bytes(50_000_000))), "inflates beyond 1048576"),
    "deep nesting": (static(lambda document: zlib.compress(b"[" * 500_000)), "strict JSON"),
    "static is not zlib": (static(lambda document: b"{}"), "not zlib"),
    "static has a tail": (static(lambda d: zlib.compress(json.dumps(d).encode()) + b"tail"), "does not end"),
    "static is cut": (static(lambda d: zlib.compress(json.dumps(d).encode())[:-3]), "does not end"),
    "static of format 1": (lambda p: p.document.update(codec="blockwise"), "packed with codec 'blockwise'"),
    "key of format 1": (lambda p: p.document.update(block=64), "exactly the keys"),
    "site of no size": (only(ONE, sites=[["s", 0, 2]]), "shape"),
    "site beyond the limit": (only(ONE, sites=[["s", 2**30, 2]]), "dimension of 1073741824"),
    "sites beyond the limit": (only(ONE, sites=[[f"{i}", 3, 2] for i in range(4097)]), "4097 sites, the limit is 4096"),
    "fewer sites": (lambda p: p.document["sites"].pop(), "does not end where it should"),
    "dense left out": (lambda p: p.document.update(dense=[]), r"655\d\d directions, its sites hold 15"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_payloads_are_refused_in_little_memory(name: str):
    change, message = FORGERIES[name]
    data = forge_coded(SMALL, change)
    for allow_prefix in (False, True):
        tracemalloc.start()
        try:
            refused(data, message, allow_prefix=allow_prefix)
            assert tracemalloc.get_traced_memory()[1] < 2**24
        finally:
            tracemalloc.stop()


OWN_LIMITS = {
    *("site beyond the limit", "sites beyond the limit", "rank beyond the limit", "a thousand long chunks"),
    *("zeros beyond the decoded size", "zeros that take no bytes", "zeros of a dense tensor", "dense row overflows"),
}
"""Forgeries that another decoder may take, of other limits or without."""


@pytest.mark.parametrize("name", sorted(FORGERIES.keys() - OWN_LIMITS))
def test_a_second_decoder_refuses_forgeries_too(name: str):
    with pytest.raises((ValueError, RecursionError, zlib.error)):
        second_coded_decoder.decode(forge_coded(SMALL, FORGERIES[name][0]))


def test_the_largest_update_is_finite():
    """2^125 and 3 2^125 are 2^127, half of what float32 holds."""
    vectors = [[1, 1, 1], [1, 1], [3, 0, -3], [1, 1]]
    data = forge_coded(SMALL, only(directions([2], [500, 500], [(20, 20)] * 2, vectors)))
    decoded = decode(data, BINDING)
    assert decoded.factors["s"].update().tolist() == [[2.0**127] * 2, [2.0**125] * 2, [-(2.0**126)] * 2]
    assert_second_agrees(decoded, data)


def test_no_words_are_as_many_least_codes():
    """The state 0 gives a table's first code for ever; what is short of words is not always malformed."""
    decoded = decode(forge_coded(SMALL, only(lane(b""))), BINDING).factors["s"]
    assert decoded.p.tolist() == [[-1026]] * 3
    assert decoded.q.tolist() == [[-1026, -1026]]


def test_the_payload_that_the_forgeries_change_is_valid():
    decoded = decode(forge_coded(SMALL, only(ONE)), BINDING)
    assert decoded.factors["s"].p.T.tolist() == [[1, 0, -2]]
    assert decoded.factors["s"].q.tolist() == [[2, 1]]


def test_many_chunks_beside_one_long_stream_take_little_memory():
    """Lanes of very different lengths: memory follows the codes, not lanes times the longest."""
    scales = [0, 1] * 10_000
    long = directions([20_000], scales, [(0, 0)] * 20_000)
    data = forge_coded(SMALL, only(long, *[EMPTY] * 1000, sites=(("s", 2**16, 2**15),)))
    tracemalloc.start()
    try:
        refused(data, "20000 directions, its sites hold 1024 at ranks up to 1024; .* raise Limits.max_rank")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["as many as may be", *(name for name in FORGERIES if " codes" in FORGERIES[name][1])])
def test_what_few_bytes_make_a_decoder_do_is_bounded(monkeypatch, name: str):
    """With the usual limits: numbers asked of the coder, which is what takes the time."""
    asked, plain = [], bodies.decode_lanes
    monkeypatch.setattr(
        bodies, "decode_lanes", lambda lanes: asked.extend(len(tables) for _, tables in lanes) or plain(lanes)
    )
    if name in FORGERIES:
        refused(forge_coded(SMALL, FORGERIES[name][0]))
        assert sum(asked) == 0
    else:
        decode(forge_coded(SMALL, only(wordless(2), sites=WIDE)), BINDING)
        assert sum(asked) == 2**22


def test_many_chunks_about_many_sites_take_little_memory():
    data = forge_coded(SMALL, only(*[EMPTY] * 250, sites=[[f"{i}", 64, 64] for i in range(4096)]))
    decode(data, BINDING)
    tracemalloc.start()
    try:
        assert decode(data, BINDING).ranks == (0,) * 4096
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_the_last_chunk_missing_is_an_adapter_of_lower_ranks():
    less = decode(forge_coded(LARGE, lambda payload: payload.chunks.pop()), BINDING)
    prefix = decode(LARGE[: chunk_ends(LARGE)[-2]], BINDING, allow_prefix=True)
    assert less.complete
    assert less.ranks == prefix.ranks < (12, 5, 9)
    assert all(np.array_equal(site.p, prefix.factors[name].p) for name, site in less.factors.items())


def test_chunks_moved_with_their_hashes_move_their_directions():
    def swap(payload: CodedForgery) -> None:
        payload.chunks[1], payload.chunks[2] = payload.chunks[2], payload.chunks[1]

    data = forge_coded(LARGE, swap)
    moved, whole = decode(data, BINDING), decode(LARGE, BINDING)
    assert moved.ranks == whole.ranks
    for name, site in whole.factors.items():
        assert not np.array_equal(moved.factors[name].p, site.p)
        assert sorted(moved.factors[name].p.T.tolist()) == sorted(site.p.T.tolist())
    assert_second_agrees(moved, data)


def test_a_chunk_twice_brings_its_directions_twice():
    data = forge_coded(LARGE, lambda payload: payload.chunks.append(payload.chunks[1]))
    twice, whole = decode(data, BINDING), decode(LARGE, BINDING)
    first = decode(LARGE[: chunk_ends(LARGE)[2]], BINDING, allow_prefix=True)
    assert twice.ranks == tuple(a + b for a, b in zip(whole.ranks, first.ranks, strict=True))
    assert np.array_equal(twice.factors["layer.0.query"].q[12:], first.factors["layer.0.query"].q)
    assert_second_agrees(twice, data)


BYTES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3)


@given(BYTES, st.integers(0, 1))
@settings(deadline=None, max_examples=300)
def test_random_bytes_in_chunks_are_judged_alike_by_both_decoders(changes: list[tuple[int, int]], chunk: int):
    payload = CodedForgery.of(SMALL)
    for at, value in changes:
        payload.put(chunk, at % len(payload.chunks[chunk]), "B", value)
    data = payload.build()
    decoded = outcome(data)
    if isinstance(decoded, PayloadError):
        assert "\n" not in str(decoded)
        with pytest.raises(ValueError):
            second_coded_decoder.decode(data)
        return
    assert_finite(decoded)
    assert_second_agrees(decoded, data)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_random_changes_with_hashes_recomputed_never_crash(data: st.DataObject):
    """Either PayloadError, or finite numbers: a forger can always write a valid payload."""
    payload = CodedForgery.of(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        what = data.draw(st.sampled_from(("static", "bytes", "head", "lengths", "append", "cut", "move")))
        chunk = data.draw(st.integers(0, len(payload.chunks) - 1))
        here = payload.chunks[chunk]
        if what == "static":
            document = bytearray(json.dumps(payload.document).encode())
            document[data.draw(st.integers(0, len(document) - 1))] = data.draw(st.integers(0, 255))
            payload.static = zlib.compress(bytes(document))
        elif what == "lengths":
            payload.lengths = [data.draw(st.integers(0, 2**32 - 1)) for _ in payload.chunks]
        elif what == "append":
            payload.chunks[chunk] = here + data.draw(st.binary(min_size=1, max_size=9))
        elif what == "cut":
            payload.chunks[chunk] = here[: data.draw(st.integers(0, len(here)))]
        elif what == "move":
            payload.chunks.insert(data.draw(st.integers(0, len(payload.chunks) - 1)), payload.chunks.pop(chunk))
        elif here:
            at = data.draw(st.integers(0, min(len(here), 16) - 1 if what == "head" else len(here) - 1))
            payload.put(chunk, at, "B", data.draw(st.integers(0, 255)))
    decoded = outcome(payload.build())
    if isinstance(decoded, PayloadError):
        assert "\n" not in str(decoded)
    else:
        assert_finite(decoded)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_bytes=len(SMALL) - 1), f"{len(SMALL)} bytes, the limit is"),
        (Limits(max_sites=2), "3 sites, the limit is 2"),
        (Limits(max_rank=2), "rank 3, the limit is 2"),
        (Limits(max_dim=69), r"layer\.2\.query has a dimension of 70, the limit is 69"),
        (Limits(max_static_bytes=100), "static part, the limit is 100"),
        (Limits(max_static_bytes=280), "inflates beyond 280"),
        # 3 directions of 9 + 6 + 1 numbers, 2 of 4 + 70 + 1, and a head of 8: 206 numbers
        (Limits(max_decoded_bytes=823), "decodes to 824 bytes, the limit is 823"),
    ],
)
def test_limits_are_kept(limits: Limits, message: str):
    refused(SMALL, message, limits=limits)


def test_zeros_that_are_not_sent_have_a_limit_of_their_own():
    """Of two directions at (3, 2), one sends P but not Q, the other neither: 2 + 5 numbers of 4 bytes."""
    data = forge_coded(SMALL, only(directions([2], [0, 0], [(20, 0), (0, 0)], [[1, 0, -2], [0, 0], [], []])))
    assert decode(data, BINDING, Limits(max_zero_bytes=28)).factors["s"].p.T.tolist() == [[1, 0, -2], [0, 0, 0]]
    refused(data, "28 bytes of zeros that it does not send, the limit is 27", limits=Limits(max_zero_bytes=27))


def test_limits_that_just_fit():
    limits = Limits(max_bytes=len(SMALL), max_sites=3, max_rank=3, max_dim=70, max_decoded_bytes=824)
    assert decode(SMALL, BINDING, limits).complete


def test_only_what_arrived_counts_as_decoded():
    limits = Limits(max_decoded_bytes=4 * 8)
    assert decode(SMALL[: chunk_ends(SMALL)[1]], BINDING, limits, allow_prefix=True).ranks == (0, 0, 0)
    refused(SMALL, "decodes to 824", limits=limits)
