"""Format 2 on LoRA trained at each rank, at many prices of a bit.

Payloads are whole, but for the static part, which a receiver derives from its own base model and knows by its hash.
Knows curvature and the codec; not losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from airtune.adapters import Adapter
from airtune.adapters.curvature import measure_curvature
from airtune.codec import Binding, Curvature, Decoded, Draft, Quantiser, decode
from airtune.codec.contents import Meta
from airtune.methods.airllm.baselines.training import TrainedAdapter, head_kept
from airtune.methods.airllm.bits.candidate import Candidate
from airtune.models import BaseModel, Items

OCTAVES = tuple(half / 2 for half in range(-8, 17))
"""Prices of a bit over the usual one, as powers of 2."""


def ours(
    trained: Mapping[int, TrainedAdapter], base: BaseModel, calibration: Items, binding: Binding, meta: Meta
) -> Iterator[Candidate]:
    """The directions worth their bits at every price, from LoRA of every rank."""
    for rank, adapter in trained.items():
        quantiser = Quantiser(adapter.factors, adapter.dense, curvature_at(adapter, base, calibration), canonical=True)
        for octave, bits, found in sent(quantiser, binding, meta):
            yield Candidate(f"rank {rank}, 2^{octave:g}", bits, found.factors, found.dense)


def sent(quantiser: Quantiser, binding: Binding, meta: Meta) -> Iterator[tuple[float, int, Decoded]]:
    """At every price that leaves something: its octave, the payload's bits, and the payload decoded."""
    for octave in OCTAVES:
        slope = quantiser.usual_slope * 2.0**octave
        draft = Draft(quantiser.at(slope), binding, meta, named=True)
        payload = draft.ladder(2**62, slope)
        found = decode(payload.data, binding, held=draft.held)
        if any(found.ranks):
            yield octave, payload.bits, found


def curvature_at(adapter: TrainedAdapter, base: BaseModel, calibration: Items) -> dict[str, Curvature]:
    """How the loss bends where this adapter is."""
    with head_kept(base):
        attached = Adapter(base, max(adapter.ranks.ranks), generator=torch.Generator())
        try:
            attached.load(adapter.factors, adapter.dense)
            return measure_curvature(base, calibration)
        finally:
            attached.detach()
