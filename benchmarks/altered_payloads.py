"""Payloads to alter: small valid ones of every kind taken apart, and changes that leave hashes and lengths right."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np

from airtune.codec import (
    Allocation,
    Binding,
    Factors,
    HeldAdapter,
    Refiner,
    chunk_ends,
    code_adapter,
    decode,
    encode,
)
from airtune.codec.coded.draft import Draft

CHANGES_HELD = 2**32 - 1
"""Where a payload has the length of its static part: it changes a held adapter."""
EDGES = (0, 1, 2, 3, 20, 21, 64, 127, 128, 255, 256, 500, 501, 1024, 4096, 2**15, 2**16 - 1, 2**20, 2**31, 2**32 - 1)
CENTRES = (-501, -500, -16, 0, 1, 20, 21, 480, 490, 499, 500, 501)
"""Of runs of scales, shifts and tables."""


@dataclass(frozen=True)
class Parts:
    """A payload taken apart; None as a field of the header is what fits.

    Args:
        document: The static part's text; for changes of a held adapter (`since`) its name.
    """

    format: int
    document: bytes
    sites: bytes
    chunks: tuple[bytes, ...]
    static: bytes | None = None
    lengths: tuple[int, ...] | None = None
    fields: dict[int, int] = field(default_factory=dict)
    since: HeldAdapter | None = None

    @property
    def kind(self) -> str:
        return f"format {self.format}" if self.since is None else "changes"

    @property
    def dense(self) -> bool:
        """Whether the first chunk is that of dense tensors, if there is one."""
        if self.since is not None:
            return bool(self.since.contents.dense)
        return bool(json.loads(self.document)["dense"])

    @property
    def digest(self) -> int:
        return 32 if self.format == 1 else 16

    def build(self) -> bytes:
        made = zlib.compress(self.document, 1) if self.since is None else self.document
        static = made if self.static is None else self.static
        lengths = tuple(map(len, self.chunks)) if self.lengths is None else self.lengths
        counts = [len(self.sites) // 3, len(static) if self.since is None else CHANGES_HELD, len(self.chunks)]
        fields = counts if self.format == 1 else [counts[2], counts[1]]
        for at, value in self.fields.items():
            fields[at % len(fields)] = value
        fields[0] &= 0xFFFF
        header = struct.pack("<4sHHII" if self.format == 1 else "<4sHHI", b"\x89atn", self.format, *fields) + static
        rows = (struct.pack("<I", n) + self._hash(chunk) for n, chunk in zip(lengths, self.chunks, strict=False))
        header += self.sites + b"".join(rows)
        return header + self._hash(header) + b"".join(self.chunks)

    def _hash(self, data: bytes) -> bytes:
        return sha256(data).digest()[: self.digest]


def take_apart(data: bytes, since: HeldAdapter | None = None) -> Parts:
    (kind,) = struct.unpack_from("<H", data, 4)
    if kind == 1:
        _, _, sites, static, count = struct.unpack_from("<4sHHII", data)
        at, row = 16, 36
    else:
        _, _, count, static = struct.unpack_from("<4sHHI", data)
        at, row, sites = 12, 20, 0
        static = static if since is None else 16
    table = at + static + 3 * sites
    start, chunks = table + row * count + row - 4, []
    for index in range(count):
        (length,) = struct.unpack_from("<I", data, table + row * index)
        chunks.append(data[start : start + length])
        start += length
    document = data[at : at + static] if since is not None else zlib.decompress(data[at : at + static])
    return Parts(kind, document, data[at + static : table], tuple(chunks), since=since)


def seeds() -> list[Parts]:
    """Small valid payloads of either kind: with and without dense tensors, of one chunk and of several."""
    rng, binding = np.random.default_rng(0), Binding("a1" * 32, "b2" * 32)
    found, changes = [], []
    for shapes, rank, heads in (
        (((9, 6), (5, 7), (4, 70)), 3, {"head.weight": (2, 3), "head.bias": (2,), "norm.scale": ()}),
        (((40, 30), (30, 40)), 5, {}),
        (((300, 200), (200, 300)), 9, {"score.weight": (4, 20)}),
    ):
        factors = {
            f"layer.{i}": Factors(rng.normal(size=(o, rank)), rng.normal(size=rank), rng.normal(size=(rank, n)))
            for i, (o, n) in enumerate(shapes)
        }
        dense = {name: rng.normal(size=shape) for name, shape in heads.items()}
        meta = {"kind": "classify", "base_model": "some/base"}
        for bits in (4, 8, 16):
            allocation = Allocation.uniform(rank, bits, sites=len(shapes))
            found.append(encode(factors, dense, allocation, binding, meta))
        for slope in (1e-2, 1.0):
            draft = Draft(code_adapter(factors, dense, slope, canonical=False), binding, meta)
            found.append(draft.encode([rank] * len(shapes)))
            held = decode(found[-1].data, binding).held
            moved = {name: moved_a_little(site, rng) for name, site in factors.items()}
            later = Refiner(held, moved, {name: 1.1 * value for name, value in dense.items()}).at(slope / 10)
            changes.append(take_apart(Draft(later, binding, meta).ladder(2**40).data, held))
    parts = [take_apart(payload.data) for payload in found] + changes
    assert all(decode(part.build(), binding, since=part.since).complete for part in parts)
    return parts


def moved_a_little(site: Factors, rng: np.random.Generator) -> Factors:
    return Factors(site.p + 0.1 * rng.normal(size=site.p.shape), site.lam, site.q + 0.1 * rng.normal(size=site.q.shape))


def changed_bytes(data: bytes, rng: random.Random, most: int | None = None) -> bytes:
    """1 to 4 of the (first) bytes changed, or a u16 or u32 set to a number at an edge."""
    found = bytearray(data)
    reach = min(len(found), most or len(found))
    for _ in range(rng.randint(1, 4) if reach else 0):
        at, how = rng.randrange(reach), rng.randrange(4)
        if how == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            found[at] = rng.randrange(256)
        else:
            size = min(2 * how - 2, len(found) - at)
            found[at : at + size] = (rng.choice(EDGES) & (256**size - 1)).to_bytes(size, "little")
    return bytes(found)


def one_chunk(parts: Parts, rng: random.Random, change: Callable[[bytes], bytes]) -> Parts:
    if not parts.chunks:
        return parts
    at = rng.randrange(len(parts.chunks))
    return replace(parts, chunks=(*parts.chunks[:at], change(parts.chunks[at]), *parts.chunks[at + 1 :]))


def change_number(parts: Parts, rng: random.Random) -> Parts:
    """A dimension of a site or dense tensor set to a number at an edge; changes name none, so a field of the header."""
    if parts.since is not None:
        return change_header(parts, rng)
    document = json.loads(parts.document)
    rows = list(document["sites"]) + [row[1] for row in document["dense"] if row[1]]
    row = rng.choice(rows)
    row[rng.randrange(1, 3) if isinstance(row[0], str) else rng.randrange(len(row))] = rng.choice(EDGES)
    return replace(parts, document=json.dumps(document).encode())


def change_header(parts: Parts, rng: random.Random) -> Parts:
    how = rng.randrange(3)
    if how == 0:
        return replace(parts, fields={rng.randrange(3): rng.choice(EDGES)})
    if how == 1 and parts.sites:
        return replace(parts, sites=changed_bytes(parts.sites, rng))
    lengths = [len(chunk) for chunk in parts.chunks]
    if lengths:
        lengths[rng.randrange(len(lengths))] = rng.choice((*EDGES, rng.randrange(2**32)))
    return replace(parts, lengths=tuple(lengths))


def move_chunks(parts: Parts, rng: random.Random) -> Parts:
    """Chunks dropped, sent twice, swapped or emptied."""
    chunks = list(parts.chunks)
    for _ in range(rng.randint(1, 3)):
        at, how = rng.randrange(len(chunks) + 1), rng.randrange(4)
        if how == 0 and chunks:
            chunks.insert(at, rng.choice(chunks))
        elif how == 1 and at < len(chunks):
            chunks.pop(at)
        elif how == 2:
            rng.shuffle(chunks)
        else:
            chunks.insert(at, b"")
    return replace(parts, chunks=tuple(chunks))


def set_runs(parts: Parts, rng: random.Random) -> Parts:
    """Format 2: runs' centres and tables at their edges, counts left alone: scales, and which codes there may be."""
    if parts.format != 2 or not parts.chunks:
        return change_header(parts, rng)
    at = rng.randrange(len(parts.chunks))
    chunk = bytearray(parts.chunks[at])
    places = range(0, 6, 3) if at == 0 and parts.dense else range(5, 14, 3)
    for place in rng.sample(places, rng.randint(1, len(places))):
        if place + 3 <= len(chunk):
            if rng.random() < 0.8:
                struct.pack_into(
                    "<h", chunk, place, rng.choice((-501, -500, -16, 0, 1, 20, 21, 480, 490, 499, 500, 501))
                )
            if rng.random() < 0.4:
                chunk[place + 2] = rng.randrange(22)
    return replace(parts, chunks=(*parts.chunks[:at], bytes(chunk), *parts.chunks[at + 1 :]))


