"""Adapters for format 2, drawn by hypothesis or fixed, and a forger that rewrites payloads with hashes recomputed."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import strategies as st
from payload_material import BINDING, draw_factors

from airtune.codec import Factors
from airtune.codec.coded.draft import Draft
from airtune.codec.coded.quantiser import code_adapter
from airtune.codec.entropy import encode_lanes, native

META = {"base_model": "tiny", "task": "classify"}


@pytest.fixture(params=["constriction", "numpy"], scope="module", autouse=True)
def each_coder(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs the tests of a module that imports it once with each coder of lanes."""
    if request.param == "constriction" and not native.AVAILABLE:
        pytest.skip("constriction is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "AVAILABLE", request.param == "constriction")
        yield


@dataclass(frozen=True)
class CodedAdapter:
    """Factors and tensors, and the price of a bit they are rounded at."""

    factors: dict[str, Factors]
    dense: dict[str, np.ndarray]
    slope: float = 1e-3
    ranks: tuple[int, ...] = ()

    def draft(self, *, named: bool = False) -> Draft:
        quantised = code_adapter(self.factors, self.dense, self.slope, canonical=False)
        return Draft(quantised, BINDING, META, named=named)


def small_adapter(*, dense: bool = True) -> CodedAdapter:
    rng = np.random.default_rng(1)
    ranks, shapes = (3, 0, 2), ((9, 6), (5, 7), (4, 70))
    factors = {f"layer.{i}.query": draw_factors(rng, *shape, 3) for i, shape in enumerate(shapes)}
    tensors = {"head.weight": rng.normal(size=(2, 3)), "head.bias": rng.normal(size=2)} if dense else {}
    return CodedAdapter(factors, tensors, 0.05, ranks)


def chunked_adapter() -> CodedAdapter:
    """Several chunks of directions, ranks that end early, bodies of more than one lane."""
    rng = np.random.default_rng(2)
    factors = {f"layer.{i}.query": draw_factors(rng, 300, 200, 12) for i in range(3)}
    return CodedAdapter(factors, {"head": rng.normal(size=(4, 5))}, 1e-2, (12, 5, 9))


@st.composite
def coded_adapters(draw: st.DrawFn) -> CodedAdapter:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    factors, ranks = {}, []
    size = st.one_of(st.integers(1, 9), st.integers(60, 70), st.integers(120, 300))
    for place in range(draw(st.integers(0, 3))):
        out, into = draw(size), draw(size)
        available = draw(st.integers(0, min(out, into, 6)))
        site = draw_factors(rng, out, into, available)
        factors[f"site.{place}"] = Factors(site.p, site.lam * draw(st.sampled_from((0.0, 1e-3, 1.0, 1e6))), site.q)
        ranks.append(draw(st.integers(0, available)))
    shapes = draw(st.lists(st.lists(st.integers(1, 5), max_size=3), max_size=2))
    power = draw(st.integers(-20, 20))
    dense = {f"head.{i}": rng.normal(size=shape) * 10.0**power for i, shape in enumerate(shapes)}
    return CodedAdapter(factors, dense, 10.0 ** draw(st.integers(-4, 1)), tuple(ranks))


@dataclass
class CodedForgery:
    """A payload of format 2 taken apart; change anything, then `build` it with every hash and length right again."""

    document: dict
    chunks: list[bytes]
    static: bytes | None = None
    lengths: list[int] | None = None
    count: int | None = None
    static_size: int | None = None

    @classmethod
    def of(cls, data: bytes) -> CodedForgery:
        _, _, c, s = struct.unpack("<4sHHI", data[:12])
        at, chunks = 12 + s + 20 * c + 16, []
        for row in range(c):
            (length,) = struct.unpack_from("<I", data, 12 + s + 20 * row)
            chunks.append(data[at : at + length])
            at += length
        return cls(json.loads(zlib.decompress(data[12 : 12 + s])), chunks)

    def put(self, chunk: int, at: int, form: str, value: int) -> None:
        """Overwrite a number within a chunk."""
        body = bytearray(self.chunks[chunk])
        struct.pack_into("<" + form, body, at, value)
        self.chunks[chunk] = bytes(body)

    def build(self) -> bytes:
        static = zlib.compress(json.dumps(self.document).encode()) if self.static is None else self.static
        lengths = [len(chunk) for chunk in self.chunks] if self.lengths is None else self.lengths
        count = len(self.chunks) if self.count is None else self.count
        size = len(static) if self.static_size is None else self.static_size
        header = struct.pack("<4sHHI", b"\x89atn", 2, count, size) + static
        for length, chunk in zip(lengths, self.chunks, strict=True):
            header += struct.pack("<I", length) + sha256(chunk).digest()[:16]
        return header + sha256(header).digest()[:16] + b"".join(self.chunks)


def forge_coded(data: bytes, change: Callable[[CodedForgery], object]) -> bytes:
    forgery = CodedForgery.of(data)
    change(forgery)
    return forgery.build()


def changes(name: bytes, *chunks: bytes) -> bytes:
    """A payload of changes of the adapter of that name."""
    rows = b"".join(struct.pack("<I", len(chunk)) + sha256(chunk).digest()[:16] for chunk in chunks)
    header = struct.pack("<4sHHI", b"\x89atn", 2, len(chunks), 2**32 - 1) + name + rows
    return header + sha256(header).digest()[:16] + b"".join(chunks)


def body(
    runs: Sequence[Sequence[int]], vectors: Sequence[tuple[Sequence[int], int]] = (), *, head: bytes = b""
) -> bytes:
    """A body of one lane at most, from the numbers of each run, and the codes of each vector with their table.

    A run of equal numbers has them as its centre, under table 0; any other the centre 0, under table 20.
    """
    constant = [len(set(run)) == 1 for run in runs]
    side = [(value, 20) for run, same in zip(runs, constant, strict=True) if not same for value in run]
    codes = [(code, table) for row, table in vectors if table for code in row]
    pairs = [np.array(lane, np.int64).reshape(-1, 2) for lane in ([side, codes] if codes else [side])]
    first, *rest = encode_lanes([(lane[:, 0].astype(np.int16), lane[:, 1].astype(np.uint8)) for lane in pairs])
    heads = [struct.pack("<hB", *((run[0], 0) if same else (0, 20))) for run, same in zip(runs, constant, strict=True)]
    return b"".join(
        (
            head,
            *heads,
            struct.pack("<H", len(first)),
            first.astype("<u4").tobytes(),
            *(struct.pack("<H", len(lane)) for lane in rest),
            *(lane.astype("<u4").tobytes() for lane in rest),
        )
    )


def directions(
    counts: Sequence[int],
    scales: Sequence[int],
    tables: Sequence[tuple[int, int]],
    vectors: Sequence[Sequence[int]] = (),
    number: int | None = None,
) -> bytes:
    """A body of directions, with the tables of P and Q of each, and the codes of its vectors in turn."""
    each = [table for pair in tables for table in pair]
    runs = [counts, scales, [p for p, _ in tables], [q for _, q in tables]]
    d = len(scales) if number is None else number
    return body(runs, list(zip(vectors, each, strict=False)), head=struct.pack("<H", d))
