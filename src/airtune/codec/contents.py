"""What a payload is about, whatever ranks it carries: its base model, sites, dense tensors and meta.

Knows names and shapes; not how they are written (`static_part`). Writing and reading build the same `Contents`, so one
set of checks holds for both.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from airtune.errors import PayloadError

Meta = Mapping[str, str | int | float]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, line and paragraph separators, what turns the direction of text, and halves of surrogate pairs."""
_NAME_LENGTH, _DIM, _NDIM, _INT = 255, 2**31 - 1, 8, 2**63


@dataclass(frozen=True, slots=True)
class Limits:
    """The most a receiver is willing to handle; whatever says more is refused before memory is taken for it."""

    max_bytes: int = 2**30
    """The payload itself."""
    max_decoded_bytes: int = 2**30
    """All decoded tensors together, as float32: those of rank 64 everywhere up to models of 13 billion parameters."""
    max_zero_bytes: int = 2**28
    """Of these, what takes no bytes in a payload of format 2: vectors of nothing but zeros."""
    max_static_bytes: int = 2**20
    """The static part, before and after decompression."""
    max_sites: int = 4096
    """Sites, and dense tensors."""
    max_rank: int = 1024
    """Any site's rank."""
    max_dim: int = 2**20
    """Any dimension of a site or dense tensor."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What a payload is for: SHA-256 of the base model and of its tokenizer, 64 lower-case hex digits each.

    Where they are one, it is that of the model's name, and nobody's weights are known.
    """

    base_sha256: str
    tokenizer_sha256: str

    def __post_init__(self) -> None:
        for what, value in (("base model", self.base_sha256), ("tokenizer", self.tokenizer_sha256)):
            if not (isinstance(value, str) and _SHA256.fullmatch(value)):
                raise PayloadError(f"the {what} hash is {shown(value)}; give a SHA-256 as 64 lower-case hex digits")

    @property
    def by_name(self) -> bool:
        """Whether the base model is known by name alone."""
        return self.base_sha256 == self.tokenizer_sha256

    def check(self, other: Binding) -> None:
        """Refuse a payload bound to `other` on a receiver that has this base model and tokenizer."""
        if self.by_name != other.by_name:
            bound = "the payload" if other.by_name else "what is held"
            line = f"{bound} is bound to its base model's name alone, not to weights"
            raise PayloadError(f"{line}; leave the model out (--model), or pack that again with the model")
        pairs = (
            ("base model", other.base_sha256, self.base_sha256),
            ("tokenizer", other.tokenizer_sha256, self.tokenizer_sha256),
        )
        for what, found, expected in pairs:
            if found != expected:
                raise PayloadError(
                    f"the payload is for {what} {found[:12]}, this receiver has {expected[:12]}; "
                    f"send one made for this {what}"
                )


@dataclass(frozen=True, slots=True)
class SiteShape:
    """A site by name, and the shape (out, in) of its update."""

    name: str
    fan_out: int
    fan_in: int

    @property
    def cap(self) -> int:
        """The largest rank that means anything: min(out, in)."""
        return min(self.fan_out, self.fan_in)


@dataclass(frozen=True, slots=True)
class TensorShape:
    """A dense tensor by name, and its shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Contents:
    """The static part of a payload.

    Raises:
        PayloadError: names that repeat, are empty, longer than 255 characters or not printable; dimensions outside
            1..2^31 - 1; meta that is not text, a 64-bit integer or a finite float.
    """

    sites: tuple[SiteShape, ...]
    dense: tuple[TensorShape, ...]
    binding: Binding
    meta: Meta = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, entries in (("site", self.sites), ("dense tensor", self.dense)):
            counts = Counter(_checked_name(what, entry.name) for entry in entries)
            if len(counts) != len(entries):
                twice = counts.most_common(1)[0][0]
                raise PayloadError(f"{what} {twice!r} is listed twice; name every {what} once")
        for site in self.sites:
            _check_shape(site.name, (site.fan_out, site.fan_in))
        for tensor in self.dense:
            _check_shape(tensor.name, tensor.shape)
        for key, value in self.meta.items():
            _check_meta(_checked_name("meta key", key), value)

    @classmethod
    def of(
        cls,
        sites: Mapping[str, tuple[int, int]],
        dense: Mapping[str, tuple[int, ...]],
        binding: Binding,
        meta: Meta,
    ) -> Contents:
        """From shapes by name: (out, in) of every site, and the shape of every dense tensor."""
        site_shapes = tuple(SiteShape(name, *shape) for name, shape in sites.items())
        dense_shapes = tuple(TensorShape(name, tuple(shape)) for name, shape in dense.items())
        return cls(site_shapes, dense_shapes, binding, dict(meta))

    def check(self, limits: Limits) -> None:
        """Refuse more sites, tensors or larger dimensions than a receiver allows."""
        for what, count in (("sites", len(self.sites)), ("dense tensors", len(self.dense))):
            if count > limits.max_sites:
                raise PayloadError(
                    f"found {count} {what}, the limit is {limits.max_sites}; leave some out, or raise Limits.max_sites"
                )
        dims = [(site.name, max(site.fan_out, site.fan_in)) for site in self.sites]
        dims += [(tensor.name, max(tensor.shape, default=1)) for tensor in self.dense]
        for name, dim in dims:
            if dim > limits.max_dim:
                line = f"{name} has a dimension of {dim}, the limit is {limits.max_dim}"
                raise PayloadError(f"{line}; leave it out, or raise Limits.max_dim")


def shown(value: object) -> str:
    """What a line says of a value that was found: of lists and objects their first levels, for they may nest deep."""
    simple = value is None or isinstance(value, str | int | float)
    return f"{repr(value) if simple else reprlib.repr(value):.80}"


def _checked_name(what: str, name: object) -> str:
    if not (isinstance(name, str) and 1 <= len(name) <= _NAME_LENGTH and not _UNPRINTABLE.search(name)):
        raise PayloadError(f"a {what} is called {shown(name)}; use 1 to {_NAME_LENGTH} printable characters")
    return name


def _check_shape(name: str, shape: Sequence[object]) -> None:
    if len(shape) > _NDIM or any(type(dim) is not int or not 1 <= dim <= _DIM for dim in shape):
        found = ", ".join(map(shown, shape[: _NDIM + 1]))
        raise PayloadError(f"{name} has shape ({found:.80}); use at most {_NDIM} dimensions of 1 to {_DIM}")


def _check_meta(key: str, value: object) -> None:
    fine = (
        (isinstance(value, str) and not _UNPRINTABLE.search(value))
        or (type(value) is int and -_INT <= value < _INT)
        or (isinstance(value, float) and math.isfinite(value))
    )
    if not fine:
        raise PayloadError(f"meta {key!r} is {shown(value)}; use printable text, a 64-bit integer or a finite float")
