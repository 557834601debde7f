"""An adapter in the whole numbers a receiver holds it in: its name, and what a payload of changes makes of it.

Knows whole numbers and hashes; not how changes were chosen, nor how they were coded. Names follow from what is held
alone, so two receivers that hold the same numbers hold the same adapter, whichever payloads brought it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from airtune.codec.coded.framing import DIGEST, PACKING
from airtune.codec.coded.values import (
    LARGEST_SCALE,
    SCALE_STEPS,
    Coded,
    CodedSite,
    CodedTensor,
    Scales,
    dense_tensor,
    scale_values,
)
from airtune.codec.contents import Contents
from airtune.codec.factors import Factors
from airtune.codec.static_part import contents_text
from airtune.errors import PayloadError

LARGEST_SHIFT = 16
"""Octaves by which a change's step may differ from that of the numbers it changes."""
LARGEST_HELD = 2**24
"""Whole numbers up to this are exact in float32."""
_AT_ONCE = 2**20
"""Numbers that are moved to another step at once."""

LARGEST_UPDATE = 2.0**127
"""Sum over a site's directions of scale |p| |q|, with the largest numbers of p and q: half of what float32 holds, so
that an update is finite in whatever order it is added up."""
_SMALL_SCALE = 4 * (127 - 48 - 31)
"""No site is beyond `LARGEST_UPDATE` with scales up to this: numbers are at most 2^24, ranks 2^31."""

