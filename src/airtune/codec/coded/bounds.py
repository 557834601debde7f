"""What bodies may hold at most, told before memory is taken for it.

Knows counts and limits; not bytes or codes.
"""

from __future__ import annotations

from collections.abc import Sequence

from airtune.codec.coded.values import rows_of
from airtune.codec.contents import Contents, Limits, SiteShape
from airtune.errors import PayloadError

SIDE_NUMBERS, SIDE_NUMBERS_PER_BYTE = 2**20, 16
"""All bodies, of n bytes together, hold no more side numbers than the first and n times the second: these may take no
bytes, but each takes memory and time."""
CODES, CODES_PER_BYTE = 2**22, 256
"""The same of codes of vectors: a code may cost a millionth of a bit, but each takes memory and time."""
BODIES, BYTES_PER_BODY = 1024, 4096
"""All bodies are no more than the first and one for so many bytes: each takes time, however small it is."""


def check_declared(contents: Contents, directions: int, bodies: Sequence[int], dense: int, limits: Limits) -> None:
    """Refuse more bodies, directions or side numbers than a payload may have, before any is taken out.

    Args:
        directions: As many as all bodies declare.
        bodies: Bytes of every body of directions.
        dense: Bytes of the dense body, 0 for none.

    Raises:
        PayloadError: more than the sites hold, or than so many bytes may say.
    """
    size = sum(bodies) + dense
    if len(bodies) > BODIES + size // BYTES_PER_BODY:
        raise PayloadError(f"{size} bytes are {len(bodies)} chunks, which no adapter is; get the payload again")
    most = sum(min(site.cap, limits.max_rank) for site in contents.sites)
    if directions > most:
        found = f"the payload has {directions} directions, its sites hold {most} at ranks up to {limits.max_rank}"
        raise PayloadError(f"{found}; send fewer, or raise Limits.max_rank")
    rows = sum(rows_of(tensor.shape)[0] for tensor in contents.dense) if dense else 0
    numbers = len(contents.sites) * len(bodies) + 3 * directions + 2 * rows
    if numbers > SIDE_NUMBERS + SIDE_NUMBERS_PER_BYTE * size:
        raise PayloadError(f"{size} bytes declare {numbers} side numbers, which no adapter does; get the payload again")


def check_ranks(sites: Sequence[SiteShape], ranks: Sequence[int], limits: Limits) -> None:
    """Refuse a rank above a receiver's limit, or above min(out, in)."""
    if (most := max(ranks, default=0)) > limits.max_rank:
        line = f"the payload has rank {most}, the limit is {limits.max_rank}"
        raise PayloadError(f"{line}; send fewer directions, or raise Limits.max_rank")
    for site, rank in zip(sites, ranks, strict=True):
        if rank > site.cap:
            raise PayloadError(f"rank {rank} at {site.name} is above min(out, in) = {site.cap}; get the payload again")


def check_decoded(numbers: int, zeros: int, limits: Limits) -> None:
    """Refuse more decoded numbers than a receiver allows, or more of those that are not sent."""
    if 4 * numbers > limits.max_decoded_bytes:
        found = f"the payload decodes to {4 * numbers} bytes, the limit is {limits.max_decoded_bytes}"
        raise PayloadError(f"{found}; send fewer directions, or raise Limits.max_decoded_bytes")
    if 4 * zeros > limits.max_zero_bytes:
        found = f"the payload decodes to {4 * zeros} bytes of zeros that it does not send, the limit is"
        raise PayloadError(f"{found} {limits.max_zero_bytes}; leave them out, or raise Limits.max_zero_bytes")


def check_codes(codes: int, size: int) -> None:
    """Refuse more codes than bodies of so many bytes together may hold, of a sender too."""
    if codes > (most := CODES + CODES_PER_BYTE * size):
        found = f"{size} bytes declare {codes} codes, and may declare {most}"
        raise PayloadError(f"{found}; get the payload again, or send fewer directions")
