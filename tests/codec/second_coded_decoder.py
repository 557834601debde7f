"""A second decoder of format 2, after docs/payload.md: slow, plain integers, no code of airtune."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections import Counter
from functools import cache
from hashlib import sha256
from itertools import accumulate
from math import fsum, prod

import numpy as np

RATIOS = [
    *(483, 1440801, 78665070, 581260615, 1580030168, 2605029347, 3344923893, 3790295335, 4034748382, 4162825044),
    *(4228379999, 4261543595, 4278222805, 4286586874, 4290775039, 4292870655, 4293918847, 4294443039),
    *(4294705159, 4294836225),
]
LARGEST = [4, 4, 5, 6, 8, 10, 14, 18, 25, 34, 48, 66, 93, 130, 184, 258, 365, 514, 727, 1026]
MANTISSAS = (0x3F800000, 0x3F9837F0, 0x3FB504F3, 0x3FD744FD)
PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]{1,255}")


def expect(fine: object, what: str) -> None:
    if not fine:
        raise ValueError(what)


def digest(data: bytes) -> bytes:
    return sha256(data).digest()[:16]


@cache
def table(j: int) -> tuple[list[int], list[int]]:
    """Codes' frequencies and starts, from -L to L."""
    ratio, largest = RATIOS[j - 1], LARGEST[j - 1]
    step, factor, weights = ratio * ratio >> 32, ratio, [2**32]
    for _ in range(largest):
        weights.append(weights[-1] * factor >> 32)
        factor = factor * step >> 32
    total, free = weights[0] + 2 * sum(weights[1:]), 2**24 - (2 * largest + 1)
    shares = [weights[abs(code)] * free // total for code in range(-largest, largest + 1)]
    shares[largest] += free - sum(shares)
    frequencies = [share + 1 for share in shares]
    return frequencies, [0, *accumulate(frequencies)][:-1]


def lane(words: tuple[int, ...], tables: list[int]) -> list[int]:
    """One lane's codes, as many as it has tables."""
    left, state, codes = list(words), 0, []
    expect(not left or left[-1] != 0, "zero last word")
    while left and state < 2**32:
        state = state * 2**32 + left.pop()
    for j in tables:
        frequencies, starts = table(j)
        u, at = state % 2**24, 0
        while not starts[at] <= u < starts[at] + frequencies[at]:
            at += 1
        codes.append(at - LARGEST[j - 1])
        state = frequencies[at] * (state // 2**24) + u - starts[at]
        if state < 2**32 and left:
            state = state * 2**32 + left.pop()
    expect(state == 0 and not left, "end of a lane")
    return codes


class Body:
    """Bytes of a body, read from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[int, ...]:
        start, self.at = self.at, self.at + struct.calcsize("<" + form)
        expect(self.at <= len(self.data), "body too short")
        return struct.unpack_from("<" + form, self.data, start)

    def runs(self, lengths: list[int]) -> list[list[int]]:
        heads = [self.take("hB") for _ in lengths]
        expect(all(j <= 20 for _, j in heads), "table of a run")
        (count,) = self.take("H")
        sent = [j for (_, j), length in zip(heads, lengths, strict=True) for _ in range(length) if j]
        codes = iter(lane(self.take(f"{count}I"), sent))
        both = zip(heads, lengths, strict=True)
        return [[centre + (next(codes) if j else 0) for _ in range(length)] for (centre, j), length in both]

    def vectors(self, lengths: list[int], tables: list[int]) -> list[list[int]]:
        expect(all(0 <= j <= 20 for j in tables), "table of a vector")
        each = [j for j, length in zip(tables, lengths, strict=True) if j for _ in range(length)]
        m, found = len(each), []
        lanes = max(min(m, 1), round(m / 8192))
        for i, count in enumerate(self.take(f"{lanes}H")):
            found += lane(self.take(f"{count}I"), each[i * m // lanes : (i + 1) * m // lanes])
        expect(self.at == len(self.data), "bytes after the lanes")
        codes = iter(found)
        return [[next(codes) if j else 0 for _ in range(k)] for j, k in zip(tables, lengths, strict=True)]


def scale(j: int) -> np.float32:
    expect(-500 <= j <= 500, "scale")
    (mantissa,) = struct.unpack("<f", struct.pack("<I", MANTISSAS[j % 4]))
    return np.float32(mantissa * 2.0 ** (j // 4))


def read_static(compressed: bytes) -> dict:
    inflater = zlib.decompressobj()
    text = inflater.decompress(compressed, 2**20).decode()
    expect(inflater.eof and not inflater.unused_data, "zlib")
    static = json.loads(text, object_pairs_hook=lambda pairs: dict(pairs) if len(dict(pairs)) == len(pairs) else None)
    keys = {"base", "tokenizer", "codec", "sites", "dense", "meta"}
    expect(set(static) == keys and static["codec"] == "coded", "keys or codec")
    for names in ([row[0] for row in static["sites"]], [row[0] for row in static["dense"]]):
        expect(len(set(names)) == len(names) and all(map(PRINTABLE.fullmatch, names)), "names")
    dims = [dim for _, *shape in static["sites"] for dim in shape] + [d for _, shape in static["dense"] for d in shape]
    expect(all(type(dim) is int and 1 <= dim <= 2**20 for dim in dims), "shape")
    return static


def read(data: bytes, prefix: bool, held: dict[bytes, bytes] | None, since: tuple | None = None) -> tuple:
    """Static part, (p, scale index, q) by site, dense rows (codes, index). since: name, static part of what is held."""
    expect(len(data) >= 12, "short")
    magic, version, c, s = struct.unpack("<4sHHI", data[:12])
    expect(magic == b"\x89atn" and version == 2, "magic or format")
    t = 16 if s in (0, 2**32 - 1) else s
    h = 28 + t + 20 * c
    expect(len(data) >= h and digest(data[: h - 16]) == data[h - 16 : h], "header")
    name = data[12 : 12 + t]
    expect(s or name in (held or {}), "static part is not here")
    expect(s != 2**32 - 1 if since is None else s == 2**32 - 1 and since[0] == name, "held adapter")
    chunks, at = [], h
    for row in range(12 + t, h - 16, 20):
        (length,) = struct.unpack_from("<I", data, row)
        if prefix and at == len(data) and length:
            break
        chunks.append(data[at : at + length])
        at += length
        expect(at <= len(data) and digest(chunks[-1]) == data[row + 4 : row + 20], "chunk")
    expect(at == len(data), "length")
    static = since[1] if since else read_static(name if s else held[name])
    expect(c or not static["dense"], "no dense chunk")

    shapes = [shape if len(shape) > 1 else [1, *shape] for _, shape in static["dense"]] if chunks else []
    bodies = chunks[1:] if shapes else chunks
    expect(all(len(body) >= 2 for body in bodies), "body too short")
    d = sum(struct.unpack_from("<H", body)[0] for body in bodies)
    expect(d <= sum(min(site[1:]) for site in static["sites"]), "directions")
    B = sum(map(len, chunks))
    expect(len(bodies) <= 1024 + B // 4096, "too many bodies")
    side = len(static["sites"]) * len(bodies) + 3 * d + 2 * sum(shape[0] for shape in shapes)
    expect(side <= 2**20 + 16 * B, "side numbers")

    parts = []  # of every body: itself, the sites of its directions, scales, lengths and tables of its vectors
    for body in map(Body, chunks):
        if shapes and not parts:
            lengths = [prod(shape[1:]) for shape in shapes for _ in range(shape[0])]
            parts = [(body, [], *body.runs([len(lengths)] * 2), lengths)]
            continue
        (d,) = body.take("H")
        counts, scales, *tables = body.runs([len(static["sites"]), d, d, d])
        expect(all(count >= 0 for count in counts) and sum(counts) == d, "counts")
        owners = [site for site, count in enumerate(counts) for _ in range(count)]
        lengths = [dim for site in owners for dim in static["sites"][site][1:]]
        parts.append((body, owners, scales, [j for pair in zip(*tables, strict=True) for j in pair], lengths))
    ranks = Counter(site for _, owners, *_ in parts for site in owners)
    expect(all(ranks[i] <= min(site[1:]) for i, site in enumerate(static["sites"])), "rank")
    m = sum(n for *_, tables, lengths in parts for j, n in zip(tables, lengths, strict=True) if j)
    expect(m <= 2**22 + 256 * B, "bomb")

    rows, found = None, [[] for _ in static["sites"]]
    for body, owners, scales, tables, lengths in parts:
        vectors = body.vectors(lengths, tables)
        rows = list(zip(vectors, scales, strict=True)) if shapes and rows is None else rows
        for site, j, p, q in zip(owners, scales, vectors[::2], vectors[1::2], strict=False):
            found[site].append((p, j, q))
    return static, found, rows


def values(static: dict, found: list, rows: list | None) -> tuple[dict, dict, dict]:
    """Return (sites: name -> (P, lam, Q), dense: name -> tensor, static part)."""
    sites, dense, at = {}, {}, 0
    for (name, out, into), directions in zip(static["sites"], found, strict=True):
        p = np.array([p for p, _, _ in directions], np.float32).reshape(-1, out).T
        q = np.array([q for _, _, q in directions], np.float32).reshape(-1, into)
        sites[name] = p, np.array([scale(j) for _, j, _ in directions], np.float32), q
        sizes = [max(1, *map(abs, p)) * max(1, *map(abs, q)) * float(scale(j)) for p, j, q in directions]
        expect(fsum(sizes) <= 2.0**127, "update beyond float32")
    for name, shape in static["dense"] if rows is not None else []:
        count = shape[0] if len(shape) > 1 else 1
        with np.errstate(over="ignore"):
            numbers = [[np.float32(code) * scale(j) for code in codes] for codes, j in rows[at : at + count]]
        dense[name], at = np.array(numbers, np.float32).reshape(shape), at + count
        expect(np.isfinite(dense[name]).all(), "not finite")
    return sites, dense, static


def decode(data: bytes, prefix: bool = False, held: dict[bytes, bytes] | None = None) -> tuple[dict, dict, dict]:
    """What a payload of its own says, as `values`. Raises ValueError, or zlib.error."""
    return values(*read(data, prefix, held))
