"""Payloads that change a held adapter: what they make of it, by hand and by a second decoder; and who may open them."""

from __future__ import annotations

import tracemalloc
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest
import second_coded_decoder
import second_delta_decoder
from coded_material import (
    META,
    CodedAdapter,
    CodedForgery,
    body,
    changes,
    coded_adapters,
    directions,
    each_coder,  # noqa: F401 - runs everything with each coder
    forge_coded,
    small_adapter,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_material import BINDING, OTHER, fixed_adapter

from airtune.codec import (
    Contents,
    Decoded,
    Draft,
    Factors,
    HeldAdapter,
    Limits,
    Refiner,
    chunk_ends,
    decode,
    inspect,
    self_contained,
)
from airtune.codec.codec import held_after
from airtune.codec.coded.held import HeldSite
from airtune.errors import PayloadError

ANY = settings(deadline=None, max_examples=12)
SMALL = small_adapter().draft().encode(small_adapter().ranks).data
VECTORS = [[1, 0, -2], [2, 1]]


def only(*chunks: bytes, dense: object = ()) -> bytes:
    """A payload of its own of these chunks, about one site (3, 2)."""

    def change(payload: CodedForgery) -> None:
        payload.chunks = list(chunks)
        payload.document.update(sites=[["s", 3, 2]], dense=dense)

    return forge_coded(SMALL, change)


ONE = only(directions([1], [8], [(20, 20)], VECTORS))
"""P (1, 0, -2), Q (2, 1), lam 2^(8/4)."""
ROWS = only(body([[4, -4], [20, 20]], [([1, -3], 20), ([7, 0], 20)]), dense=[["d", [2, 2]]])
"""Rows 2 x (1, -3) and 1/2 x (7, 0)."""


def moved(factors: dict[str, Factors], seed: int, by: float) -> dict[str, Factors]:
    """Each factor moved by a share of its size."""
    rng = np.random.default_rng(seed)

    def near(values: np.ndarray) -> np.ndarray:
        return values + by * rng.normal(size=values.shape) * (np.abs(values).mean() if values.size else 0.0)

    return {name: Factors(near(site.p), site.lam, near(site.q)) for name, site in factors.items()}


def refused(data: bytes, message: str | None, **options) -> None:
    with pytest.raises(PayloadError, match=message) as refusal:
        decode(data, BINDING, **options)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def assert_agree(decoded: Decoded, held: second_delta_decoder.Held) -> None:
    assert decoded.held.name == second_delta_decoder.name(held)
    sites, dense, _ = second_coded_decoder.values(*held)
    assert list(sites) == list(decoded.factors)
    for name, parts in sites.items():
        site = decoded.factors[name]
        assert all(a.tobytes() == b.tobytes() for a, b in zip((site.p, site.lam, site.q), parts, strict=True))
    assert {name: value.tobytes() for name, value in dense.items()} == {
        name: value.tobytes() for name, value in decoded.dense.items()
    }


@pytest.mark.parametrize(
    ("shift", "p", "q", "scale"),
    [
        (0, [2, 3, -2], [1, 1], 8),  # (1, 0, -2) + (1, 3, 0) and (2, 1) + (-1, 0)
        (1, [3, 3, -4], [3, 2], 0),  # twice the codes, at half the step each
        (3, [9, 3, -16], [15, 8], -16),
        (-2, [5, 12, -2], [-2, 1], 8),  # four times the changes
    ],
)
def test_codes_change_on_a_finer_or_coarser_grid(shift: int, p: list[int], q: list[int], scale: int):
    held = decode(ONE, BINDING).held
    data = changes(held.name, directions([1], [shift], [(20, 20)], [[1, 3, 0], [-1, 0]]))
    decoded = decode(data, BINDING, since=held)
    site = decoded.factors["s"]
    assert (site.p[:, 0].tolist(), site.q[0].tolist(), site.lam.tolist()) == (p, q, [2.0 ** (scale / 4)])
    of_p, of_q = (np.array(by) * 2.0**-shift for by in ([1, 3, 0], [-1, 0]))
    assert np.array_equal(site.update(), 4 * np.outer(VECTORS[0] + of_p, VECTORS[1] + of_q))
    assert held.sites["s"].p[:, 0].tolist() == [1, 0, -2]  # what was held is as it was


def test_directions_beyond_the_held_ones_are_new_and_the_update_is_the_sum():
    held = decode(ONE, BINDING)
    new = [[0, 1, 1], [3, -1]]
    data = changes(held.held.name, directions([2], [0, -4], [(0, 0), (20, 20)], [[], [], *new]))
    found = decode(data, BINDING, since=held.held)
    assert found.ranks == (2,)
    assert np.array_equal(found.factors["s"].update(), held.factors["s"].update() + 0.5 * np.outer(*new))


def test_rows_of_dense_tensors_change_alike():
    held = decode(ROWS, BINDING)
    assert held.dense["d"].tolist() == [[2, -6], [3.5, 0]]
    data = changes(held.held.name, body([[1, -1], [20, 20]], [([1, 0], 20), ([0, 2], 20)]))
    found = decode(data, BINDING, since=held.held)
    assert found.dense["d"].tolist() == [[3, -6], [3.5, 2]]  # by half a step of 2, by two of twice 1/2
    assert found.held.dense["d"].scales.tolist() == [0, -4]


def test_tensors_that_did_not_arrive_come_as_in_a_payload_of_its_own():
    none = decode(ROWS[: chunk_ends(ROWS)[0]], BINDING, allow_prefix=True)
    assert none.dense == {}
    chunk = body([[4, -4], [20, 20]], [([1, -3], 20), ([7, 0], 20)])
    found = decode(changes(none.held.name, chunk), BINDING, since=none.held)
    assert found.dense["d"].tolist() == [[2, -6], [3.5, 0]]
    assert found.held.name == decode(ROWS, BINDING).held.name != none.held.name  # by what is held, not how it came


def test_the_name_is_the_hash_of_the_numbers():
    """Worked out on the bytes that docs/payload.md lists."""
    text = (
        '{"base":"'
        + "a1" * 32
        + '","codec":"coded","dense":[],"meta":{},"sites":[["s",3,2]],"tokenizer":"'
        + "b2" * 32
        + '"}'
    )
    numbers = bytes.fromhex("0100000008000100000000000000feffffff0200000001000000")
    assert decode(ONE, BINDING).held.name == sha256(text.encode() + numbers).digest()[:16]


@ANY
@given(coded_adapters(), st.integers(0, 1000), st.sampled_from((0.01, 0.3, 3.0)), st.integers(-3, 3))
def test_a_second_decoder_agrees_on_changes_of_changes_and_on_every_prefix(
    adapter: CodedAdapter, seed: int, by: float, octaves: int
):
    data = adapter.draft().encode(adapter.ranks).data
    decoded, second = decode(data, BINDING), second_coded_decoder.read(data, False, None)
    assert_agree(decoded, second)
    for turn in range(2):
        factors = moved(adapter.factors, seed + turn, by)
        refiner = Refiner(decoded.held, factors, {name: 1.1 * value for name, value in adapter.dense.items()})
        draft = Draft(refiner.at(adapter.slope * 2.0**octaves), BINDING, {})
        payload = draft.encode(draft.sizes.ranks).data
        assert len(payload) * 8 <= draft.payload_bits(draft.sizes.ranks)
        for end in chunk_ends(payload):
            found = decode(payload[:end], BINDING, since=decoded.held, allow_prefix=True)
            changed = second_delta_decoder.change(payload[:end], second, prefix=True)
            assert_agree(found, changed)
            assert found.complete == (end == len(payload))
        decoded, second = found, changed
        assert decoded.meta == META


def delta(held: Decoded, seed: int) -> bytes:
    """Changes of the small adapter, all directions."""
    small = small_adapter()
    refiner = Refiner(held.held, moved(small.factors, seed, 0.3), {k: v + 0.2 for k, v in small.dense.items()})
    draft = Draft(refiner.at(small.slope), BINDING, {})
    return draft.encode(draft.sizes.ranks).data


def test_changes_open_only_on_what_they_change():
    first = decode(SMALL, BINDING)
    one = delta(first, 1)
    second = decode(one, BINDING, since=first.held)
    two = delta(second, 2)
    third = decode(two, BINDING, since=second.held)
    names = [state.held.name.hex() for state in (first, second, third)]
    assert len(set(names)) == 3
    refused(one, f"changes adapter {names[0]}, this receiver holds none; .* ask for the new adapter whole")
    refused(one, f"changes adapter {names[0]}, this receiver holds {names[1]}", since=second.held)  # twice
    refused(two, f"changes adapter {names[1]}, this receiver holds {names[0]}", since=first.held)  # out of order
    refused(one, "this receiver holds none", held={first.held.name: b"static"})
    part = decode(one[: chunk_ends(one)[1]], BINDING, since=first.held, allow_prefix=True)
    refused(one, f"this receiver holds {part.held.name.hex()}", since=part.held)  # the rest is not for a part of it
    refused(two, f"this receiver holds {part.held.name.hex()}", since=part.held)
    other = forge_coded(SMALL, lambda payload: payload.document.update(base=OTHER))
    refused(one, "this receiver holds", since=decode(other, None).held)  # the same numbers for another base model
    assert decode(SMALL, BINDING, since=third.held).held.name == first.held.name  # whole ones go anywhere
    assert held_after([SMALL, one, two]).name == third.held.name
    with pytest.raises(PayloadError, match=f"this receiver holds {names[0]}"):
        held_after([SMALL, two])


def test_prefixes_keep_what_did_not_arrive_as_it_was():
    first = decode(SMALL, BINDING)
    header = decode(delta(first, 1)[: chunk_ends(delta(first, 1))[0]], BINDING, since=first.held, allow_prefix=True)
    assert header.held.name == first.held.name
    assert not header.complete
    assert all(np.array_equal(site.p, first.factors[name].p) for name, site in header.factors.items())


def test_every_single_bit_flip_and_every_cut_is_refused():
    first = decode(SMALL, BINDING)
    whole = delta(first, 1)
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        refused(bytes(data), None, since=first.held)
    for end in range(len(whole)):
        refused(whole[:end], None, since=first.held)


@pytest.mark.parametrize(
    ("shift", "message"), [(17, "a shift beyond 16 octaves"), (-17, "a shift beyond 16"), (501, "scale beyond")]
)
def test_forged_shifts_are_refused(shift: int, message: str):
    held = decode(ONE, BINDING).held
    refused(changes(held.name, directions([1], [shift], [(20, 20)], VECTORS)), message, since=held)
    refused(changes(held.name, directions([1], [shift], [(0, 0)])), message, since=held)


def test_numbers_and_scales_that_are_not_exact_are_refused():
    held = decode(ONE, BINDING).held
    most = changes(held.name, directions([1], [-14], [(20, 20)], [[1023, 0, 0], [0, 0]]))
    assert decode(most, BINDING, since=held).factors["s"].p[0, 0] == 1 + 1023 * 2**14  # below 2^24
    beyond = changes(held.name, directions([1], [-14], [(20, 20)], [[1024, 0, 0], [0, 0]]))
    refused(beyond, r"s changes to a number beyond 16777216; send it whole", since=held)
    low = decode(only(directions([1], [-404], [(20, 20)], VECTORS)), BINDING).held
    least = changes(low.name, directions([1], [12], [(0, 0)]))
    assert decode(least, BINDING, since=low).held.sites["s"].scales.tolist() == [-500]
    below = changes(low.name, directions([1], [13], [(0, 0)]))
    refused(below, r"s changes to a scale below 2\^\(-500/4\); send it whole", since=low)


def test_changes_to_an_update_beyond_float32_are_refused():
    """A scale of 2^124: P at 1 + 4 stays below 2^127; P at 1 + 8, or a direction of 8 more, does not."""
    held = decode(only(directions([1], [496], [(20, 20)], [[1, 0, 0], [1, 0]])), BINDING).held
    most = changes(held.name, directions([1], [-2], [(20, 0)], [[1, 0, 0]]))
    assert np.abs(decode(most, BINDING, since=held).factors["s"].update()).max() == 5 * 2.0**124
    beyond = changes(held.name, directions([1], [-3], [(20, 0)], [[1, 0, 0]]))
    refused(beyond, "update of s may be beyond float32", since=held)
    added = changes(held.name, directions([2], [0, 496], [(0, 0), (20, 20)], [[], [], [8, 0, 0], [1, 0]]))
    refused(added, "update of s may be beyond float32", since=held)
    second = second_coded_decoder.read(only(directions([1], [496], [(20, 20)], [[1, 0, 0], [1, 0]])), False, None)
    for data in (beyond, added):
        with pytest.raises(ValueError, match="update beyond float32"):
            second_coded_decoder.values(*second_delta_decoder.change(data, second))


def test_changes_to_a_dense_number_beyond_float32_are_refused():
    """2^125 times 4 is 2^127; times 8 it is more than float32 holds."""
    sent = only(body([[500], [20]], [([4, 0], 20)]), dense=[["d", [2]]])
    held = decode(sent, BINDING).held
    assert decode(sent, BINDING).dense["d"].tolist() == [2.0**127, 0.0]
    beyond = changes(held.name, body([[0], [20]], [([4, 0], 20)]))
    refused(beyond, "d holds a number beyond float32", since=held)
    with pytest.raises(PayloadError, match="d holds a number beyond float32"):
        inspect(beyond, since=held)


def test_ranks_and_sizes_stay_within_their_limits():
    held = decode(only(*[directions([1], [0], [(20, 20)], VECTORS)] * 2), BINDING).held
    twice = [directions([2], [0] * 2, [(0, 0)] * 2)] * 2
    refused(changes(held.name, *twice), "4 directions, its sites hold 2 at", since=held)
    data = changes(held.name, directions([1], [0], [(0, 0)]))
    assert decode(data, BINDING, Limits(max_decoded_bytes=48), since=held).ranks == (2,)  # 2 (3 + 2 + 1) numbers
    refused(data, "has 48 bytes, the limit is 47", limits=Limits(max_decoded_bytes=47), since=held)


def test_changes_stand_nowhere_else_and_say_what_they_change():
    first = decode(SMALL, BINDING)
    data = delta(first, 1)
    with pytest.raises(PayloadError, match=f"changes adapter {first.held.name.hex()} and opens nowhere else"):
        self_contained(data, {})
    info, then = inspect(data, since=first.held), decode(data, BINDING, since=first.held).held
    assert (info.changes, info.adapter) == (first.held.name.hex(), then.name.hex())
    assert (inspect(SMALL).changes, inspect(SMALL).adapter) == ("", first.held.name.hex())
    with pytest.raises(PayloadError, match=f"changes adapter {first.held.name.hex()}, this receiver holds none"):
        inspect(data)


def test_format_1_is_not_changed():
    old = fixed_adapter().encode().data
    assert decode(old, None).held is None
    with pytest.raises(PayloadError, match="of format 1, and only adapters of format 2 can be changed"):
        held_after([old])
    assert held_after([]) is None


BYTES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3)


