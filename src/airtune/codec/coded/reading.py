"""Format 2 -> adapter. Knows the order of the checks; not bytes or codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airtune.codec.coded.bodies import unpack_bodies
from airtune.codec.coded.framing import PACKING, Frame, read_frame
from airtune.codec.coded.values import Coded
from airtune.codec.contents import Binding, Contents, Limits, decompress_contents
from airtune.codec.payload import Data, Decoded
from airtune.errors import PayloadError


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A checked payload in codes: its frame, what it is about, and the directions and tensors that arrived."""

    frame: Frame
    contents: Contents
    coded: Coded


def open_coded(
    data: Data, binding: Binding | None, limits: Limits, held: Mapping[bytes, bytes], *, allow_prefix: bool
) -> Opened:
    """Check a payload of format 2 and read its codes; arguments and errors as `codec.decode`."""
    frame = read_frame(data, limits, held, allow_prefix=allow_prefix)
    contents = decompress_contents(frame.static, limits, PACKING)
    if binding is not None:
        binding.check(contents.binding)
    if contents.dense and frame.complete and not frame.chunks:
        raise PayloadError("the payload lists dense tensors and has no chunk for them; get the payload again")
    dense, bodies = None, frame.chunks
    if contents.dense and frame.chunks:
        dense, bodies = frame.chunks[0], frame.chunks[1:]
    coded = unpack_bodies(contents, dense, bodies, limits)
    return Opened(frame, contents, coded)


def decode_coded(
    data: Data, binding: Binding | None, limits: Limits, held: Mapping[bytes, bytes], *, allow_prefix: bool
) -> Decoded:
    """What a receiver has of a payload of format 2; arguments and errors as `codec.decode`."""
    opened = open_coded(data, binding, limits, held, allow_prefix=allow_prefix)
    return Decoded(
        factors={name: site.factors() for name, site in opened.coded.sites.items()},
        dense={name: tensor.tensor() for name, tensor in opened.coded.dense.items()},
        binding=opened.contents.binding,
        meta=opened.contents.meta,
        complete=opened.frame.complete,
    )
