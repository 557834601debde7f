"""What device and server must share: hashes over all of it, and one line for each difference."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from airtune.errors import ModelError, TransportError
from airtune.methods.pae_mobillm.identity import Identity, salted
from airtune.transport import Message

IDENTITY = Identity("a" * 64, "b" * 64, "c" * 64, width=8, layers=(0, 2), bits=(8, 16), outputs=4)
IDENTITY = replace(IDENTITY, shaping=(("secret", "e" * 64), ("epsilon", "f" * 64)))


def test_the_key_is_the_hash_of_canonical_json():
    text = (
        f'{{"backbone":"{"a" * 64}","bits":[8,16],"layers":[0,2],"outputs":4,'
        f'"shaping":{{"epsilon":"{"f" * 64}","secret":"{"e" * 64}"}},"space":"logit",'
        f'"template":"{"c" * 64}","tokenizer":"{"b" * 64}","width":8}}'
    )
    assert IDENTITY.key == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone", "d" * 64),
        ("tokenizer", "d" * 64),
        ("template", "d" * 64),
        ("width", 9),
        ("layers", (0, 3)),
        ("bits", (8, 32)),
        ("outputs", 5),
        ("space", "probability"),
    ],
)
def test_each_part_changes_the_key_and_is_refused_with_both_values(name, value):
    other = replace(IDENTITY, **{name: value})
    assert other.key != IDENTITY.key
    with pytest.raises(ModelError, match=f"device's {name} is ") as refusal:
        IDENTITY.check(other)
    for found in (value, getattr(IDENTITY, name)):
        assert (found[:12] if isinstance(found, str) else str(found)) in str(refusal.value)


@pytest.mark.parametrize(
    ("shaping", "named"),
    [
        ((("secret", "1" * 64), ("epsilon", "2" * 64)), "secret is 111111111111, the server's eeeeeeeeeeee"),
        ((("secret", "e" * 64), ("epsilon", "2" * 64)), "epsilon is 222222222222, the server's ffffffffffff"),
        ((("secret", "e" * 64),), "epsilon is none, the server's ffffffffffff"),
        ((*IDENTITY.shaping, ("delta", "3" * 64)), "delta is 333333333333, the server's none"),
    ],
)
def test_what_shapes_samples_changes_the_key_and_is_refused_by_name(shaping, named):
    other = replace(IDENTITY, shaping=shaping)
    assert other.key != IDENTITY.key
    with pytest.raises(ModelError, match=f"the device's {named}"):
        IDENTITY.check(other)


def test_a_salted_hash_by_hand():
    salt = hashlib.pbkdf2_hmac("sha256", b"a word", b"pae_mobillm 7", 100_000)
    hashes = [hashlib.sha256(salt + text).hexdigest() for text in (b"secret=", b"target_scale=4.0", b"epsilon=0.0")]
    found = salted("a word", 7, {"target_scale": 4, "epsilon": 0.0})
    assert found == tuple(zip(("secret", "target_scale", "epsilon"), hashes, strict=True))
    for other in (salted("another", 7, {"target_scale": 4}), salted("a word", 8, {"target_scale": 4})):
        assert not set(hashes) & set(dict(other).values())


def test_an_equal_identity_is_accepted():
    same = replace(IDENTITY)
    IDENTITY.check(same)  # raises where they differ
    assert (same, same.key) == (IDENTITY, IDENTITY.key)


def test_it_crosses_a_message_unchanged():
    sent = Message("open", "one", {"identity": IDENTITY.as_header()})
    came = Message.parse(sent.frame()).header["identity"]
    assert Identity.of_header(came) == IDENTITY
    assert json.loads(json.dumps(IDENTITY.as_header())) == IDENTITY.as_header()


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": (), "bits": ()},
        {"layers": (2, 0)},
        {"layers": (1, 1)},
        {"layers": (-1, 2)},
        {"bits": (8,)},
        {"bits": (8, 12)},
        {"width": 0},
        {"outputs": 0},
        {"space": "angle"},
    ],
)
def test_what_is_no_way_to_send_is_refused(changes):
    with pytest.raises(TransportError, match="no way to send"):
        replace(IDENTITY, **changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone", None),
        ("width", 8.0),
        ("width", True),
        ("outputs", "4"),
        ("layers", 3),
        ("layers", [0, "2"]),
        ("bits", [8, True]),
        ("space", ["logit"]),
        ("shaping", []),
        ("shaping", {"epsilon": 1.0}),
    ],
)
def test_a_header_of_other_kinds_is_refused(name, value):
    with pytest.raises(TransportError, match="identity is"):
        Identity.of_header({**IDENTITY.as_header(), name: value})


def test_a_header_without_a_part_is_refused():
    for name in IDENTITY.as_header():
        with pytest.raises(TransportError):
            Identity.of_header({key: value for key, value in IDENTITY.as_header().items() if key != name})
