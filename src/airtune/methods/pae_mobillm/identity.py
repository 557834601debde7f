"""What device and server must share for cached activations to mean the same: hashes and the form they travel in.

Knows hashes and shapes; not models, links or training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from airtune.errors import ModelError, TransportError

SPACES = ("logit", "probability")
SHAPED_BY: Final = (
    *("secret", "target_scale", "rotate_to", "epsilon"),
    *("delta", "clip_activations", "clip_differences"),
)
"""What `Identity.shaping` may name: settings that shape samples."""
SALT_ROUNDS: Final = 100_000
"""Of PBKDF2, so that guesses of a secret cost more than one hash each."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Of one device's backbone and of the way its samples are read and sent.

    Args:
        backbone: SHA-256 of the frozen weights, head included: predictions are its.
        tokenizer: SHA-256.
        template: SHA-256 of how an item becomes tokens and which of them are pivots.
        width: d.
        layers: Which hidden states are sent, ascending: 0 is the embeddings' output, i that of block i (from 1).
        bits: Of each of these per number: 8 (with a scale of 4 bytes per row), 16 or 32.
        outputs: Numbers of a difference, C.
        space: Where differences are taken: `logit` (centred) or `probability`.
        shaping: What else shapes what is sent, name and salted hash of each; see `salted`.
    """

    backbone: str
    tokenizer: str
    template: str
    width: int
    layers: tuple[int, ...]
    bits: tuple[int, ...]
    outputs: int
    space: str = "logit"
    shaping: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(int(layer) for layer in self.layers))
        object.__setattr__(self, "bits", tuple(int(bits) for bits in self.bits))
        object.__setattr__(self, "shaping", tuple(sorted(self.shaping)))
        sound = (
            len(self.layers) == len(self.bits) >= 1
            and list(self.layers) == sorted(set(self.layers))
            and self.layers[0] >= 0
            and set(self.bits) <= {8, 16, 32}
            and self.width >= 1
            and self.outputs >= 1
            and self.space in SPACES
        )
        if not sound:
            raise TransportError(
                f"layers {self.layers} at {self.bits} bits, width {self.width}, {self.outputs} outputs in space "
                f"{self.space!r} are no way to send; expected ascending layers, 8, 16 or 32 bits for each, sizes "
                f"from 1 up, and {' or '.join(SPACES)}"
            )

    @property
    def key(self) -> str:
        """SHA-256 over all of it: what cached rows are kept under."""
        return hashlib.sha256(json.dumps(self.as_header(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def as_header(self) -> dict[str, Any]:
        """Plain values for a message."""
        return {**asdict(self), "layers": list(self.layers), "bits": list(self.bits), "shaping": dict(self.shaping)}

    @classmethod
    def of_header(cls, header: Mapping[str, Any]) -> Identity:
        """Read what `as_header` wrote. Raises `TransportError` for anything else."""
        kinds = {"backbone": str, "tokenizer": str, "template": str, "width": int, "outputs": int, "space": str}
        lists = ("layers", "bits")
        values = {name: header.get(name) for name in (*kinds, *lists)}
        good = all(
            isinstance(values[name], kind) and not isinstance(values[name], bool) for name, kind in kinds.items()
        )
        for name in lists:
            found = values[name]
            good = good and isinstance(found, list) and all(type(one) is int for one in found)
        shaping = header.get("shaping")
        good = good and isinstance(shaping, Mapping) and all(isinstance(one, str) for one in shaping.values())
        if not good:
            raise TransportError(
                f"identity is {values!r:.200}; expected hashes, sizes, layers, bits and shaping; update airtune"
            )
        return cls(**values, shaping=tuple(shaping.items()))  # type: ignore[arg-type, union-attr]

    def check(self, other: Identity) -> None:
        """Refuse another's identity. Raises `ModelError` that names the first that differs, with both values."""
        # the secret first: where it differs, all salted hashes do
        named, others = (asdict(one) | {"secret": "none"} | dict(one.shaping) for one in (self, other))
        for name in dict.fromkeys([*named, *others]):
            mine, theirs = named.get(name, "none"), others.get(name, "none")
            if name != "shaping" and theirs != mine:
                shown = [value[:12] if isinstance(value, str) else str(value) for value in (theirs, mine)]
                raise ModelError(
                    f"the device's {name} is {shown[0]}, the server's {shown[1]}; start both from the same model and "
                    "settings, or give the server a new store"
                )


def salted(secret: str, seed: int, values: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
    """`Identity.shaping` for some settings and the secret itself.

    The salt is made of secret and seed, so that who does not know the secret cannot try out values.
    """
    salt = hashlib.pbkdf2_hmac("sha256", secret.encode(), f"pae_mobillm {seed}".encode(), SALT_ROUNDS)
    named = {"secret": "", **{name: repr(float(value)) for name, value in values.items()}}
    return tuple((name, hashlib.sha256(salt + f"{name}={value}".encode()).hexdigest()) for name, value in named.items())
