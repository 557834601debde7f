"""A second decoder of payloads that change a held adapter, after docs/payload.md: integers, no code of airtune."""

from __future__ import annotations

import json
import struct

from second_coded_decoder import digest, expect, read

Held = tuple[dict, list, list | None]
"""As `second_coded_decoder.read` returns it."""


def name(held: Held) -> bytes:
    static, found, rows = held
    text = json.dumps({**static, "meta": {}}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    parts = [text.encode(), *(struct.pack("<I", len(site)) for site in found)]
    for site in found:
        parts += [struct.pack("<h", j) for _, j, _ in site]
        parts += [struct.pack("<i", code) for p, _, _ in site for code in p]
        parts += [struct.pack("<i", code) for _, _, q in site for code in q]
    at = 0
    for _, shape in static["dense"] if rows is not None else []:
        mine = rows[at : at + (shape[0] if len(shape) > 1 else 1)]
        at += len(mine)
        parts += [struct.pack("<h", j) for _, j in mine]
        parts += [struct.pack("<i", code) for codes, _ in mine for code in codes]
    return digest(b"".join(parts))


def change(data: bytes, held: Held, prefix: bool = False) -> Held:
    """What is held after a payload of changes. Raises ValueError."""
    static, changes, changed_rows = read(data, prefix, None, (name(held), held[0]))
    found = []
    for before, by in zip(held[1], changes, strict=True):
        pairs = list(zip(before, by, strict=False))
        site = []
        for (p, j, q), (p_by, s, q_by) in pairs:
            site.append((moved(p, p_by, s), moved_scale(j, s, 8), moved(q, q_by, s)))
        found.append(site + before[len(pairs) :] + by[len(pairs) :])
    rows = held[2]
    if changed_rows is not None and rows is not None:
        both = zip(rows, changed_rows, strict=True)
        rows = [(moved(codes, by, s), moved_scale(j, s, 4)) for (codes, j), (by, s) in both]
    elif changed_rows is not None:
        rows = changed_rows
    return static, found, rows


def moved(codes: list[int], by: list[int], s: int) -> list[int]:
    found = [code * 2 ** max(s, 0) + change * 2 ** max(-s, 0) for code, change in zip(codes, by, strict=True)]
    expect(all(abs(code) <= 2**24 for code in found), "number")
    return found


def moved_scale(j: int, s: int, steps: int) -> int:
    expect(abs(s) <= 16 and j - steps * max(s, 0) >= -500, "shift")
    return j - steps * max(s, 0)
