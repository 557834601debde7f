"""Payloads of both formats, changed at random with hashes and lengths right again: what does `decode` make of them?

Counts outcomes by class of change. All that may come out is a PayloadError or an adapter of finite numbers, within a
second of processor time; anything else is kept in the JSON, as hex, and ends the run with status 1. The receiver's
limit on decoded size is 16 MiB, since zeros cost no bytes.

    python benchmarks/fuzz_payload.py --count 1000000 [--seconds 60] [--seed 0] [--coder numpy]
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from airtune.codec import Allocation, Binding, Factors, Limits, decode, encode
from airtune.codec.coded.draft import Draft
from airtune.codec.coded.quantiser import code_adapter
from airtune.codec.entropy import native
from airtune.errors import PayloadError

LIMITS = Limits(max_decoded_bytes=2**24)
SLOW = 1.0
"""Seconds of processor time that one payload may take."""
EDGES = (0, 1, 2, 3, 20, 21, 64, 127, 128, 255, 256, 500, 501, 1024, 4096, 2**15, 2**16 - 1, 2**20, 2**31, 2**32 - 1)


@dataclass(frozen=True)
class Parts:
    """A payload taken apart; None as a field of the header is what fits."""

    format: int
    document: bytes
    sites: bytes
    chunks: tuple[bytes, ...]
    static: bytes | None = None
    lengths: tuple[int, ...] | None = None
    fields: dict[int, int] = field(default_factory=dict)

    @property
    def digest(self) -> int:
        return 32 if self.format == 1 else 16

    def build(self) -> bytes:
        static = zlib.compress(self.document, 1) if self.static is None else self.static
        lengths = tuple(map(len, self.chunks)) if self.lengths is None else self.lengths
        counts = [len(self.sites) // 3, len(static), len(self.chunks)]
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


def take_apart(data: bytes) -> Parts:
    (kind,) = struct.unpack_from("<H", data, 4)
    if kind == 1:
        _, _, sites, static, count = struct.unpack_from("<4sHHII", data)
        at, row = 16, 36
    else:
        _, _, count, static = struct.unpack_from("<4sHHI", data)
        at, row, sites = 12, 20, 0
    table = at + static + 3 * sites
    start, chunks = table + row * count + row - 4, []
    for index in range(count):
        (length,) = struct.unpack_from("<I", data, table + row * index)
        chunks.append(data[start : start + length])
        start += length
    return Parts(kind, zlib.decompress(data[at : at + static]), data[at + static : table], tuple(chunks))


def seeds() -> list[Parts]:
    """Small valid payloads of both formats: with and without dense tensors, of one chunk and of several."""
    rng, binding = np.random.default_rng(0), Binding("a1" * 32, "b2" * 32)
    found = []
    for shapes, rank, heads in (
        (((9, 6), (5, 7), (4, 70)), 3, {"head.weight": (2, 3), "head.bias": (2,), "scale": ()}),
        (((40, 30), (30, 40)), 5, {}),
        (((300, 200), (200, 300)), 9, {"head": (4, 20)}),
    ):
        factors = {
            f"layer.{i}": Factors(rng.normal(size=(o, rank)), rng.normal(size=rank), rng.normal(size=(rank, n)))
            for i, (o, n) in enumerate(shapes)
        }
        dense = {name: rng.normal(size=shape) for name, shape in heads.items()}
        meta = {"task": "classify", "epochs": 3}
        for bits in (4, 8, 16):
            allocation = Allocation.uniform(rank, bits, sites=len(shapes))
            found.append(encode(factors, dense, allocation, binding, meta))
        for slope in (1e-2, 1.0):
            draft = Draft(code_adapter(factors, dense, slope, canonical=False), binding, meta)
            found.append(draft.encode([rank] * len(shapes)))
    parts = [take_apart(payload.data) for payload in found]
    assert all(decode(part.build(), binding).complete for part in parts)
    return parts


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
    """A dimension of a site or dense tensor set to a number at an edge."""
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


def resize(chunk: bytes, rng: random.Random) -> bytes:
    return chunk[: rng.randrange(len(chunk) + 1)] if rng.random() < 0.5 else chunk + rng.randbytes(rng.randint(1, 12))


CHANGES: dict[str, Callable[[Parts, random.Random], bytes]] = {
    "bytes, hashes not recomputed": lambda parts, rng: changed_bytes(parts.build(), rng),
    "static part's text": lambda parts, rng: replace(parts, document=changed_bytes(parts.document, rng)).build(),
    "static part's stream": lambda parts, rng: replace(
        parts, static=changed_bytes(zlib.compress(parts.document), rng)
    ).build(),
    "shapes": lambda parts, rng: change_number(parts, rng).build(),
    "header": lambda parts, rng: change_header(parts, rng).build(),
    "chunk's head": lambda parts, rng: one_chunk(parts, rng, lambda chunk: changed_bytes(chunk, rng, 24)).build(),
    "chunk's bytes": lambda parts, rng: one_chunk(parts, rng, lambda chunk: changed_bytes(chunk, rng)).build(),
    "chunk's length": lambda parts, rng: one_chunk(parts, rng, lambda chunk: resize(chunk, rng)).build(),
    "chunks moved": lambda parts, rng: move_chunks(parts, rng).build(),
    "cut": lambda parts, rng: (data := parts.build())[: rng.randrange(len(data))],
}


def outcome(data: bytes) -> str:
    """'refused', 'decoded', or what is wrong."""
    start = time.process_time()
    try:
        decoded = decode(data, None, LIMITS, allow_prefix=True)
    except PayloadError as error:
        found = "more than a line" if "\n" in str(error) else "refused"
    except Exception as error:
        found = type(error).__name__
    else:
        tensors = [part for site in decoded.factors.values() for part in (site.p, site.lam, site.q)]
        finite = all(np.isfinite(tensor).all() for tensor in (*tensors, *decoded.dense.values()))
        found = "decoded" if finite else "not finite"
    return found if time.process_time() - start <= SLOW else f"{found}, slow"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="payloads")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after as many, whatever the count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coder", choices=("constriction", "numpy"), default="constriction")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fuzz_payload.json")
    arguments = parser.parse_args()
    native.AVAILABLE = native.AVAILABLE and arguments.coder == "constriction"
    coder = "constriction" if native.AVAILABLE else "numpy"

    rng, originals, start = random.Random(arguments.seed), seeds(), time.perf_counter()
    counts: Counter[tuple[str, str, str]] = Counter()
    wrong: list[dict[str, str]] = []
    while counts.total() < arguments.count and time.perf_counter() - start < arguments.seconds:
        parts, change = rng.choice(originals), rng.choice(list(CHANGES))
        data = CHANGES[change](parts, rng)
        found = outcome(data)
        counts[f"format {parts.format}", change, found] += 1
        if found not in ("refused", "decoded") and len(wrong) < 20:
            wrong.append({"change": change, "outcome": found, "payload": data.hex()})
    seconds = time.perf_counter() - start

    outcomes = sorted({found for *_, found in counts}, key=("refused", "decoded").__contains__, reverse=True)
    print(f"{'':40s}" + "".join(f"{found:>16s}" for found in outcomes))
    for kind, change in sorted({key[:2] for key in counts}):
        print(f"{kind + ', ' + change:40s}" + "".join(f"{counts[kind, change, found]:16d}" for found in outcomes))
    print(f"{counts.total()} payloads in {seconds:.1f} s, {counts.total() / seconds:.0f} per second, lanes by {coder}")
    result = {
        "count": counts.total(),
        "seconds": round(seconds, 1),
        "seed": arguments.seed,
        "coder": coder,
        "outcomes": [[*key, number] for key, number in sorted(counts.items())],
        "wrong": wrong,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if set(outcomes) - {"refused", "decoded"} else 0


if __name__ == "__main__":
    sys.exit(main())
