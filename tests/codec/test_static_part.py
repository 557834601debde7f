"""The static part: whatever JSON it holds, one line refuses it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable

import pytest
from coded_material import CodedForgery, small_adapter
from payload_material import BINDING, Forgery, fixed_adapter

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
