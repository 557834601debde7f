"""Format 2 -> adapter. Knows the order of the checks; not bytes or codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airtune.codec.coded.bodies import unpack_bodies
from airtune.codec.coded.framing import PACKING, Frame, read_frame
from airtune.codec.coded.held import HeldAdapter
from airtune.codec.coded.values import Coded
from airtune.codec.contents import Binding, Limits
from airtune.codec.payload import Data, Decoded
from airtune.codec.static_part import decompress_contents
from airtune.errors import PayloadError


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A checked payload in codes.

    Args:
        frame: Its frame.
        coded: The directions and tensors that arrived, or the changes of them.
        held: What the receiver then holds.
    """

    frame: Frame
    coded: Coded
    held: HeldAdapter


def open_coded(
    data: Data,
    binding: Binding | None,
    limits: Limits,
    held: Mapping[bytes, bytes],
    since: HeldAdapter | None,
    *,
    allow_prefix: bool,
) -> Opened:
    """Check a payload of format 2 and read its codes; arguments and errors as `codec.decode`."""
    frame = read_frame(data, limits, held, allow_prefix=allow_prefix)
    changed = _changed_by(frame, since)
    contents = decompress_contents(frame.static, limits, PACKING) if changed is None else changed.contents
    if binding is not None:
        binding.check(contents.binding)
    if contents.dense and frame.complete and not frame.chunks:
        raise PayloadError("the payload lists dense tensors and has no chunk for them; get the payload again")
    dense, bodies = None, frame.chunks
    if contents.dense and frame.chunks:
        dense, bodies = frame.chunks[0], frame.chunks[1:]
    coded = unpack_bodies(contents, dense, bodies, limits)
    if changed is None:
        return Opened(frame, coded, HeldAdapter.of(contents, coded))
    if (size := 4 * changed.numbers_after(coded)) > limits.max_decoded_bytes:
        line = f"with the changes the adapter has {size} bytes, the limit is {limits.max_decoded_bytes}"
        raise PayloadError(f"{line}; send fewer directions, or raise Limits.max_decoded_bytes")
    return Opened(frame, coded, changed.changed(coded))


def decode_coded(
    data: Data,
    binding: Binding | None,
    limits: Limits,
    held: Mapping[bytes, bytes],
    since: HeldAdapter | None,
    *,
    allow_prefix: bool,
) -> Decoded:
    """What a receiver has of a payload of format 2; arguments and errors as `codec.decode`."""
    opened = open_coded(data, binding, limits, held, since, allow_prefix=allow_prefix)
    found = opened.held
    return Decoded(
        factors={name: site.factors() for name, site in found.sites.items()},
        dense={name: tensor.tensor() for name, tensor in found.dense.items()},
        binding=found.contents.binding,
        meta=found.contents.meta,
        complete=opened.frame.complete,
        held=found,
    )


def _changed_by(frame: Frame, since: HeldAdapter | None) -> HeldAdapter | None:
    """The held adapter that a payload changes, if it is one of changes."""
    if not frame.changes:
        return None
    if since is None or since.name != frame.changes:
        there = "none" if since is None else since.name.hex()
        line = f"the payload changes adapter {frame.changes.hex()}, this receiver holds {there}"
        raise PayloadError(f"{line}; bring it to that one first, or ask for the new adapter whole")
    return since
