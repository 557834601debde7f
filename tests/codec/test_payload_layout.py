"""Sizes without encoding: exact, monotone, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from payload_material import BINDING, Adapter, adapters, fixed_adapter, large_adapter

from airtune.codec import Allocation, Layout, chunk_ends, inspect, layout_of
from airtune.codec.blockwise.container import CHUNK_OVERHEAD
from airtune.codec.blockwise.layout import Chunks, count_chunks, group_levels
from airtune.errors import PayloadError

ANY = settings(deadline=None, max_examples=80)


@ANY
@given(adapters())
def test_payload_bits_are_exact(adapter: Adapter):
    assert adapter.layout().payload_bits(adapter.allocation) == adapter.encode().bits


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_payload_bits_are_exact_over_many_chunks(bits: int):
    adapter = large_adapter(bits)
    assert adapter.layout().payload_bits(adapter.allocation) == adapter.encode().bits


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, Allocation]:
    dim = st.one_of(st.integers(1, 80), st.integers(1, 5000))
    shapes = draw(st.lists(st.tuples(dim, dim), min_size=1, max_size=6))
    dense = draw(st.sampled_from(({}, {"head": (2, 384), "bias": ()})))
    ranks = tuple(draw(st.integers(0, min(*shape, 40))) for shape in shapes)
    bits = tuple(draw(st.sampled_from((4, 8, 16, 32))) for _ in shapes)
    return Layout.of({str(i): shape for i, shape in enumerate(shapes)}, dense, BINDING, {}), Allocation(ranks, bits)


@ANY
@given(layouts(), st.data())
def test_one_more_rank_costs_its_direction_and_perhaps_a_chunk(drawn: tuple[Layout, Allocation], data: st.DataObject):
    layout, less = drawn
    site = data.draw(st.integers(0, len(less) - 1))
    assume(less.ranks[site] < layout.contents.sites[site].cap)
    more = Allocation(tuple(r + (i == site) for i, r in enumerate(less.ranks)), less.bits)
    direction = layout.site_bits(less.bits[site])[site]
    growth = layout.payload_bits(more) - layout.payload_bits(less) - direction
    assert growth >= 0
    assert growth % (8 * CHUNK_OVERHEAD) == 0


@ANY
@given(layouts(), st.data())
def test_more_bits_never_cost_less(drawn: tuple[Layout, Allocation], data: st.DataObject):
    layout, allocation = drawn
    site = data.draw(st.integers(0, len(allocation) - 1))
    assume(layout.contents.sites[site].cap > 1)  # one number with its scale has 3 bytes, as float16 2
    sizes = []
    for width in (4, 8, 16, 32):
        bits = tuple(width if i == site else b for i, b in enumerate(allocation.bits))
        sizes.append(layout.payload_bits(Allocation(allocation.ranks, bits)))
    assert sizes == sorted(sizes)


@ANY
@given(st.lists(st.integers(1, 9000), max_size=40))
def test_counting_chunks_matches_grouping_levels(sizes: list[int]):
    levels = sorted(sizes, reverse=True)
    groups = group_levels(levels)
    assert sum(groups) == len(levels)
    assert count_chunks(np.array(levels, np.int64)) == len(groups)


def test_groups_by_hand():
    assert group_levels([5000, 4096, 4095, 1, 4000, 90, 6, 3]) == (1, 1, 2, 3, 1)
    assert group_levels([]) == ()


@ANY
@given(layouts())
def test_chunks_hold_whole_levels_of_at_least_4096_bytes(drawn: tuple[Layout, Allocation]):
    layout, allocation = drawn
    chunks = Chunks.of(layout.contents, allocation)
    bodies = [length - 4 for length in chunks.lengths][1 if chunks.dense_bytes else 0 :]
    assert all(body >= 4096 for body in bodies[:-1])
    assert len(chunks.level_bytes) == max(allocation.ranks)
    assert sum(bodies) == sum(
        rank * layout.site_bits(bits)[i] // 8
        for i, (rank, bits) in enumerate(zip(allocation.ranks, allocation.bits, strict=True))
    )


def test_costs_of_a_direction_by_hand():
    layout = Layout.of({"a": (384, 384), "b": (3, 65)}, {}, BINDING, {})
    assert layout.site_bits(32).tolist() == [8 * (4 + 4 * 768), 8 * (4 + 4 * 68)]
    assert layout.site_bits(16).tolist() == [8 * (4 + 2 * 768), 8 * (4 + 2 * 68)]
    assert layout.site_bits(8).tolist() == [8 * (4 + 2 * (6 * 2 + 384)), 8 * (4 + 2 + 3 + 4 + 65)]
    assert layout.site_bits(4).tolist() == [8 * (4 + 2 * (6 * 2 + 192)), 8 * (4 + 2 + 2 + 4 + 33)]
    with pytest.raises(PayloadError, match="7 bits"):
        layout.site_bits(7)


def test_container_bits_are_the_header_and_the_head():
    layout = fixed_adapter().layout()
    header = 48 + len(layout.static) + 3 * 3 + 36  # one chunk: the head, 8 numbers
    assert layout.container_bits() == 8 * (header + 4 + 8 * 2)
    assert layout.container_bits(8) == 8 * (header + 4 + (6 + 2) + (2 + 2))
    assert layout.container_bits(32) == 8 * (header + 4 + 8 * 4)
    bare = fixed_adapter(dense=False).layout()
    assert bare.container_bits() == 8 * (48 + len(bare.static) + 3 * 3)


def test_parameters_by_hand():
    layout = Layout.of({"a": (384, 384), "b": (3, 65)}, {"head": (7,)}, BINDING, {})
    assert layout.parameters(Allocation((8, 2), (4, 8))) == 8 * 769 + 2 * 69


def test_a_layout_from_shapes_equals_one_from_values():
    adapter = fixed_adapter()
    shapes = Layout.of(
        {name: site.shape for name, site in adapter.factors.items()},
        {"head.weight": (2, 3), "head.bias": (2,)},
        adapter.binding,
        adapter.meta,
    )
    values = layout_of(adapter.factors, adapter.dense, adapter.binding, adapter.meta)
    assert shapes.static == values.static
    assert shapes.contents == values.contents


@pytest.mark.parametrize(
    ("allocation", "message"),
    [(Allocation((1,), (8,)), "1 sites, the adapter has 3"), (Allocation((1, 6, 1), (8,) * 3), r"layer\.1.*= 5")],
)
def test_an_allocation_that_does_not_fit_is_refused(allocation: Allocation, message: str):
    layout = fixed_adapter().layout()
    with pytest.raises(PayloadError, match=message):
        layout.payload_bits(allocation)
    with pytest.raises(PayloadError, match=message):
        layout.parameters(allocation)


def test_inspect_accounts_for_every_byte():
    adapter = large_adapter(8)
    payload = adapter.encode()
    info = inspect(payload.data)
    assert [row.name for row in info.sites] == list(adapter.factors)
    assert [row.rank for row in info.sites] == [12, 5, 9]
    assert {row.bits for row in info.sites} == {8}
    assert info.sites[0].shape == (300, 200)
    assert info.sites[0].bytes == 12 * (4 + 2 * 5 + 300 + 2 * 4 + 200)
    assert (info.dense[0].name, info.dense[0].shape, info.dense[0].bytes) == ("head", (4, 5), 20 + 2)
    parts = sum(row.bytes for row in info.sites) + info.dense[0].bytes
    assert info.total_bytes == len(payload.data) == info.header_bytes + 4 * info.chunk_count + parts
    assert info.header_bytes == chunk_ends(payload.data)[0]
    assert info.chunk_count == info.chunks_received == len(chunk_ends(payload.data)) - 1
    assert info.sites[0].share == pytest.approx(info.sites[0].bytes / len(payload.data))
    assert (info.version, info.binding, info.meta, info.complete) == (1, BINDING, adapter.meta, True)


def test_inspect_of_a_prefix_says_what_arrived():
    payload = large_adapter(8).encode()
    info = inspect(payload.data[: chunk_ends(payload.data)[2]], allow_prefix=True)
    assert not info.complete
    assert info.chunks_received == 2
    assert len({row.rank for row in info.sites}) == 1
    assert info.total_bytes == info.header_bytes + 8 + 22 + sum(row.bytes for row in info.sites)
    header = inspect(payload.data[: chunk_ends(payload.data)[0]], allow_prefix=True)
    assert header.dense[0].bytes == 0
    with pytest.raises(PayloadError, match="prefix"):
        inspect(payload.data[:-1])
