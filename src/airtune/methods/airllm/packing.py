"""Payloads of rank vectors, and the bandwidth at which choosing between them is worth it.

Knows the codec; not losses or policies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from airtune.adapters import RankVector
from airtune.codec import Binding, Decoded, Factors, Payload, decode, encode, layout_of
from airtune.links import Link
from airtune.methods.airllm.sizes import Blocks, Sizes
from airtune.models import BaseModel


class Packer(Sizes):
    """Packs the prefixes of one trained adapter.

    Args:
        base: The model the adapter is for.
        factors: P, lam, Q by site, all directions.
        dense: The trained head.
        bits: Bits per number of a factor.
    """

    def __init__(
        self, base: BaseModel, factors: Mapping[str, Factors], dense: Mapping[str, np.ndarray], bits: int
    ) -> None:
        self._factors, self._dense = factors, dense
        self.binding = Binding(base.sha256, base.tokenizer_sha256)
        self._meta: dict[str, str | int | float] = {
            "base_model": base.name,
            "kind": base.kind,
            "fan_in_fan_out": int(base.fan_in_fan_out),
        }
        layout = layout_of(factors, dense, self.binding, self._meta)
        super().__init__(layout.contents, Blocks(layout, bits))
        self.bits = bits

    def encode(self, ranks: RankVector) -> Payload:
        """The payload of these ranks; its length is `payload_bits` exactly."""
        return encode(self._factors, self._dense, ranks.allocation(self.bits), self.binding, self._meta)

    def decode(self, payload: Payload) -> Decoded:
        """What a receiver of the payload holds."""
        return decode(payload.data, self.binding)


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
