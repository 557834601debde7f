"""Format 2 on trained cores between bases that the receiver derives from its base model, at many prices of a bit.

A core is coded as an update of its own shape, under the curvature seen from within the bases. Knows curvature and the
codec; not losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from airtune.adapters.core_adapter import bases_of
from airtune.adapters.derived import core_name, lift_cores, within
from airtune.codec import Binding, Draft, Quantiser, decode
from airtune.codec.contents import Meta
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.bits.candidate import Candidate
from airtune.methods.airllm.bits.ours import OCTAVES, curvature_at
from airtune.models import BaseModel, Items


def cores(
    trained: Mapping[tuple[int, int], TrainedAdapter], base: BaseModel, calibration: Items, binding: Binding, meta: Meta
) -> Iterator[Candidate]:
    """The directions worth their bits at every price, from cores of every size k and rank r, by (k, r)."""
    for (size, rank), adapter in trained.items():
        bases = bases_of(base, size)
        names = {path: core_name(path, bases[path]) for path in adapter.factors}
        bends = curvature_at(adapter, base, calibration)
        quantiser = Quantiser(
            {names[path]: bases[path].core(update) for path, update in adapter.factors.items()},
            adapter.dense,
            {names[path]: within(bases[path], bend) for path, bend in bends.items()},
            canonical=True,
        )
        for octave in OCTAVES:
            slope = quantiser.usual_slope * 2.0**octave
            draft = Draft(quantiser.at(slope), binding, meta, named=True)
            payload = draft.ladder(2**62, slope)
            found = decode(payload.data, binding, held=draft.held)
            if any(found.ranks):
                name, factors = f"size {size}, rank {rank}, 2^{octave:g}", lift_cores(found.factors, bases)
                yield Candidate(name, payload.bits, factors, found.dense)