Whole = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class HeldSite:
    """One site's directions in whole numbers: P (out, r), Q (r, in), scale indices (r,)."""

    p: Whole
    q: Whole
    scales: Scales

    @property
    def rank(self) -> int:
        return len(self.scales)

    def factors(self) -> Factors:
        """What they stand for, float32: P and Q the whole numbers, lam the scales."""
        return Factors(self.p.astype(np.float32), scale_values(self.scales), self.q.astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class HeldTensor:
    """A dense tensor in whole numbers (rows, numbers of a row), scale indices (rows,)."""

    codes: Whole
    scales: Scales
    shape: tuple[int, ...]

    def tensor(self) -> npt.NDArray[np.float32]:
        """What it stands for."""
        return dense_tensor(self.codes, self.scales, self.shape)


@dataclass(frozen=True, eq=False)
class HeldAdapter:
    """What a receiver holds after a payload of format 2.

    Args:
        contents: Its sites, dense tensors and base model.
        sites: By name, every one of the contents', in their order.
        dense: By name; empty where their chunk did not arrive.
    """

    contents: Contents
    sites: Mapping[str, HeldSite]
    dense: Mapping[str, HeldTensor]

    @classmethod
    def of(cls, contents: Contents, coded: Coded) -> HeldAdapter:
        """What a payload of its own brings.

        Raises:
            PayloadError: an update is beyond `LARGEST_UPDATE`, or a dense number beyond float32.
        """
        sites = {name: HeldSite(site.p, site.q, site.scales) for name, site in coded.sites.items()}
        dense = {name: _new_tensor(tensor) for name, tensor in coded.dense.items()}
        _check_updates(sites)
        _check_dense(dense)
        return cls(contents, sites, dense)

    @cached_property
    def name(self) -> bytes:
        """The hash of all its numbers and of what they are about; docs/payload.md says of which bytes."""
        hashed = sha256()
        for part in self._parts():
            hashed.update(part)
        return hashed.digest()[:DIGEST]

    def numbers_after(self, coded: Coded) -> int:
        """Numbers it decodes to after a payload of changes."""
        sites = (
            max(self.sites[site.name].rank, coded.sites[site.name].rank) * (site.fan_out + site.fan_in + 1)
            for site in self.contents.sites
        )
        return sum(sites) + (sum(tensor.numbers for tensor in self.contents.dense) if self.dense or coded.dense else 0)

    def changed(self, coded: Coded) -> HeldAdapter:
        """This adapter after a payload of changes; this one stays as it is.

        Raises:
            PayloadError: a shift, scale or number beyond what is held exactly, an update beyond `LARGEST_UPDATE`, or a
                dense number beyond float32.
        """
        sites = {name: _changed_site(name, site, coded.sites[name]) for name, site in self.sites.items()}
        _check_updates(sites)
        dense = dict(self.dense)
        for name, tensor in coded.dense.items():
            dense[name] = _changed_tensor(name, self.dense[name], tensor) if name in dense else _new_tensor(tensor)
        _check_dense(dense)
        return HeldAdapter(self.contents, sites, dense)

    def _parts(self) -> Iterator[bytes]:
        yield contents_text(replace(self.contents, meta={}), PACKING)
        yield np.array([site.rank for site in self.sites.values()], "<u4").tobytes()
        for site in self.sites.values():
            yield site.scales.astype("<i2").tobytes()
            for vectors in (site.p.T, site.q):
                yield from (vector.astype("<i4").tobytes() for vector in vectors)
        for tensor in self.dense.values():
            yield tensor.scales.astype("<i2").tobytes()
            yield tensor.codes.astype("<i4").tobytes()


def _check_updates(sites: Mapping[str, HeldSite]) -> None:
    for name, site in sites.items():
        if site.scales.max(initial=0) <= _SMALL_SCALE:
            continue
        of_p, of_q = np.abs(site.p).max(axis=0).clip(1), np.abs(site.q).max(axis=1).clip(1)
        sizes = of_p.astype(np.float64) * of_q * scale_values(site.scales)
        if math.fsum(sizes.tolist()) > LARGEST_UPDATE:
            raise PayloadError(f"the update of {name} may be beyond float32; get the payload again")


def _check_dense(tensors: Mapping[str, HeldTensor]) -> None:
    for name, tensor in tensors.items():
        peaks = np.abs(tensor.codes).max(axis=1, initial=0).astype(np.float32)
        with np.errstate(over="ignore"):
            largest = peaks * scale_values(tensor.scales)
        if not np.isfinite(largest).all():
            raise PayloadError(f"{name} holds a number beyond float32; get the payload again")


def _new_tensor(tensor: CodedTensor) -> HeldTensor:
    return HeldTensor(tensor.codes, tensor.scales, tensor.shape)


def _changed_site(name: str, held: HeldSite, changes: CodedSite) -> HeldSite:
    """Changes of the first directions, new ones behind the held."""
    both = min(held.rank, changes.rank)
    shifts = changes.scales[:both]
    scales = shifted_scales(name, held.scales[:both], shifts, 2)
    p = _moved(name, held.p[:, :both], changes.p[:, :both], shifts[None, :])
    q = _moved(name, held.q[:both], changes.q[:both], shifts[:, None])
    return HeldSite(
        np.hstack([p, held.p[:, both:], changes.p[:, both:]]),
        np.vstack([q, held.q[both:], changes.q[both:]]),
        np.concatenate([scales, held.scales[both:], changes.scales[both:]]),
    )


def _changed_tensor(name: str, held: HeldTensor, changes: CodedTensor) -> HeldTensor:
    codes = _moved(name, held.codes, changes.codes, changes.scales[:, None])
    return HeldTensor(codes, shifted_scales(name, held.scales, changes.scales, 1), held.shape)


def shifted_scales(name: str, scales: Scales, shifts: npt.NDArray[np.integer], vectors: int) -> Scales:
    """Scales of numbers whose steps became finer by `shifts` octaves, in so many vectors that share a scale.

    Raises:
        PayloadError: a shift beyond `LARGEST_SHIFT`, or a scale below the least.
    """
    if len(shifts) and np.abs(shifts.astype(int)).max() > LARGEST_SHIFT:
        raise PayloadError(f"{name} changes by a shift beyond {LARGEST_SHIFT} octaves; get the payload again")
    found = scales.astype(int) - SCALE_STEPS * vectors * np.maximum(shifts.astype(int), 0)
    if len(found) and found.min() < -LARGEST_SCALE:
        raise PayloadError(f"{name} changes to a scale below 2^(-{LARGEST_SCALE}/{SCALE_STEPS}); send it whole")
    return found.astype(np.int16)


def _moved(name: str, held: Whole, changes: Whole, shifts: npt.NDArray[np.integer]) -> Whole:
    """held + changes 2^-shift, in units of the finer of the two steps; as narrow as they fit.

    Some rows at a time, so that no more memory is taken than twice what comes out.
    """
    finer = np.broadcast_to(np.maximum(shifts.astype(np.int64), 0), held.shape)
    coarser = np.broadcast_to(finer - shifts, held.shape)
    found, largest = np.empty(held.shape, np.int32), 0
    at_once = max(1, _AT_ONCE // max(1, held.shape[1]))
    for start in range(0, len(held), at_once):
        rows = slice(start, start + at_once)
        moved = (held[rows].astype(np.int64) << finer[rows]) + (changes[rows].astype(np.int64) << coarser[rows])
        largest = max(largest, int(np.abs(moved).max(initial=0)))
        if largest > LARGEST_HELD:
            raise PayloadError(f"{name} changes to a number beyond {LARGEST_HELD}; send it whole")
        found[rows] = moved
    return found.astype(np.int16) if largest <= np.iinfo(np.int16).max else found
