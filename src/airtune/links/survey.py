"""What links carry, as rows of a table.

Computes and does not print. It knows links; not payloads or who reads the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from airtune.errors import LinkError
from airtune.links.channel import Link
from airtune.links.deadline import budget_bits

PAPER_DEADLINE_S: Final = 1.0
"""T_max of the paper."""
PAPER_LINKS: Final = tuple(Link(100e6, snr_db) for snr_db in (-5.0, 0.0, 5.0, 10.0, 15.0))
"""The paper's links: 100 MHz, AWGN, its five SNRs."""


@dataclass(frozen=True, slots=True)
class LinkRow:
    """What one link carries; rates in bit/s."""

    snr_db: float
    """Mean SNR."""
    bandwidth_hz: float
    still_bps: float
    """Of a block at exactly the mean SNR."""
    ergodic_bps: float
    """Mean over blocks (Eq. 5)."""
    outage_1_bps: float
    """What 99 of 100 blocks carry."""
    outage_10_bps: float
    """What 9 of 10 blocks carry."""
    deadline_bits: int
    """The most bits that are in time in 9 of 10 blocks (Eq. 7); in every block, where nothing fades."""


def describe(links: Link | Iterable[Link] = PAPER_LINKS, deadline_s: float = PAPER_DEADLINE_S) -> tuple[LinkRow, ...]:
    """One row per link, in their order.

    Raises:
        LinkError: no links, or a deadline out of range.

    Example:
        >>> [round(row.still_bps / 1e6, 1) for row in describe()]
        [39.6, 100.0, 205.7, 345.9, 502.8]
    """
    links = (links,) if isinstance(links, Link) else tuple(links)
    if not links:
        raise LinkError("there are 0 links to describe; give at least one")
    return tuple(_row(link, deadline_s) for link in links)


def _row(link: Link, deadline_s: float) -> LinkRow:
    outage_10_bps = link.outage_rate_bps(0.1)
    return LinkRow(
        snr_db=link.snr_db,
        bandwidth_hz=link.bandwidth_hz,
        still_bps=link.rate_bps(link.mean_state),
        ergodic_bps=link.ergodic_rate_bps(),
        outage_1_bps=link.outage_rate_bps(0.01),
        outage_10_bps=outage_10_bps,
        deadline_bits=budget_bits(deadline_s, outage_10_bps),
    )
