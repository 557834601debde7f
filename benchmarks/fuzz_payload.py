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
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from airtune.benches.decoder import CODERS, lanes_by
from airtune.codec import Decoded, Factors, HeldAdapter, Limits, decode
from airtune.errors import PayloadError
from altered_payloads import CHANGES, HASHES_AS_SENT, seeds

LIMITS = Limits(max_decoded_bytes=2**24)
SLOW = 1.0
"""Seconds of processor time that one payload may take."""


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
