"""One quantised adapter, from which payloads of any ranks or any size are cut.

Knows sizes and orders; not how directions were rounded. A size is known before anything is encoded, as a bound that a
payload stays under by less than 1 %: coded lengths depend on the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from airtune.codec.coded.bodies import SIDE, Direction, pack_dense, pack_directions
from airtune.codec.coded.framing import PACKING, frame_bytes, write_frame
from airtune.codec.coded.order import by_level, by_value, chunk_of
from airtune.codec.coded.quantiser import Quantised
from airtune.codec.coded.streams import BODY_BYTES, LANE_BYTES, Run, lanes_of
from airtune.codec.contents import Binding, Contents, Meta, compress_contents
from airtune.codec.payload import Payload
from airtune.errors import PayloadError


class Draft:
    """Payloads of one quantised adapter.

    Args:
        quantised: Its codes, and what each direction is worth.
        named: Name the static part by its hash, for receivers that hold it, instead of sending it.
    """

    def __init__(self, quantised: Quantised, binding: Binding, meta: Meta, *, named: bool = False) -> None:
        coded = self.coded = quantised.coded
        self.contents = Contents.of(
            {name: site.shape for name, site in coded.sites.items()},
            {name: tensor.shape for name, tensor in coded.dense.items()},
            binding,
            meta,
        )
        for shape, site in zip(self.contents.sites, coded.sites.values(), strict=True):
            if site.rank > shape.cap:
                raise PayloadError(
                    f"{shape.name} has {site.rank} directions, above min(out, in) = {shape.cap}; re-mix them first"
                )
        self.static, self.named = compress_contents(self.contents, PACKING), named
        self._gains = [quantised.gains[name] for name in coded.sites]
        self._dense = pack_dense(coded) if coded.dense else None
        sites = list(coded.sites.values())
        self._known = [
            Run.of(np.concatenate([np.zeros(0, np.int64), *(getattr(site, name) for site in sites)])) for name in SIDE
        ]
        self._bits = [
            site.bits
            + sum(run.bits(getattr(site, name).astype(np.int64)) for run, name in zip(self._known, SIDE, strict=True))
            for site in sites
        ]
        self._codes = [(site.p_tables > 0) * site.shape[0] + (site.q_tables > 0) * site.shape[1] for site in sites]

    @property
    def direction_bits(self) -> list[npt.NDArray[np.float64]]:
        """What each direction costs, by site, shapes (r,)."""
        return self._bits

    def payload_bits(self, ranks: Sequence[int]) -> int:
        """A bound on the bits of `encode(ranks)`."""
        return self._bound(by_level(self._checked(ranks)))

    def encode(self, ranks: Sequence[int]) -> Payload:
        """The first directions of every site, as many as asked for, level by level.

        Raises:
            PayloadError: another number of sites, or more directions than a site has.
        """
        return self._encode(by_level(self._checked(ranks)))

    def ladder(self, budget_bits: int) -> Payload:
        """The most valuable directions that fit, in decreasing gain per bit.

        Raises:
            PayloadError: the budget does not hold the header and the dense tensors.
        """
        order = by_value(self._gains, self._bits)
        low, high = 0, len(order)
        if self._bound([]) > budget_bits:
            raise PayloadError(
                f"header and dense tensors take {self._bound([])} bits, the budget is {budget_bits}; raise it"
            )
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._bound(order[:middle]) <= budget_bits else (low, middle - 1)
        return self._encode(order[:low])

    def _checked(self, ranks: Sequence[int]) -> Sequence[int]:
        sites = self.coded.sites
        if len(ranks) != len(sites):
            raise PayloadError(f"{len(ranks)} ranks are given, the adapter has {len(sites)} sites; give one each")
        for rank, (name, site) in zip(ranks, sites.items(), strict=True):
            if not 0 <= rank <= site.rank:
                raise PayloadError(
                    f"rank {rank} is asked of {name}, which has {site.rank} directions; ask for 0 to that"
                )
        return ranks

    def _chunks(self, order: Sequence[Direction]) -> list[list[Direction]]:
        if not order:
            return []
        of = chunk_of(np.array([self._bits[site][at] for site, at in order]))
        cuts = [0, *(np.flatnonzero(np.diff(of)) + 1).tolist(), len(order)]
        return [sorted(order[start:stop]) for start, stop in pairwise(cuts)]

    def _encode(self, order: Sequence[Direction]) -> Payload:
        bodies = [pack_directions(self.coded, chunk, self._known) for chunk in self._chunks(order)]
        return Payload(
            write_frame(self.static, [*([self._dense] if self._dense is not None else []), *bodies], named=self.named)
        )

    def _bound(self, order: Sequence[Direction]) -> int:
        chunks, dense = self._chunks(order), self._dense
        size = frame_bytes(0 if self.named else len(self.static), len(chunks) + (dense is not None))
        size += len(dense) if dense is not None else 0
        for chunk in chunks:
            counts = np.bincount([site for site, _ in chunk], minlength=len(self._bits))
            bits = Run.of(counts).bits(counts).sum() + sum(self._bits[site][at] for site, at in chunk)
            lanes = 1 + len(lanes_of(sum(int(self._codes[site][at]) for site, at in chunk)))
            size += BODY_BYTES + lanes * LANE_BYTES + int(np.ceil(bits / 8))
        return 8 * size