def out_of_nothing(parts: Parts, rng: random.Random) -> Parts:
    """Format 2: a payload of a few bytes that says much: many rows, long ones, or many chunks without directions."""
    if parts.format != 2 or parts.since is not None:
        return move_chunks(parts, rng)
    if rng.random() < 0.1:
        nothing = bytes(2 + 4 * 3 + 2)
        return replace(parts, chunks=(*parts.chunks, *[nothing] * rng.choice((1, 20, 900, 1100, 5000, 2**16 - 3))))
    count, length = rng.choice((1, 7, 1000, 2**16, 2**19, 2**20)), rng.choice((1, 2, 64, 4096, 2**20))
    scale, table = rng.choice((-500, 0, 480, 490, 499, 500)), rng.randrange(22)
    lanes = max(1, round(count * length / 8192)) if table else 0
    chunk = struct.pack("<hBhBH", scale, 0, table, 0, 0) + bytes(2 * min(lanes, 2**15))
    document = json.loads(parts.document) | {"dense": [["head.weight", [count, length]]]}
    chunks = parts.chunks[1:] if parts.dense else parts.chunks
    return replace(parts, document=json.dumps(document).encode(), chunks=(chunk, *chunks))


def resize(chunk: bytes, rng: random.Random) -> bytes:
    return chunk[: rng.randrange(len(chunk) + 1)] if rng.random() < 0.5 else chunk + rng.randbytes(rng.randint(1, 12))


