"""Payloads, and payloads of changes, altered at random with hashes and lengths right again: what does a receiver do?

Counts outcomes by class of change, and refusals by the function that refused. All that may come out of `decode` is a
PayloadError or an adapter of finite numbers, within a second of processor time; where hashes were not recomputed, only
the adapter that was sent or a prefix of it. `inspect` has to refuse what `decode` refuses and to list the ranks that it
finds (of changes it lists what they bring), within a second of its own; `unpack`, tried on every 25th payload unless it
is of changes, has to refuse in one line or to write the folder, in as long. Anything else is kept in the JSON, as hex,
and ends the run with status 1. The receiver's limit on decoded size is 16 MiB, since zeros cost no bytes; how far the
peak of memory rose is told.

    python benchmarks/fuzz_payload.py --count 1000000 [--seconds 60] [--seed 0] [--coder numpy]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from airtune.adapters.unpacking import unpack
from airtune.benches.decoder import CODERS, lanes_by
from airtune.codec import Decoded, Factors, HeldAdapter, Limits, decode, inspect
from airtune.errors import AirtuneError
from altered_payloads import CHANGES, HASHES_AS_SENT, seeds

LIMITS = Limits(max_decoded_bytes=2**24)
SLOW = 1.0
"""Seconds of processor time that one payload may take."""


UNPACK_EVERY = 25
"""Payloads."""
FINE = ("refused", "decoded")


def outcome(
    data: bytes, sent: Decoded | None = None, since: HeldAdapter | None = None, folder: Path | None = None
) -> tuple[str, str]:
    """'refused', 'decoded', or what is wrong; and the function that refused.

    Args:
        sent: What `data` has to be, or to be a prefix of, if it is decoded.
        since: What the receiver holds.
        folder: Where to unpack it too.
    """
    decoded, found, place = _tried(lambda: decode(data, None, LIMITS, since=since, allow_prefix=True))
    if decoded is not None and not _finite(decoded):
        found = "not finite"
    elif decoded is not None and sent is not None:
        same = _is_prefix(decoded, sent, None) if since is None else _is_between(decoded, sent, since)
        found = found if same else "another adapter"
    if found not in FINE:
        return found, place
    listed, seen, _ = _tried(lambda: inspect(data, LIMITS, since=since, allow_prefix=True))
    if seen not in FINE or (listed is None) != (decoded is None):
        return f"inspect: {seen}", place
    if decoded is None or since is not None:
        return found, place
    if tuple(site.rank for site in listed.sites) != tuple(decoded.ranks):
        return "inspect: other ranks", place
    if folder is not None:
        (folder / "payload.atn").write_bytes(data)
        with TemporaryDirectory(dir=folder) as out:
            size = None if decoded.complete else len(data)
            _, written, at = _tried(lambda: unpack(folder / "payload.atn", Path(out), prefix_bytes=size))
        return (found, place) if written in FINE else (f"unpack: {written}", at)
    return found, place


def _tried(call: Callable[[], Any]) -> tuple[Any, str, str]:
    """What came out, that in a word, and the function that refused."""
    start, place, result = time.process_time(), "", None
    try:
        result, found = call(), "decoded"
    except AirtuneError as error:
        found, place = "more than a line" if "\n" in str(error) else "refused", _raised_in(error)
    except Exception as error:
        found, place = type(error).__name__, _raised_in(error)
    return result, found if time.process_time() - start <= SLOW else f"{found}, slow", place


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
    with TemporaryDirectory() as folder:
        while found.counts.total() < count and time.perf_counter() - start < seconds:
            (parts, sent), change = rng.choice(originals), rng.choice(list(CHANGES))
            data, kind = CHANGES[change](parts, rng), parts.kind
            known = sent if change in HASHES_AS_SENT else None
            unpacked = Path(folder) if found.counts.total() % UNPACK_EVERY == 0 else None
            result, place = outcome(data, known, parts.since, unpacked)
            found.counts[kind, change, result] += 1
            if place:
                found.places[kind, place] += 1
            if result not in FINE and len(found.wrong) < 20:
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
    outcomes = sorted({result for *_, result in counts}, key=FINE.__contains__, reverse=True)
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
    return 1 if set(outcomes) - set(FINE) else 0


if __name__ == "__main__":
    sys.exit(main())
