"""Adapters to encode, drawn by hypothesis or fixed, and a forger that rewrites payloads with hashes recomputed."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from hypothesis import strategies as st

from airtune.codec import Allocation, Binding, Factors, Layout, Payload, encode, layout_of

BINDING = Binding("a1" * 32, "b2" * 32)
OTHER = "c3" * 32


@dataclass(frozen=True)
class Adapter:
    """Everything `encode` wants."""

    factors: dict[str, Factors]
    dense: dict[str, np.ndarray]
    allocation: Allocation
    binding: Binding = BINDING
    meta: dict[str, str | int | float] = field(default_factory=lambda: {"base_model": "tiny", "task": "classify"})

    def encode(self) -> Payload:
        return encode(self.factors, self.dense, self.allocation, self.binding, self.meta)

    def layout(self) -> Layout:
        return layout_of(self.factors, self.dense, self.binding, self.meta)


def draw_factors(rng: np.random.Generator, out: int, into: int, rank: int) -> Factors:
    return Factors(
        p=rng.normal(size=(out, rank)).astype(np.float32),
        lam=rng.normal(size=rank).astype(np.float32),
        q=rng.normal(size=(rank, into)).astype(np.float32),
    )


def fixed_adapter(ranks=(3, 0, 2), bits=(4, 16, 8), *, shapes=((9, 6), (5, 7), (4, 70)), dense=True) -> Adapter:
    rng = np.random.default_rng(1)
    factors = {f"layer.{i}.query": draw_factors(rng, *shape, min(shape)) for i, shape in enumerate(shapes)}
    tensors = {"head.weight": rng.normal(size=(2, 3)), "head.bias": rng.normal(size=2)} if dense else {}
    return Adapter(factors, tensors, Allocation(ranks, bits))


def large_adapter(bits: int = 16) -> Adapter:
    """Levels above and below the chunk size, and ranks that end early: several chunks."""
    rng = np.random.default_rng(2)
    factors = {f"layer.{i}.query": draw_factors(rng, 300, 200, 12) for i in range(3)}
    return Adapter(factors, {"head": rng.normal(size=(4, 5))}, Allocation((12, 5, 9), (bits,) * 3))


@st.composite
def adapters(draw: st.DrawFn) -> Adapter:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    factors, ranks = {}, []
    size = st.one_of(st.integers(1, 9), st.integers(60, 70), st.integers(120, 400))
    for place in range(draw(st.integers(0, 4))):
        out, into = draw(size), draw(size)
        available = draw(st.integers(0, 12))
        factors[f"site.{place}"] = draw_factors(rng, out, into, available)
        ranks.append(draw(st.integers(0, min(out, into, available))))
    bits = draw(st.lists(st.sampled_from((4, 8, 16, 32)), min_size=len(ranks), max_size=len(ranks)))
    shapes = draw(st.lists(st.lists(st.integers(1, 5), max_size=3), max_size=2))
    dense = {f"head.{i}": rng.normal(size=shape) for i, shape in enumerate(shapes)}
    return Adapter(factors, dense, Allocation(tuple(ranks), tuple(bits)))


@dataclass
class Forgery:
    """A payload taken apart; change anything, then `build` it with every hash and length right again."""

    document: dict
    ranks: list[int]
    bits: list[int]
    chunks: list[bytes]
    static: bytes | None = None
    lengths: list[int] | None = None

    @classmethod
    def of(cls, data: bytes) -> Forgery:
        _, _, n, s, c = struct.unpack("<4sHHII", data[:16])
        at = 16 + s
        rows = [struct.unpack_from("<I32s", data, at + 3 * n + 36 * i) for i in range(c)]
        start, chunks = at + 3 * n + 36 * c + 32, []
        for length, _ in rows:
            chunks.append(data[start : start + length])
            start += length
        ranks = list(struct.unpack(f"<{n}H", data[at : at + 2 * n]))
        return cls(json.loads(zlib.decompress(data[16:at])), ranks, list(data[at + 2 * n : at + 3 * n]), chunks)

    def renumber(self) -> None:
        """Give every chunk the index of its place."""
        self.chunks = [struct.pack("<I", index) + chunk[4:] for index, chunk in enumerate(self.chunks)]

    def build(self) -> bytes:
        static = zlib.compress(json.dumps(self.document).encode()) if self.static is None else self.static
        lengths = [len(chunk) for chunk in self.chunks] if self.lengths is None else self.lengths
        header = struct.pack("<4sHHII", b"\x89atn", 1, len(self.ranks), len(static), len(lengths)) + static
        header += struct.pack(f"<{len(self.ranks)}H", *self.ranks) + bytes(self.bits)
        for length, chunk in zip(lengths, self.chunks, strict=True):
            header += struct.pack("<I", length) + sha256(chunk).digest()
        return header + sha256(header).digest() + b"".join(self.chunks)


def forge(data: bytes, change: Callable[[Forgery], object]) -> bytes:
    forgery = Forgery.of(data)
    change(forgery)
    return forgery.build()
