"""A second decoder, written from docs/payload.md alone: it shares no code with airtune."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib

import numpy as np


class Malformed(Exception):
    """What this decoder refuses."""


def expect(fine: object, what: str) -> None:
    if not fine:
        raise Malformed(what)


def unique(pairs: list) -> dict:
    expect(len(dict(pairs)) == len(pairs), "repeated key")
    return dict(pairs)


def packed(m: int, b: int) -> int:
    return {32: 4 * m, 16: 2 * m, 8: 2 * -(-m // 64) + m, 4: 2 * -(-m // 64) + -(-m // 2)}[b]


def numbers(data: bytes, m: int, b: int) -> np.ndarray:
    """One packed row, number by number."""
    if b == 32:
        values = struct.unpack(f"<{m}f", data)
    elif b == 16:
        values = struct.unpack(f"<{m}e", data)
    else:
        blocks = -(-m // 64)
        scales = struct.unpack(f"<{blocks}e", data[: 2 * blocks])
        expect(all(scale >= 0 for scale in scales), "scale")
        if b == 8:
            codes = struct.unpack(f"<{m}b", data[2 * blocks :])
        else:
            halves = [half for byte in data[2 * blocks :] for half in (byte & 15, byte >> 4)]
            expect(not any(halves[m:]), "padding")
            codes = [half - 8 for half in halves[:m]]
        expect(all(code > -(2 ** (b - 1)) for code in codes), "code")
        values = [code * scales[i // 64] for i, code in enumerate(codes)]
    row = np.array(values, np.float32)
    expect(np.isfinite(row).all(), "not finite")
    return row


def decode(data: bytes, prefix: bool = False) -> tuple[dict, dict, dict]:
    """Return (sites: name -> (P, lam, Q), dense: name -> tensor, static part)."""
    expect(len(data) >= 16, "short")
    magic, version, n, s, c = struct.unpack("<4sHHII", data[:16])
    expect(magic == b"\x89atn" and version == 1, "magic or version")
    h = 48 + s + 3 * n + 36 * c
    expect(len(data) >= h, "short header")
    expect(hashlib.sha256(data[: h - 32]).digest() == data[h - 32 : h], "header hash")
    inflater = zlib.decompressobj()
    text = inflater.decompress(data[16 : 16 + s], 1 << 20)
    expect(inflater.eof and not inflater.unused_data, "zlib")
    static = json.loads(text.decode(), object_pairs_hook=unique)
    expect((static["codec"], static["block"]) == ("blockwise", 64), "codec")
    ranks = struct.unpack(f"<{n}H", data[16 + s : 16 + s + 2 * n])
    bits = data[16 + s + 2 * n : 16 + s + 3 * n]
    names = [name for name, _, _ in static["sites"]]
    expect(len(names) == n == len(set(names)) and set(bits) <= {4, 8, 16, 32}, "sites")
    sizes = [4 + packed(out, b) + packed(into, b) for (_, out, into), b in zip(static["sites"], bits, strict=True)]
    expect(all(r <= min(out, into) for r, (_, out, into) in zip(ranks, static["sites"], strict=True)), "rank")

    wide = 32 if all(b == 32 for b in bits) else 16 if max(bits) >= 16 else 8
    tensors = [(name, shape, int(np.prod(shape, dtype=object))) for name, shape in static["dense"]]
    plan = [("dense", sum(packed(count, wide) for *_, count in tensors))] if tensors else []
    held: list[int] = []
    for level in range(max(ranks, default=0)):
        held.append(level)
        body = sum(size for k in held for size, r in zip(sizes, ranks, strict=True) if r > k)
        if body >= 4096 or level == max(ranks) - 1:
            plan.append((held, body))
            held = []
    table = [struct.unpack_from("<I32s", data, 16 + s + 3 * n + 36 * i) for i in range(c)]
    expect([length for length, _ in table] == [4 + body for _, body in plan], "chunk table")

    at = h
    dense: dict[str, np.ndarray] = {}
    rows: list[list] = [[] for _ in sizes]
    for index, ((length, digest), (what, _)) in enumerate(zip(table, plan, strict=True)):
        if prefix and at == len(data):
            break
        chunk = data[at : at + length]
        at += length
        expect(len(chunk) == length and hashlib.sha256(chunk).digest() == digest, "chunk")
        expect(struct.unpack("<I", chunk[:4])[0] == index, "index")
        seek = 4
        if what == "dense":
            for name, shape, count in tensors:
                size = packed(count, wide)
                row = numbers(chunk[seek : seek + size], count, wide)
                dense[name] = row.reshape(shape)
                seek += size
            continue
        for level in what:
            for site, (size, r) in enumerate(zip(sizes, ranks, strict=True)):
                if r > level:
                    rows[site].append(chunk[seek : seek + size])
                    seek += size
    expect(at == len(data), "length")
    sites = {}
    for (name, out, into), b, directions in zip(static["sites"], bits, rows, strict=True):
        middle = 4 + packed(out, b)
        p = [numbers(d[4:middle], out, b) for d in directions]
        lam = [numbers(d[:4], 1, 32)[0] for d in directions]
        q = [numbers(d[middle:], into, b) for d in directions]
        shaped = np.array(p, np.float32).reshape(-1, out).T, np.array(q, np.float32).reshape(-1, into)
        sites[name] = shaped[0], np.array(lam, np.float32), shaped[1]
    return sites, dense, static
