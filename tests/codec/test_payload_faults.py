"""Payloads that were damaged, cut, moved or forged: always PayloadError, one line, little memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_material import BINDING, OTHER, Forgery, fixed_adapter, forge, large_adapter

from airtune.codec import Decoded, Limits, Payload, chunk_ends, decode, inspect
from airtune.errors import PayloadError

SMALL = fixed_adapter().encode().data
LARGE = large_adapter().encode()
WIDE = fixed_adapter(ranks=(2, 1, 1), bits=(32, 32, 32)).encode().data


def refused(data: bytes, message: str | None = None, **options) -> None:
    with pytest.raises(PayloadError, match=message) as refusal:
        decode(data, BINDING, **options)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def outcome(data: bytes) -> Decoded | PayloadError:
    try:
        return decode(data, None)
    except PayloadError as error:
        return error


def test_the_forger_rebuilds_a_valid_payload():
    assert decode(forge(LARGE.data, lambda payload: None), BINDING).complete
    assert len(Forgery.of(LARGE.data).chunks) == 6


@pytest.mark.parametrize("data", [SMALL, LARGE.data], ids=["small", "large"])
def test_every_truncation_is_refused(data: bytes):
    step = 1 if len(data) < 2000 else 97
    for end in (*range(0, len(data), step), len(data) - 1):
        refused(data[:end])


def test_a_prefix_that_ends_inside_a_part_is_refused_and_told_where_to_cut():
    ends, whole = chunk_ends(LARGE.data), chunk_ends(Payload(SMALL).data)
    for end in set(range(len(SMALL))).difference(whole):
        refused(SMALL[:end], allow_prefix=True)
    for end in ends[:-1]:
        refused(LARGE.data[: end + 1], f"cut the prefix to {end} bytes", allow_prefix=True)
    refused(LARGE.data[: ends[2]], f"{ends[2]} of {ends[-1]} bytes; get the rest, or allow a prefix")


@pytest.mark.parametrize("allow_prefix", [False, True])
def test_every_single_bit_flip_is_refused(allow_prefix: bool):
    for place in range(8 * len(SMALL)):
        data = bytearray(SMALL)
        data[place // 8] ^= 1 << place % 8
        with pytest.raises(PayloadError):
            decode(data, BINDING, allow_prefix=allow_prefix)
        with pytest.raises(PayloadError):
            inspect(data, allow_prefix=allow_prefix)


@pytest.mark.parametrize("tail", [b"\0", b"x" * 5000, SMALL])
def test_trailing_bytes_are_refused(tail: bytes):
    refused(SMALL + tail, f"the payload has {len(SMALL)}")
    refused(SMALL + tail, f"the payload has {len(SMALL)}", allow_prefix=True)


@pytest.mark.parametrize("data", [b"", b"\x89atn", b"PK\x03\x04" + bytes(60), bytes(16), b"\xff" * 400])
def test_other_bytes_are_refused(data: bytes):
    refused(data)
    refused(data, allow_prefix=True)


def test_a_newer_version_names_both():
    refused(SMALL[:4] + b"\x03\x00" + SMALL[6:], "format version 3, this airtune reads 1 and 2; update airtune")
    refused(SMALL[:4] + b"\x00\x00" + SMALL[6:], "format version 0, this airtune reads 1 and 2")


def changed(**entries: object) -> Callable[[Forgery], object]:
    return lambda payload: payload.document.update(entries)


def site(name: object = "s", out: object = 9, into: object = 6) -> Callable[[Forgery], object]:
    return lambda payload: payload.document["sites"].__setitem__(0, [name, out, into])


def text(replace: Callable[[str], str]) -> Callable[[Forgery], object]:
    def change(payload: Forgery) -> None:
        payload.static = zlib.compress(replace(json.dumps(payload.document)).encode())

    return change


def put(name: str, place: int, value: int) -> Callable[[Forgery], object]:
    return lambda payload: getattr(payload, name).__setitem__(place, value)


FORGERIES: dict[str, tuple[Callable[[Forgery], object], str]] = {
    "rank above min(out, in)": (put("ranks", 0, 7), r"rank 7 at layer\.0\.query is above min\(out, in\) = 6"),
    "rank beyond the limit": (put("ranks", 0, 65535), "rank 65535, the limit is 1024"),
    "rank less than sent": (put("ranks", 0, 2), "chunk table"),
    "unknown bits": (put("bits", 0, 3), "3 bits"),
    "no bits": (put("bits", 0, 0), "0 bits"),
    "other bits": (put("bits", 0, 8), "chunk table"),
    "more sites than named": (lambda p: (p.ranks.append(0), p.bits.append(4)), "4 sites, the adapter has 3"),
    "fewer sites than named": (lambda p: (p.ranks.pop(), p.bits.pop()), "2 sites, the adapter has 3"),
    "site named twice": (site("layer.1.query"), "'layer.1.query' is listed twice"),
    "dense named twice": (lambda p: p.document["dense"].append(["head.bias", [2]]), "'head.bias' is listed twice"),
    "shape of zero": (site(out=0), "shape"),
    "negative shape": (site(out=-9), "shape"),
    "shape beyond the limit": (site(out=2**30), "dimension of 1073741824, the limit"),
    "shape overflow": (site(out=2**63, into=2**63), "shape"),
    "shape of a thousand digits": (text(lambda t: t.replace("9, 6", "9" * 1000 + ", 6")), "shape"),
    "shape of five thousand digits": (text(lambda t: t.replace("9, 6", "9" * 5000 + ", 6")), "strict JSON"),
    "fractional shape": (site(out=9.0), "shape"),
    "boolean shape": (site(out=True), "shape"),
    "text shape": (site(out="9"), "shape"),
    "other shape": (site(out=11), "chunk table"),
    "other shape in as many bytes": (site(out=10), r"s: found a code below -7"),
    "name is a list": (site(name=[1]), "a site is called"),
    "name breaks the line": (site(name="a\nb"), "printable"),
    "name is a lone surrogate": (site(name="\ud800"), "printable"),
    "name is empty": (site(name=""), "a site is called"),
    "row too long": (lambda p: p.document["sites"][0].append(1), "malformed"),
    "row is text": (lambda p: p.document["sites"].__setitem__(0, "abc"), "malformed"),
    "sites are an object": (changed(sites={}), "malformed"),
    "dense shape is a number": (changed(dense=[["head", 3]]), "malformed"),
    "dense product overflows": (changed(dense=[["head", [2**20] * 8]]), "chunk table"),
    "dense of nine dimensions": (changed(dense=[["head", [1] * 9]]), "shape"),
    "dense left out": (changed(dense=[]), "chunk table"),
    "meta is a list": (changed(meta=[]), "malformed"),
    "meta holds a list": (changed(meta={"k": [1]}), "meta 'k'"),
    "meta holds infinity": (text(lambda t: t.replace('"tiny"', "1e999")), "meta 'base_model'"),
    "meta holds NaN": (text(lambda t: t.replace('"tiny"', "NaN")), "NaN is not a number"),
    "key twice": (text(lambda t: t.replace('"block"', '"block": 64, "block"')), "appears twice"),
    "meta key twice": (text(lambda t: t.replace('"task"', '"base_model"')), "appears twice"),
    "unknown key": (changed(extra=1), "exactly the keys"),
    "missing key": (lambda p: p.document.pop("block"), "exactly the keys"),
    "not an object": (text(lambda t: f"[{t}]"), "exactly the keys"),
    "not JSON": (text(lambda t: t[:-1]), "strict JSON"),
    "two documents": (text(lambda t: t + t), "strict JSON"),
    "deep nesting": (text(lambda t: "[" * 500_000), "strict JSON"),
    "UTF-16": (lambda p: setattr(p, "static", zlib.compress(json.dumps(p.document).encode("utf-16"))), "strict JSON"),
    "other codec": (changed(codec="zip"), "packed with codec 'zip', this airtune reads 'blockwise'"),
    "other block": (changed(block=32), "packed with block 32"),
    "boolean block": (changed(block=True), "packed with block True"),
    "other base": (changed(base=OTHER), "base model c3c3c3c3c3c3, this receiver has a1a1a1a1a1a1"),
    "base is no hash": (changed(base="A" * 64), "base model hash"),
    "base is a number": (changed(base=1), "base model hash"),
    "static is not zlib": (lambda p: setattr(p, "static", b"{}"), "not zlib"),
    "static is empty": (lambda p: setattr(p, "static", b""), "does not end"),
    "static is cut": (
        lambda p: setattr(p, "static", zlib.compress(json.dumps(p.document).encode())[:-3]),
        "does not end",
    ),
    "static has a tail": (
        lambda p: setattr(p, "static", zlib.compress(json.dumps(p.document).encode()) + b"tail"),
        "does not end",
    ),
    "bomb": (lambda p: setattr(p, "static", zlib.compress(bytes(50_000_000))), "inflates beyond 1048576"),
    "huge length": (lambda p: setattr(p, "lengths", [2**32 - 1] * len(p.chunks)), "chunk table"),
    "zero length": (lambda p: setattr(p, "lengths", [0] * len(p.chunks)), "chunk table"),
    "chunk missing": (lambda p: p.chunks.pop(), "chunk table"),
    "first chunk missing": (lambda p: (p.chunks.pop(0), p.renumber()), "chunk table"),
    "chunk twice": (lambda p: p.chunks.append(p.chunks[-1]), "chunk table"),
    "chunk too long": (lambda p: p.chunks.__setitem__(1, p.chunks[1] + b"\0"), "chunk table"),
    "no chunks": (lambda p: p.chunks.clear(), "chunk table"),
    "chunks swapped": (lambda p: p.chunks.reverse(), "chunk table"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_headers_are_refused_in_little_memory(name: str):
    change, message = FORGERIES[name]
    data = forge(SMALL, change)
    for allow_prefix in (False, True):
        tracemalloc.start()
        try:
            refused(data, message, allow_prefix=allow_prefix)
            assert tracemalloc.get_traced_memory()[1] < 2**24
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("field", range(3), ids=["sites", "static bytes", "chunks"])
def test_huge_counts_in_the_preamble_are_refused(field: int):
    for value in (2**16 - 1, 2**32 - 1):
        fields = list(struct.unpack("<4sHHII", SMALL[:16]))
        fields[2 + field] = min(value, 2**16 - 1) if field == 0 else value
        refused(struct.pack("<4sHHII", *fields) + SMALL[16:])
        refused(struct.pack("<4sHHII", *fields) + SMALL[16:], allow_prefix=True)


def test_equal_chunks_swapped_with_their_hashes_are_refused():
    def swap(payload: Forgery) -> None:  # chunks 1, 2 and 4 have one length, so the table still fits
        payload.chunks[1], payload.chunks[2] = payload.chunks[2], payload.chunks[1]

    def repeat(payload: Forgery) -> None:
        payload.chunks[2] = payload.chunks[1]

    assert len(set(np.diff(chunk_ends(LARGE.data))[[1, 2, 4]])) == 1
    refused(forge(LARGE.data, swap), "chunk 1 does not begin with its index")
    refused(forge(LARGE.data, repeat), "chunk 2 does not begin with its index")


def test_a_damaged_chunk_of_a_prefix_is_refused():
    data = bytearray(LARGE.data[: chunk_ends(LARGE.data)[3]])
    data[chunk_ends(LARGE.data)[2] + 100] ^= 1
    refused(bytes(data), "chunk 2 does not match its SHA-256", allow_prefix=True)


@pytest.mark.parametrize(
    ("data", "chunk", "place", "value", "message"),
    [
        # a direction of layer.0 at 4 bits: lam at 4, then P's one scale
        (SMALL, 1, 4, np.float32(np.nan), r"layer\.0\.query: found a value that is not finite"),
        (SMALL, 1, 8, np.float16(np.nan), r"layer\.0\.query: found a scale"),
        (SMALL, 1, 8, np.float16(np.inf), r"layer\.0\.query: found a scale"),
        (SMALL, 1, 8, np.float16(-1), r"layer\.0\.query: found a scale"),
        (SMALL, 1, 14, np.uint8(0xFF), r"layer\.0\.query: found padding"),  # 9 numbers: the fifth byte's high half
        (SMALL, 0, 4, np.float16(np.inf), r"head\.weight: found a value that is not finite"),
        (WIDE, 1, 8, np.float32(np.inf), r"layer\.0\.query: found a value that is not finite"),
        (WIDE, 0, 4, np.float32(np.nan), r"head\.weight: found a value that is not finite"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(data: bytes, chunk: int, place: int, value, message: str):
    def change(payload: Forgery) -> None:
        body = bytearray(payload.chunks[chunk])
        body[place : place + value.nbytes] = value.tobytes()
        payload.chunks[chunk] = bytes(body)

    refused(forge(data, change), message)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_random_changes_with_hashes_recomputed_never_crash(data: st.DataObject):
    """Either PayloadError, or finite numbers of the declared shapes: a forger can always write a valid payload."""
    payload = Forgery.of(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        what = data.draw(st.sampled_from(("ranks", "bits", "static", "chunks", "lengths")))
        if what in ("ranks", "bits"):
            values = getattr(payload, what)
            values[data.draw(st.integers(0, len(values) - 1))] = data.draw(st.integers(0, 255))
        elif what == "lengths":
            payload.lengths = [data.draw(st.integers(0, 2**32 - 1)) for _ in payload.chunks]
        elif what == "static":
            document = bytearray(json.dumps(payload.document).encode())
            document[data.draw(st.integers(0, len(document) - 1))] = data.draw(st.integers(0, 255))
            payload.static = zlib.compress(bytes(document))
        else:
            chunk = data.draw(st.integers(0, len(payload.chunks) - 1))
            body = bytearray(payload.chunks[chunk])
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
            payload.chunks[chunk] = bytes(body)
    decoded = outcome(payload.build())
    if isinstance(decoded, PayloadError):
        assert "\n" not in str(decoded)
        return
    assert decoded.ranks == tuple(found.rank for found in decoded.factors.values())
    for found in decoded.factors.values():
        assert all(np.isfinite(part).all() for part in (found.p, found.lam, found.q))
    assert all(np.isfinite(tensor).all() for tensor in decoded.dense.values())


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_bytes=len(SMALL) - 1), f"{len(SMALL)} bytes, the limit is"),
        (Limits(max_sites=2), "3 sites, the limit is 2"),
        (Limits(max_rank=2), "rank 3, the limit is 2"),
        (Limits(max_dim=69), r"layer\.2\.query has a dimension of 70, the limit is 69"),
        (Limits(max_static_bytes=100), "static part, the limit is 100"),
        (Limits(max_static_bytes=300), "inflates beyond 300"),
        # 3 directions of 9 + 6 + 1 numbers, 2 of 4 + 70 + 1, and a head of 8: 206 numbers
        (Limits(max_decoded_bytes=823), "decodes to 824 bytes, the limit is 823"),
    ],
)
def test_limits_are_kept(limits: Limits, message: str):
    refused(SMALL, message, limits=limits)


def test_limits_that_just_fit():
    limits = Limits(max_bytes=len(SMALL), max_sites=3, max_rank=3, max_dim=70, max_decoded_bytes=824)
    assert decode(SMALL, BINDING, limits).complete


def test_a_declared_rank_takes_no_memory_before_its_levels_arrive():
    header = LARGE.data[: chunk_ends(LARGE.data)[0]]
    assert decode(header, BINDING, Limits(max_decoded_bytes=0), allow_prefix=True).ranks == (0, 0, 0)
