"""Payloads, and payloads of changes, altered at random with hashes and lengths right again: what does `decode` do?

Counts outcomes by class of change, and refusals by the function that refused. All that may come out is a PayloadError
or an adapter of finite numbers, within a second of processor time; where hashes were not recomputed, only the adapter
that was sent or a prefix of it. Anything else is kept in the JSON, as hex, and ends the run with status 1. The
receiver's limit on decoded size is 16 MiB, since zeros cost no bytes; how far the peak of memory rose is told.

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

from airtune.benches.decoder import CODERS, lanes_by
from airtune.codec import (
    Allocation,
    Binding,
    Decoded,
    Factors,
    HeldAdapter,
    Limits,
    Refiner,
    chunk_ends,
    decode,
    encode,
)
from airtune.codec.coded.draft import Draft
from airtune.codec.coded.quantiser import code_adapter
from airtune.errors import PayloadError

LIMITS = Limits(max_decoded_bytes=2**24)
CHANGES_HELD = 2**32 - 1
"""Where a payload has the length of its static part: it changes a held adapter."""
SLOW = 1.0
"""Seconds of processor time that one payload may take."""
EDGES = (0, 1, 2, 3, 20, 21, 64, 127, 128, 255, 256, 500, 501, 1024, 4096, 2**15, 2**16 - 1, 2**20, 2**31, 2**32 - 1)


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
    "chunks moved": lambda parts, rng: move_chunks(parts, rng).build(),
    HASHES_AS_SENT[1]: lambda parts, rng: cut(parts.build(), rng),
}


def outcome(data: bytes, sent: Decoded | None = None, since: HeldAdapter | None = None) -> tuple[str, str]:
    """'refused', 'decoded', or what is wrong; and the function that refused.

    Args:
        sent: What `data` has to be, or to be a prefix of, if it is decoded.
        since: What the receiver holds.
    """
    start, place = time.process_time(), ""
    try:
        decoded = decode(data, None, LIMITS, since=since, allow_prefix=True)
    except PayloadError as error:
        found, place = "more than a line" if "\n" in str(error) else "refused", _raised_in(error)
    except Exception as error:
        found, place = type(error).__name__, _raised_in(error)
    else:
        found = "decoded" if _finite(decoded) else "not finite"
        if sent is not None and not (_is_prefix if since is None else _is_between)(decoded, sent, since):
            found = "another adapter"
    return found if time.process_time() - start <= SLOW else f"{found}, slow", place


def _raised_in(error: BaseException) -> str:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return f"{Path(at.tb_frame.f_code.co_filename).stem}.{at.tb_frame.f_code.co_qualname}" if at else ""


def _finite(decoded: Decoded) -> bool:
    tensors = [part for site in decoded.factors.values() for part in (site.p, site.lam, site.q)]
    return all(bool(np.isfinite(tensor).all()) for tensor in (*tensors, *decoded.dense.values()))


def _is_prefix(decoded: Decoded, sent: Decoded, since: None) -> bool:
    if list(decoded.factors) != list(sent.factors) or decoded.binding != sent.binding:
        return False
    pairs = [(decoded.dense[name], sent.dense.get(name)) for name in decoded.dense]
    for name, site in decoded.factors.items():
        whole = sent.factors[name].prefix(site.rank)
        pairs += [(site.p, whole.p), (site.lam, whole.lam), (site.q, whole.q)]
    return all(other is not None and np.array_equal(one, other) for one, other in pairs)


def _is_between(decoded: Decoded, sent: Decoded, since: HeldAdapter) -> bool:
    """Whether every direction and tensor is the held one or the one sent."""
    for name, site in decoded.factors.items():
        ends = [_directions(since.sites[name].factors()), _directions(sent.factors[name])]
        for at, direction in enumerate(_directions(site)):
            if not any(at < len(end) and np.array_equal(direction, end[at]) for end in ends):
                return False
    before = {name: tensor.tensor() for name, tensor in since.dense.items()}
    tensors = ((value, before.get(name), sent.dense[name]) for name, value in decoded.dense.items())
    return all(
        np.array_equal(new, last) or (old is not None and np.array_equal(new, old)) for new, old, last in tensors
    )


def _directions(site: Factors) -> list[np.ndarray]:
    """Every direction's update in double precision, in which whole numbers and their scales multiply exactly."""
    p, lam, q = (np.asarray(part, np.float64) for part in (site.p, site.lam, site.q))
    return [lam[at] * np.outer(p[:, at], q[at]) for at in range(len(lam))]


@dataclass
class Found:
    """Outcomes of a run.

    Args:
        counts: By format, change and outcome.
        places: Refusals by format and the function that refused.
        wrong: The first payloads, as hex, with an outcome that may not be.
    """

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[dict[str, str]] = field(default_factory=list)


def fuzz(count: int, seed: int, *, seconds: float = float("inf")) -> Found:
    """Decode so many changed payloads, or as many as the seconds allow."""
    rng, start, found = random.Random(seed), time.perf_counter(), Found()
    originals = [(parts, decode(parts.build(), None, since=parts.since)) for parts in seeds()]
    while found.counts.total() < count and time.perf_counter() - start < seconds:
        (parts, sent), change = rng.choice(originals), rng.choice(list(CHANGES))
        data, kind = CHANGES[change](parts, rng), parts.kind
        result, place = outcome(data, sent if change in HASHES_AS_SENT else None, parts.since)
        found.counts[kind, change, result] += 1
        if place:
            found.places[kind, place] += 1
        if result not in ("refused", "decoded") and len(found.wrong) < 20:
            found.wrong.append({"change": change, "outcome": result, "place": place, "payload": data.hex()})
    return found


def peak_mib() -> float:
    """The most memory that this process has had, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="payloads")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after as many, whatever the count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coder", choices=CODERS, default=CODERS[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fuzz_payload.json")
    arguments = parser.parse_args()
    with lanes_by(arguments.coder):
        fuzz(200, arguments.seed)  # modules, tables and buffers are there before memory is read
        before, start = peak_mib(), time.perf_counter()
        found = fuzz(arguments.count, arguments.seed, seconds=arguments.seconds)
        seconds, rose = time.perf_counter() - start, peak_mib() - before

    counts, total = found.counts, found.counts.total()
    outcomes = sorted({result for *_, result in counts}, key=("refused", "decoded").__contains__, reverse=True)
    print(f"{'':40s}" + "".join(f"{result:>16s}" for result in outcomes))
    for kind, change in sorted({key[:2] for key in counts}):
        print(f"{kind + ', ' + change:40s}" + "".join(f"{counts[kind, change, result]:16d}" for result in outcomes))
    for (kind, place), number in found.places.most_common():
        print(f"{number:12d}  {kind}, {place}")
    print(f"{total} payloads in {seconds:.1f} s, {total / seconds:.0f} per second, peak memory +{rose:.0f} MiB")
    result = {
        "count": total,
        "seconds": round(seconds, 1),
        "seed": arguments.seed,
        "coder": arguments.coder,
        "memory_rose_mib": round(rose, 1),
        "outcomes": [[*key, number] for key, number in sorted(counts.items())],
        "refused_by": [[*key, number] for key, number in found.places.most_common()],
        "wrong": found.wrong,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if set(outcomes) - {"refused", "decoded"} else 0


if __name__ == "__main__":
    sys.exit(main())