def cut(data: bytes, rng: random.Random) -> bytes:
    """A prefix, as often after a chunk as anywhere."""
    return data[: rng.choice(chunk_ends(data)[:-1])] if rng.random() < 0.5 else data[: rng.randrange(len(data))]


HASHES_AS_SENT = ("bytes, hashes not recomputed", "cut")
CHANGES: dict[str, Callable[[Parts, random.Random], bytes]] = {
    HASHES_AS_SENT[0]: lambda parts, rng: changed_bytes(parts.build(), rng),
    "static part's text": lambda parts, rng: replace(parts, document=changed_bytes(parts.document, rng)).build(),
    "static part's stream": lambda parts, rng: replace(
        parts, static=changed_bytes(zlib.compress(parts.document), rng)
    ).build(),
    "shapes": lambda parts, rng: change_number(parts, rng).build(),
    "header": lambda parts, rng: change_header(parts, rng).build(),
    "chunk's head": lambda parts, rng: one_chunk(parts, rng, lambda chunk: changed_bytes(chunk, rng, 24)).build(),
    "chunk's bytes": lambda parts, rng: one_chunk(parts, rng, lambda chunk: changed_bytes(chunk, rng)).build(),
    "chunk's length": lambda parts, rng: one_chunk(parts, rng, lambda chunk: resize(chunk, rng)).build(),
    "runs": lambda parts, rng: set_runs(parts, rng).build(),
    "much out of nothing": lambda parts, rng: out_of_nothing(parts, rng).build(),
    "chunks moved": lambda parts, rng: move_chunks(parts, rng).build(),
    HASHES_AS_SENT[1]: lambda parts, rng: cut(parts.build(), rng),
}
