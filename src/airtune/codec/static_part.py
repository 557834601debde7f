"""The static part: `Contents` as JSON in zlib. Knows text and its compression; not what names and shapes are for."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from airtune.codec.contents import Binding, Contents, Limits, SiteShape, TensorShape, shown
from airtune.errors import PayloadError

Packing = Mapping[str, str | int]

_KEYS = {"base", "dense", "meta", "sites", "tokenizer"}


def compress_contents(contents: Contents, packing: Packing) -> bytes:
    """Write the static part: `contents_text` in zlib, whose bytes differ from one zlib to another."""
    return zlib.compress(contents_text(contents, packing), 9)


def contents_text(contents: Contents, packing: Packing) -> bytes:
    """Names, shapes and notes as compact JSON with sorted keys in UTF-8: the same bytes everywhere.

    Args:
        packing: How numbers are packed, in words of the format's own.
    """
    document = {
        **packing,
        "base": contents.binding.base_sha256,
        "dense": [[tensor.name, list(tensor.shape)] for tensor in contents.dense],
        "meta": dict(contents.meta),
        "sites": [[site.name, site.fan_out, site.fan_in] for site in contents.sites],
        "tokenizer": contents.binding.tokenizer_sha256,
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def decompress_contents(static: bytes, limits: Limits, packing: Packing) -> Contents:
    """Read the static part back, never inflating more than `limits.max_static_bytes`.

    Raises:
        PayloadError: not zlib, not strict JSON, unknown or repeated keys, packed in another way than `packing`, or
            anything `Contents` refuses.
    """
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(static, limits.max_static_bytes + 1)
    except zlib.error as error:
        raise PayloadError(f"the static part is not zlib ({error}); get the payload again") from None
    if len(text) > limits.max_static_bytes:
        line = f"the static part inflates beyond {limits.max_static_bytes} bytes"
        raise PayloadError(f"{line}; use fewer or shorter names, or raise Limits.max_static_bytes")
    if not inflater.eof or inflater.unused_data:
        raise PayloadError("the static part does not end where its zlib stream ends; get the payload again")
    try:
        document = json.loads(text.decode(), object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the static part is not strict JSON ({str(error)[:80]}); get the payload again") from None
    contents = _from_document(document, packing)
    contents.check(limits)
    return contents


def _from_document(document: Any, packing: Packing) -> Contents:
    keys = _KEYS | packing.keys()
    if not isinstance(document, dict) or set(document) != keys:
        raise PayloadError(f"the static part does not hold exactly the keys {sorted(keys)}; get the payload again")
    for key, expected in packing.items():
        if document[key] != expected or type(document[key]) is not type(expected):
            found = f"{key} {shown(document[key]):.40}"
            raise PayloadError(f"the payload is packed with {found}, this airtune reads {expected!r}; update airtune")
    sites, dense, meta = document["sites"], document["dense"], document["meta"]
    well_formed = (
        isinstance(meta, dict)
        and isinstance(sites, list)
        and all(isinstance(row, list) and len(row) == 3 for row in sites)
        and isinstance(dense, list)
        and all(isinstance(row, list) and len(row) == 2 and isinstance(row[1], list) for row in dense)
    )
    if not well_formed:
        raise PayloadError("the static part's tables are malformed; expected [name, out, in] and [name, [dims]] rows")
    return Contents(
        sites=tuple(SiteShape(*row) for row in sites),
        dense=tuple(TensorShape(name, tuple(shape)) for name, shape in dense),
        binding=Binding(document["base"], document["tokenizer"]),
        meta=meta,
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
