"""What a PAE MobiLLM device needs beside plain inference: peak memory of fresh processes over the same batches.

One runs the backbone alone; another reads the pivots, takes differences and encodes every batch as it is sent (see
airtune.methods.pae_mobillm.peaks). The claim: at most 10 % above plain inference and the buffer of K x d numbers per
sample. All run in turn, so many times; the largest rise of each counts. Beside them a step of LoRA on the device and
the device's half of split learning.

    python benchmarks/pae_memory.py [--model minilm] [--batches 8] [--samples 32] [--tokens 64] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from airtune.methods.pae_mobillm.peaks import Shape, rises

SHARE = 1.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm")
    for name, value in (("batches", 8), ("samples", 32), ("tokens", 64), ("labels", 2), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pae_memory.json")
    given = parser.parse_args()
    shape = Shape(given.model, given.labels, given.batches, given.samples, given.tokens)
    found = rises(shape, repeats=given.repeats)
    most = {way: max(peak.rise_kib for peak in peaks) for way, peaks in found.items()}
    buffer = found["plain"][0].buffer_bytes
    allowed = SHARE * (most["plain"] + buffer / 1024)
    result = {
        **asdict(shape),
        "loaded_mib": round(max(peak.loaded_kib for peaks in found.values() for peak in peaks) / 1024, 1),
        "rise_mib": {way: [round(peak.rise_kib / 1024, 2) for peak in peaks] for way, peaks in found.items()},
        "buffer_mib": round(buffer / 2**20, 2),
        "allowed_mib": round(allowed / 1024, 2),
        "holds": most["reading"] <= allowed,
    }
    print(json.dumps(result, indent=1))
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
