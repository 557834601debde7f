"""Format 2 on an adapter of OPT-1.3B's shapes: time, memory, and bits beside uniform 4 bits and beside the bound.

Encoding is everything from float32 factors to bytes: canonical form, rounding, entropy coding, container; packing into
a budget also finds the price of a bit. The bound is the least that any code spends on factors of such a spectrum.
Airtime is the payload's at Shannon's rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from airtune.benches.bound import least_bits
from airtune.benches.decoder import CODERS, lanes_by, peak_over_decoded
from airtune.benches.equal_error import (
    BINDING,
    HEEDING,
    Adapter,
    Way,
    blockwise_way,
    format_2_at,
    price_taken,
    relative_error,
    uniform_ways,
)
from airtune.benches.large_adapter import SPECTRA, large_adapter
from airtune.benches.result import Measured, Ratio
from airtune.benches.timing import interleaved, median
from airtune.codec import Payload, Quantiser, decode, fit_budget
from airtune.links import Link
from airtune.records import Progress

MBIT, ENCODE_S, MEMORY = 14.0, 20.0, 2.0
DECODE_S: Mapping[str, float] = {"constriction": 1.0, "numpy": 8.0}
"""Seconds asked, by what codes the lanes."""
NUMBERS = 7_079_040
"""P, lam and Q at all of OPT-1.3B's projections at rank 8."""
PAPER_NUMBERS = 4_235_648
"""What AirLLM sends at r_max 8 as the paper counts it, float32."""
BANDWIDTH_HZ, SNRS_DB = 1e8, (-5.0, 0.0, 5.0, 10.0, 15.0)

Row = Mapping[str, float | str]


def bench(repeats: int, progress: Progress) -> Measured:
    """Bits at equal error for every measured spectrum; medians of times, and memory, for the first."""
    draw = np.random.default_rng(0)
    return measure({name: large_adapter(values, draw) for name, values in SPECTRA.items()}, repeats, progress)


def measure(adapters: Mapping[str, Adapter], repeats: int, progress: Progress) -> Measured:
    """The same for any adapters; the asked bits are for so many numbers as OPT-1.3B has."""
    first = next(iter(adapters.values()))
    numbers = sum(site.rank * (1 + sum(site.shape)) for site in first.values())
    budget = round(1e6 * MBIT * numbers / NUMBERS)
    rows = [_row("", Way("paper's count, float32", 32 * PAPER_NUMBERS, 0.0))]
    rows.append(_row("", Way("these shapes, float32", 32 * numbers, 0.0)))
    ratios = list[Ratio]()
    for name, factors in adapters.items():
        with progress.stage(f"Rounding, {name}", total=4) as stage:
            quantiser, bound = Quantiser(factors, {}, canonical=True), _bound(factors)
            for way in (*uniform_ways(factors), blockwise_way(factors)):
                rows.append(_row(name, way))
                for thrift, how in ((0.0, ""), (HEEDING, ", rounding heeds bits")):
                    ours = format_2_at(quantiser, factors, way.error, thrift=thrift)
                    rows.append(_row(name, ours, bound(ours.error)))
                    if way.name.startswith("uniform"):
                        line = f"Mbit at the error of {way.name}, {name}{how}"
                        ratios.append(Ratio(line, ours.bits / 1e6, MBIT, at_least=False))
                stage.advance(note=f"{ours.bits / 1e6:.1f} Mbit")
            payload, _ = fit_budget(quantiser, BINDING, {}, budget)
            error = relative_error(factors, decode(payload.data, BINDING).factors)
            rows.append(_row(name, Way("format 2 in the bits asked", payload.bits, error), bound(error)))
            stage.advance()
    return Measured(rows, ratios + _speed(first, budget, repeats, progress))


def _speed(factors: Adapter, budget: int, repeats: int, progress: Progress) -> list[Ratio]:
    """Seconds of encoding and decoding, and the decoder's memory, each against what was asked."""

    def encoded() -> Payload:
        quantiser = Quantiser(factors, {}, canonical=True)
        return price_taken(quantiser, quantiser.usual_slope)

    def packed() -> Payload:
        return fit_budget(Quantiser(factors, {}, canonical=True), BINDING, {}, budget)[0]

    payload = encoded()

    def decoded(coder: str) -> Callable[[], object]:
        def run() -> object:
            with lanes_by(coder):
                return decode(payload.data, BINDING)

        return run

    asked = {"encode": ENCODE_S, "encode into a budget": ENCODE_S}
    asked |= {f"decode by {coder}": DECODE_S[coder] for coder in CODERS}
    rivals: dict[str, Callable[[], object]] = {"encode": encoded, "encode into a budget": packed}
    rivals |= {f"decode by {coder}": decoded(coder) for coder in CODERS}
    with progress.stage("Timing"):
        times = interleaved(rivals, repeats)
    found = [Ratio(f"seconds to {name}", median(times[name]), most, at_least=False) for name, most in asked.items()]
    with progress.stage("Measuring memory"), TemporaryDirectory() as folder:
        file = Path(folder) / "payload.atn"
        file.write_bytes(payload.data)
        for coder in CODERS:
            line = f"peak memory over the decoded size, by {coder}"
            found.append(Ratio(line, peak_over_decoded(file, coder), MEMORY, at_least=False))
    return found


def _bound(factors: Adapter) -> Callable[[float], float]:
    """The bound in bits by relative error; the factors' directions hardly touch."""
    energies = [
        (np.linalg.norm(site.p, axis=0) * site.lam * np.linalg.norm(site.q, axis=1)) ** 2 for site in factors.values()
    ]
    lengths = [site.shape for site in factors.values() for _ in range(site.rank)]
    return lambda error: least_bits(np.concatenate(energies).astype(np.float64), np.array(lengths), error**2)


def _row(spectrum: str, way: Way, bound: float | None = None) -> Row:
    found: dict[str, float | str] = {"spectrum": spectrum, "sent as": way.name, "error": way.error}
    least, over = ("", "") if bound is None else (f"{bound / 1e6:.4g}", f"{way.bits / bound - 1:.1%}")
    found |= {"Mbit": way.bits / 1e6, "bound": least, "above": over}
    links = [Link(BANDWIDTH_HZ, snr) for snr in SNRS_DB]
    return found | {f"s, {link.snr_db:g} dB": link.airtime_s(round(way.bits), link.mean_state) for link in links}
