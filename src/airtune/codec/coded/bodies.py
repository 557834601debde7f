"""Chunk bodies <-> coded directions and dense tensors. docs/payload.md specifies every byte.

All chunks of a payload are decoded together, lane beside lane. Knows sites and tensors; not hashes or files. Reading
trusts nothing: ranks, tables and scales are checked, and every size is held against its bound before memory is taken.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from airtune.codec.coded.bounds import check_codes, check_declared, check_decoded, check_ranks
from airtune.codec.coded.streams import Run, StreamReader, write_streams
from airtune.codec.coded.values import LARGEST_SCALE, SCALE_STEPS, Coded, CodedSite, CodedTensor, rows_of
from airtune.codec.contents import Contents, Limits, SiteShape, TensorShape
from airtune.codec.entropy import Codes, TableIndices, Words, decode_lanes
from airtune.errors import PayloadError

Direction = tuple[int, int]
"""Site and direction, both counted from 0."""

_DIRECTIONS = struct.Struct("<H")
_MOST = 2**16 - 1
SIDE = ("scales", "p_tables", "q_tables")
"""What the side stream says of every direction, after how many each site has."""


def pack_directions(coded: Coded, directions: Sequence[Direction], known: Sequence[Run | None] = ()) -> bytes:
    """The body of a chunk with these directions, which come in the order of the sites, each site's in their own order.

    Args:
        known: For each of `SIDE`, what its run may be coded under; see `write_streams`.
    """
    if len(directions) > _MOST:
        raise PayloadError(f"{len(directions)} directions are one chunk, which holds {_MOST}; leave out those of zeros")
    sites = list(coded.sites.values())
    chosen = [(sites[site], at) for site, at in directions]
    runs = [
        np.bincount([site for site, _ in directions], minlength=len(sites)),
        *(np.array([getattr(site, name)[at] for site, at in chosen], np.int64) for name in SIDE),
    ]
    vectors = [
        vector
        for site, at in chosen
        for vector in ((site.p[:, at], int(site.p_tables[at])), (site.q[at], int(site.q_tables[at])))
    ]
    return _DIRECTIONS.pack(len(directions)) + write_streams(runs, vectors, [None, *known])


def pack_dense(coded: Coded) -> bytes:
    """The body of the chunk with all dense tensors."""
    tensors = list(coded.dense.values())
    runs = [
        np.concatenate([tensor.scales for tensor in tensors]),
        np.concatenate([tensor.tables for tensor in tensors]),
    ]
    vectors = [(row, int(table)) for tensor in tensors for row, table in zip(tensor.codes, tensor.tables, strict=True)]
    return write_streams(runs, vectors)


def unpack_bodies(contents: Contents, dense: memoryview | None, bodies: Sequence[memoryview], limits: Limits) -> Coded:
    """What the chunks of a payload hold.

    Args:
        dense: Body of the dense chunk; None where there is none or it did not arrive.
        bodies: Those of the chunks of directions that arrived, in order.
        limits: Ranks and decoded numbers beyond them are refused before memory is taken for them.

    Raises:
        PayloadError: bytes that no encoder writes, or more numbers than allowed.
    """
    shapes = np.array([(site.fan_out, site.fan_in) for site in contents.sites], np.int64).reshape(-1, 2)
    declared = [_declared(body) for body in bodies]
    check_declared(contents, sum(declared), [len(body) for body in bodies], len(dense or b""), limits)
    tensors = [] if dense is None else [_DenseBody(dense, contents.dense)]
    groups = [_DirectionsBody(body, shapes, count) for body, count in zip(bodies, declared, strict=True)]
    all_bodies: list[_DenseBody | _DirectionsBody] = [*tensors, *groups]
    for body, side in zip(all_bodies, decode_lanes([body.streams.side for body in all_bodies]), strict=True):
        body.take_side(side)
    owners = np.concatenate([np.zeros(0, np.int64), *(group.sites for group in groups)])
    ranks = np.bincount(owners, minlength=len(shapes))
    check_ranks(contents.sites, ranks.tolist(), limits)
    vectors, zeros = sum(body.numbers for body in all_bodies), sum(body.zeros for body in all_bodies)
    check_decoded(vectors + sum(declared), zeros, limits)
    check_codes(vectors - zeros, sum(map(len, bodies)) + len(dense or b""))
    lanes = [body.lanes() for body in all_bodies]
    decoded = decode_lanes([lane for found in lanes for lane in found])
    of_dense = len(lanes[0]) if tensors else 0
    dense_tensors = tensors[0].tensors(decoded[:of_dense]) if tensors else {}
    del lanes, decoded[:of_dense]
    return Coded(_sites(contents.sites, groups, _emptied(decoded)), dense_tensors)


class _DirectionsBody:
    """A body of directions: first its side stream is taken, then its lanes.

    Args:
        shapes: (out, in) of every site, shape (sites, 2).
        directions: How many it declares.
    """

    def __init__(self, body: memoryview, shapes: npt.NDArray[np.int64], directions: int) -> None:
        self._directions = directions
        self._shapes = shapes
        self.streams = StreamReader(body[_DIRECTIONS.size :], [len(shapes), *[self._directions] * 3])

    def take_side(self, side: Codes) -> None:
        counts, self.scales, self.p_tables, self.q_tables = self.streams.runs(side)
        if counts.min(initial=0) < 0 or counts.sum() != self._directions:
            raise PayloadError("a body's counts of directions do not add up; get the payload again")
        _check_scales(self.scales)
        self.sites = np.repeat(np.arange(len(counts)), counts)

    @property
    def numbers(self) -> int:
        return int(self._shapes[self.sites].sum())

    @property
    def zeros(self) -> int:
        """Numbers in vectors that are not sent."""
        return int(self._shapes[self.sites][self.tables == 0].sum())

    @property
    def tables(self) -> npt.NDArray[np.int64]:
        """Of columns of P and rows of Q, shape (directions, 2)."""
        return np.stack([self.p_tables, self.q_tables], axis=1)

    def lanes(self) -> list[tuple[Words, TableIndices]]:
        return self.streams.lanes(self._shapes[self.sites].ravel(), self.tables.ravel())


class _DenseBody:
    """The body of the dense tensors."""

    def __init__(self, body: memoryview, shapes: Sequence[TensorShape]) -> None:
        self._shapes = shapes
        self._rows = [rows_of(tensor.shape) for tensor in shapes]
        self.streams = StreamReader(body, [sum(count for count, _ in self._rows)] * 2)
        self._lengths = np.repeat([length for _, length in self._rows], [count for count, _ in self._rows])

    def take_side(self, side: Codes) -> None:
        self._scales, self._tables = self.streams.runs(side)
        _check_scales(self._scales)

    @property
    def numbers(self) -> int:
        return sum(tensor.numbers for tensor in self._shapes)

    @property
    def zeros(self) -> int:
        """Numbers in rows that are not sent."""
        return int(self._lengths[self._tables == 0].sum())

    def lanes(self) -> list[tuple[Words, TableIndices]]:
        return self.streams.lanes(self._lengths, self._tables)

    def tensors(self, lanes: Sequence[Codes]) -> dict[str, CodedTensor]:
        """The tensors, from the decoded lanes."""
        codes = self.streams.codes(lanes)
        found, at, start = {}, 0, 0
        for tensor, (count, length) in zip(self._shapes, self._rows, strict=True):
            rows = slice(at, at + count)
            rows_codes = codes[start : start + tensor.numbers].reshape(count, length)
            scales, tables = self._scales[rows].astype(np.int16), self._tables[rows].astype(np.uint8)
            found[tensor.name] = CodedTensor(rows_codes, scales, tables, tensor.shape)
            at, start = at + count, start + tensor.numbers
        return found


def _emptied(lanes: list[Codes]) -> Codes:
    """All codes, lane after lane; each lane is let go once it is copied."""
    codes = np.empty(sum(map(len, lanes)), np.int16)
    end = len(codes)
    while lanes:
        lane = lanes.pop()
        codes[end - len(lane) : end] = lane
        end -= len(lane)
    return codes


def _sites(sites: Sequence[SiteShape], groups: Sequence[_DirectionsBody], codes: Codes) -> dict[str, CodedSite]:
    """Every site's directions, from all the bodies in which it has some.

    Args:
        codes: Of the vectors that are sent, in the order of the bodies; for the others no memory is touched.
    """
    none = np.zeros(0, np.int64)
    owners = np.concatenate([none, *(group.sites for group in groups)])
    tables = np.concatenate([none.reshape(0, 2), *(group.tables for group in groups)])
    shapes = np.array([(site.fan_out, site.fan_in) for site in sites], np.int64).reshape(-1, 2)
    lengths = np.where(tables > 0, shapes[owners], 0).ravel()
    starts = (np.cumsum(lengths) - lengths).reshape(-1, 2)
    scales = np.concatenate([none, *(group.scales for group in groups)])
    order = np.argsort(owners, kind="stable")
    cuts = np.cumsum(np.bincount(owners, minlength=len(sites)))[:-1] if sites else none
    each = (np.split(values[order], cuts) for values in (starts, tables, scales))
    return {site.name: _site(site, codes, *found) for site, *found in zip(sites, *each, strict=False)}


def _site(
    shape: SiteShape,
    codes: Codes,
    starts: npt.NDArray[np.int64],
    tables: npt.NDArray[np.int64],
    scales: npt.NDArray[np.int64],
) -> CodedSite:
    p, q = np.zeros((shape.fan_out, len(scales)), np.int16), np.zeros((len(scales), shape.fan_in), np.int16)
    for vectors, begin, sent in ((p.T, starts[:, 0], tables[:, 0]), (q, starts[:, 1], tables[:, 1])):
        (places,) = np.nonzero(sent)
        for at, start in zip(places.tolist(), begin[places].tolist(), strict=True):
            vectors[at] = codes[start : start + vectors.shape[1]]
    p_tables, q_tables = tables.astype(np.uint8).T
    return CodedSite(p, q, scales.astype(np.int16), p_tables, q_tables)


def _declared(body: memoryview) -> int:
    """How many directions a body declares."""
    if len(body) < _DIRECTIONS.size:
        raise PayloadError("a body ends inside its head; get the payload again")
    return int(_DIRECTIONS.unpack_from(body)[0])


def _check_scales(scales: npt.NDArray[np.int64]) -> None:
    if len(scales) and np.abs(scales).max() > LARGEST_SCALE:
        raise PayloadError(f"a body has a scale beyond 2^(+-{LARGEST_SCALE}/{SCALE_STEPS}); get the payload again")
