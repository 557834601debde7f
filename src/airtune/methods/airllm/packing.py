"""Payloads of rank vectors, and the bandwidth at which choosing between them is worth it.

Knows the codec; not losses or policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from airtune.adapters import RankVector
from airtune.adapters.receiver import about
from airtune.codec import (
    Binding,
    Contents,
    Curvature,
    Decoded,
    Draft,
    Factors,
    Payload,
    Quantiser,
    decode,
    encode,
    estimated_sizes,
    fit_bits,
    held_static,
    layout_of,
    self_contained,
)
from airtune.links import Link
from airtune.methods.airllm.sizes import Blocks, Sizes, Weigh
from airtune.models import BaseModel


class Packer(Sizes):
    """Packs the prefixes of one trained adapter.

    Args:
        contents: Its sites and head, and the model it is for.
        weigh: What its payloads weigh.
        encoded: The payload of a rank vector.
    """

    def __init__(self, contents: Contents, weigh: Weigh, encoded: Callable[[RankVector], Payload]) -> None:
        super().__init__(contents, weigh)
        self._encoded = encoded
        self._held = held_static(contents)

    @property
    def binding(self) -> Binding:
        """The model it is for."""
        return self.contents.binding

    def encode(self, ranks: RankVector) -> Payload:
        """The payload of these ranks; no longer than `payload_bits`."""
        return self._encoded(ranks)

    def sent_bits(self, payload: Payload) -> int:
        """Bits on the air of a payload that is there; `air_bits` says at most how many it takes."""
        return payload.bits + self.overhead_bits

    def decode(self, payload: Payload) -> Decoded:
        """What a receiver of the payload holds."""
        return decode(payload.data, self.binding, held=self._held)

    def file(self, payload: Payload) -> bytes:
        """The payload to be kept, which opens without the base model: what the air was spared is in it."""
        return self_contained(payload.data, self._held)


def block_packer(base: BaseModel, factors: Mapping[str, Factors], dense: Mapping[str, np.ndarray], bits: int) -> Packer:
    """Format 1 at `bits` bits per number of a factor; sizes are exact."""
    binding, meta = about(base)
    layout = layout_of(factors, dense, binding, meta)
    return Packer(
        layout.contents,
        Blocks(layout, bits),
        lambda ranks: encode(factors, dense, ranks.allocation(bits), binding, meta),
    )


@dataclass(frozen=True)
class CodedAdapter:
    """A nested adapter rounded once, every prefix of it: its packer, what receivers hold, and the price of a bit."""

    packer: Packer
    factors: Mapping[str, Factors]
    dense: Mapping[str, np.ndarray]
    slope: float


def coded_packer(
    base: BaseModel,
    factors: Mapping[str, Factors],
    dense: Mapping[str, np.ndarray],
    bits: float,
    curvature: Mapping[str, Curvature],
) -> CodedAdapter:
    """Format 2 at a mean of `bits` bits per number of a factor; sizes are bounds that payloads stay under."""
    quantised, slope = fit_bits(Quantiser(factors, dense, curvature, canonical=False), bits)
    draft = Draft(quantised, *about(base), named=True)
    coded = quantised.coded
    return CodedAdapter(
        Packer(draft.contents, draft.sizes, lambda ranks: draft.encode(ranks.ranks)),
        {name: site.factors() for name, site in coded.sites.items()},
        {name: tensor.tensor() for name, tensor in coded.dense.items()},
        slope,
    )


def sizes_of(
    base: BaseModel, factors: Mapping[str, Factors], dense: Mapping[str, np.ndarray], bits: float, *, coded: bool
) -> Sizes:
    """What payloads will weigh before anything is trained: exact in format 1, about right in format 2."""
    if not coded:
        return block_packer(base, factors, dense, round(bits))
    shapes = {name: site.shape for name, site in factors.items()}
    contents = Contents.of(shapes, {name: value.shape for name, value in dense.items()}, *about(base))
    ranks = [site.rank for site in factors.values()]
    return Sizes(contents, estimated_sizes(contents, ranks, bits))


def fitting_bandwidth(
    full_bits: int, least_bits: int, slow: Link, fast: Link, deadline_s: float, late_share: float = 0.0
) -> tuple[float, str]:
    """A bandwidth at which a link is worth deciding about, and the reason for it in a sentence.

    The full adapter just fits at the best SNR, while the worst still holds twice the head and container. Under fading
    this is meant of the rate that all but `late_share` of blocks carry, or with `late_share` 0 of their mean rate.

    Args:
        full_bits: Of the full adapter on the air.
        least_bits: Of head and container on the air.
        slow, fast: The links at the worst and best SNR, at any bandwidth: rates are proportional to it.
    """
    best, worst = (_planned_rate_bps(link, late_share) / link.bandwidth_hz for link in (fast, slow))
    for_full, for_least = full_bits / (best * deadline_s), 2 * least_bits / (worst * deadline_s)
    needed = max(for_full, for_least)
    step = 10 ** (math.floor(math.log10(needed)) - 2)
    bandwidth_hz = float(math.ceil(needed / step) * step)
    if for_full >= for_least:
        why = f"the full adapter ({full_bits / 1e3:.1f} kbit on the air) just fits in {deadline_s:g} s"
        rest = f"at {slow.snr_db:g} dB it takes {full_bits / (worst * bandwidth_hz):.3g} s"
        return bandwidth_hz, f"{why} at {fast.snr_db:g} dB; {rest}{_in_which_blocks(fast, late_share)}"
    why = f"twice the head and container ({2 * least_bits / 1e3:.1f} kbit) just fit in {deadline_s:g} s"
    rest = f"the full adapter ({full_bits / 1e3:.1f} kbit) fits with room to spare at {fast.snr_db:g} dB"
    return bandwidth_hz, f"{why} at {slow.snr_db:g} dB; {rest}{_in_which_blocks(fast, late_share)}"


def _planned_rate_bps(link: Link, late_share: float) -> float:
    return link.outage_rate_bps(late_share) if link.fades and late_share > 0 else link.ergodic_rate_bps()


def _in_which_blocks(link: Link, late_share: float) -> str:
    if not link.fades:
        return ""
    return f" (in all but {100 * late_share:g} % of blocks)" if late_share > 0 else " (at the mean rate of the blocks)"
