"""What device and server must share for cached activations to mean the same: hashes and the form they travel in.

Knows hashes and shapes; not models, links or training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airtune.errors import ModelError, TransportError

SPACES = ("logit", "probability")


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
    """

    backbone: str
    tokenizer: str
    template: str
    width: int
    layers: tuple[int, ...]
    bits: tuple[int, ...]
    outputs: int
    space: str = "logit"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(int(layer) for layer in self.layers))
        object.__setattr__(self, "bits", tuple(int(bits) for bits in self.bits))
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
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def as_header(self) -> dict[str, Any]:
        """Plain values for a message."""
        return {**asdict(self), "layers": list(self.layers), "bits": list(self.bits)}

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
        if not good:
            raise TransportError(
                f"identity is {values!r:.200}; expected hashes, sizes, layers and bits; update airtune"
            )
        return cls(**values)  # type: ignore[arg-type]

    def check(self, other: Identity) -> None:
        """Refuse another's identity. Raises `ModelError` that names the first that differs, with both values."""
        for name, mine in asdict(self).items():
            theirs = getattr(other, name)
            if theirs != mine:
                shown = [value[:12] if isinstance(value, str) else str(value) for value in (theirs, mine)]
                raise ModelError(
                    f"the device's {name} is {shown[0]}, the server's {shown[1]}; start both from the same model and "
                    "settings, or give the server a new store"
                )
