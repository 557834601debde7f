"""One quantised adapter, from which payloads of any ranks or any size are cut.

Knows codes and sizes; not how directions were rounded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from airtune.codec.coded.bodies import SIDE, Direction, pack_dense, pack_directions
from airtune.codec.coded.bounds import check_codes
from airtune.codec.coded.framing import frame_bytes, held_static, write_frame
from airtune.codec.coded.order import by_level, by_value, rates_of
from airtune.codec.coded.quantiser import Quantised
from airtune.codec.coded.sizes import CodedSizes
from airtune.codec.coded.streams import Run
from airtune.codec.contents import Binding, Contents, Meta
from airtune.codec.payload import Payload
from airtune.errors import PayloadError


class Draft:
    """Payloads of one quantised adapter.

    Args:
        quantised: Its codes, and what each direction is worth.
        named: Name the static part by its hash, for receivers that hold it, instead of sending it. Changes of a held
            adapter never send it, and leave its notes as they are.
    """

    def __init__(self, quantised: Quantised, binding: Binding, meta: Meta, *, named: bool = False) -> None:
        coded = self.coded = quantised.coded
        if (since := quantised.since) is None:
            self.contents = Contents.of(
                {name: site.shape for name, site in coded.sites.items()},
                {name: tensor.shape for name, tensor in coded.dense.items()},
                binding,
                meta,
            )
        else:
            since.contents.binding.check(binding)
            self.contents = since.contents
        for shape, site in zip(self.contents.sites, coded.sites.values(), strict=True):
            if site.rank > shape.cap:
                raise PayloadError(
                    f"{shape.name} has {site.rank} directions, above min(out, in) = {shape.cap}; re-mix them first"
                )
        self.held = held_static(self.contents)
        ((name, self.static),) = self.held.items()
        self._name, self._changes = name if named else b"", b"" if since is None else since.name
        self._gains = [quantised.gains[name] for name in coded.sites]
        self._dense = pack_dense(coded) if coded.dense else None
        sites = list(coded.sites.values())
        side = {name: [getattr(site, name).astype(np.int64) for site in sites] for name in SIDE}
        self._known = [Run.of(np.concatenate([np.zeros(0, np.int64), *values])) for values in side.values()]
        beside = [[run.bits(values) for values in side[name]] for run, name in zip(self._known, SIDE, strict=True)]
        ranks = tuple(site.rank for site in sites)
        bits, codes = np.zeros((2, len(sites), max(ranks, default=0)))
        for at, (site, *parts) in enumerate(zip(sites, *beside, strict=True)):
            bits[at, : site.rank] = site.bits + sum(parts)
            codes[at, : site.rank] = (site.p_tables > 0) * site.shape[0] + (site.q_tables > 0) * site.shape[1]
        header = frame_bytes(0 if named or since else len(self.static), 0)
        self.sizes = CodedSizes(bits, codes.astype(np.int64), ranks, header, len(self._dense or b""))

    def payload_bits(self, ranks: Sequence[int]) -> int:
        """A bound on the bits of `encode(ranks)`; see `CodedSizes`."""
        return self.sizes.payload_bits(ranks)

    def encode(self, ranks: Sequence[int]) -> Payload:
        """The first directions of every site, as many as asked for, level by level.

        Raises:
            PayloadError: another number of sites, or more directions than a site has.
        """
        self.sizes.check(ranks)
        return self._encode(by_level(ranks))

    def ladder(self, budget_bits: int, least_rate: float = 0.0) -> Payload:
        """The most valuable directions that fit, in decreasing gain per bit.

        Args:
            least_rate: Gain per bit from which a direction is worth sending.

        Raises:
            PayloadError: the budget does not hold the header and the dense tensors.
        """
        if (least := self.sizes.order_bits([])) > budget_bits:
            raise PayloadError(f"header and dense tensors take {least} bits, the budget is {budget_bits}; raise it")
        order = self.worth(least_rate)
        low, high = 0, len(order)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.sizes.order_bits(order[:middle]) <= budget_bits else (low, middle - 1)
        return self._encode(order[:low])

    def worth(self, least_rate: float) -> list[Direction]:
        """Directions that gain at least so much per bit, the most valuable first."""
        costs = [self.sizes.bits[site, : len(gains)] for site, gains in enumerate(self._gains)]
        rates = [rates_of(gains, cost) for gains, cost in zip(self._gains, costs, strict=True)]
        return [(site, at) for site, at in by_value(self._gains, costs) if rates[site][at] >= least_rate]

    def _encode(self, order: Sequence[Direction]) -> Payload:
        bodies = [] if self._dense is None else [self._dense]
        bodies += [pack_directions(self.coded, chunk, self._known) for chunk in self.sizes.chunks(order)]
        of_dense = sum(int((tensor.tables > 0).sum()) * tensor.codes.shape[1] for tensor in self.coded.dense.values())
        check_codes(of_dense + sum(int(self.sizes.codes[direction]) for direction in order), sum(map(len, bodies)))
        return Payload(write_frame(self.static, bodies, name=self._name, changes=self._changes))
