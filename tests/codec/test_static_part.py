"""The static part: whatever JSON it holds, one line refuses it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from coded_material import CodedForgery, small_adapter
from payload_material import BINDING, Forgery, fixed_adapter
from second_coded_decoder import decode as second_decode

from airtune.codec import decode, inspect
from airtune.errors import PayloadError

FORMATS = {
    "format 1": Forgery.of(fixed_adapter().encode().data),
    "format 2": CodedForgery.of(small_adapter().draft().encode(small_adapter().ranks).data),
}
HERE = "here"
PLACES: dict[str, Callable[[dict], dict]] = {
    "site's name": lambda d: {"sites": [[HERE, 3, 2]]},
    "site's dimension": lambda d: {"sites": [["s", HERE, 2]]},
    "site": lambda d: {"sites": [HERE]},
    "tensor's name": lambda d: {"dense": [[HERE, [2]]]},
    "tensor's dimension": lambda d: {"dense": [["d", [2, HERE]]]},
    "base": lambda d: {"base": HERE},
    "tokenizer": lambda d: {"tokenizer": HERE},
    "codec": lambda d: {"codec": HERE},
    "meta's value": lambda d: {"meta": {"k": HERE}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", FORMATS)
def test_lists_and_objects_of_any_depth_are_refused_in_one_line(kind: str, place: str):
    """At some depths JSON can be read and not be written again."""
    forgery = FORMATS[kind]
    text = json.dumps(forgery.document | PLACES[place](forgery.document))
    for depth in (1, 2, *range(800, 1001)):
        for start, end in (("[", "]"), ('{"":', "}")):
            nested = start * depth + "1" + end * depth
            forgery.static = zlib.compress(text.replace(f'"{HERE}"', nested).encode(), 1)
            for opening in (lambda data: decode(data, BINDING), inspect):
                with pytest.raises(PayloadError) as refusal:
                    opening(forgery.build())
                assert "\n" not in str(refusal.value)
                assert len(str(refusal.value)) < 300


SHOWN = "aé模😀 \u00a0\u00ad\u200b\u2027\u202f\u2065\u206a\ufeff\ue000\uffff\U000e0fff"
"""Characters that no terminal obeys: some unassigned in one version of Unicode and not in another."""
OBEYED = "\x00\n\x1b\x1f\x7f\x85\x9f\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ud800\udfff"


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("place", [lambda c: {"sites": [[c, 3, 2]]}, lambda c: {"meta": {c: c}}], ids=["name", "meta"])
def test_names_and_notes_hold_what_the_format_s_page_lists(kind: str, place: Callable[[str], dict]):
    forgery = FORMATS[kind]
    bare = {"sites": [["s", 3, 2]], "dense": [], "meta": {}}
    empty = {"chunks": []} | ({"ranks": [0], "bits": [8]} if kind == "format 1" else {})
    for character in SHOWN + OBEYED:
        data = replace(forgery, document=forgery.document | bare | place(character), static=None, **empty).build()
        if character in SHOWN:
            assert decode(data, BINDING).complete
            continue
        with pytest.raises(PayloadError, match="printable"):
            decode(data, BINDING)
        if kind == "format 2" and "sites" in place(character):
            with pytest.raises(ValueError, match="names"):
                second_decode(data)