@given(BYTES, st.integers(0, 1))
@settings(deadline=None, max_examples=100)
def test_random_bytes_in_chunks_are_judged_alike_by_both_decoders(places: list[tuple[int, int]], chunk: int):
    first, second = decode(SMALL, BINDING), second_coded_decoder.read(SMALL, False, None)
    whole = delta(first, 1)
    chunks = [bytearray(whole[start:end]) for start, end in pairwise(chunk_ends(whole))]
    for at, value in places:
        chunks[chunk][at % len(chunks[chunk])] = value
    data = changes(first.held.name, *map(bytes, chunks))
    try:
        found = decode(data, None, since=first.held)
    except PayloadError:
        with pytest.raises(ValueError):
            second_coded_decoder.values(*second_delta_decoder.change(data, second))
        return
    assert_agree(found, second_delta_decoder.change(data, second))


def test_changes_of_more_than_may_be_held_are_refused_in_little_memory():
    """One direction more beside 60 of 60,001 numbers, which would be copied."""
    contents = Contents.of({"s": (40_000, 20_000)}, {}, BINDING, {})
    parts = np.zeros((40_000, 60), np.int16), np.zeros((60, 20_000), np.int16), np.zeros(60, np.int16)
    since = HeldAdapter(contents, {"s": HeldSite(*parts)}, {})
    data, most = changes(since.name, directions([1], [0], [(0, 0)])), 4 * 60 * 60_001
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError, match=f"the adapter has {most} bytes, the limit is {most - 1}"):
            decode(data, None, Limits(max_decoded_bytes=most - 1), since=since)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert decode(data, None, Limits(max_decoded_bytes=most), since=since).ranks == (60,)
