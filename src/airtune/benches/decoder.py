"""The decoder by either coder of lanes, and how much memory it takes, in a process that does nothing else.

    python -m airtune.benches.decoder FILE CODER    (prints bytes at the peak, bytes decoded)

Told is how far the process's peak of resident memory (VmHWM of /proc/self/status) rises above what was resident just
before, with the payload already read: NumPy's buffers, constriction's, Python's objects, and what allocators keep.
`getrusage` would tell more than the process had, since a child begins with its parent's peak; `tracemalloc` less, since
constriction's memory is not Python's. Linux only.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airtune.codec import decode
from airtune.codec.entropy import native

CODERS = ("constriction", "numpy") if native.AVAILABLE else ("numpy",)
"""Those that are here."""


@contextmanager
def lanes_by(coder: str) -> Iterator[None]:
    """Code lanes by one of `CODERS` inside the block."""
    there = native.AVAILABLE
    native.AVAILABLE = coder == "constriction"
    try:
        yield
    finally:
        native.AVAILABLE = there


def peak_over_decoded(file: Path, coder: str) -> float:
    """Peak memory of decoding a payload over the bytes it decodes to; nan where there is no /proc."""
    if not Path("/proc/self/status").is_file():
        return float("nan")
    command = [sys.executable, "-m", "airtune.benches.decoder", str(file), coder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, decoded = map(int, done.stdout.split())
    return peak / decoded


def _resident(what: str) -> int:
    """VmRSS, what is resident now, or VmHWM, its peak, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def _main(file: Path, coder: str) -> None:
    data = file.read_bytes()
    before = _resident("VmRSS")
    with lanes_by(coder):
        decoded = decode(data, None)
    peak = _resident("VmHWM") - before
    tensors = [part for site in decoded.factors.values() for part in (site.p, site.lam, site.q)]
    print(peak, sum(part.nbytes for part in (*tensors, *decoded.dense.values())))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
