"""What a store was opened for first, and is held to: the identity of samples and how their network is trained.

Knows headers, settings and one file; not caches or training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from airtune.errors import AirtuneError, ModelError, RunError, TransportError
from airtune.methods.pae_mobillm.config import SideConfig
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.server.training import TrainingPlan
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.records import write_text
from airtune.records.plain import json_text
from airtune.transport import DEFAULT_LIMITS, JSON
from airtune.workloads.settings import build

_FILE: Final = "identity.json"


def plan_of(side: SideConfig, seed: int) -> TrainingPlan:
    """How these settings have a network trained."""
    rates = side.learning_rate, side.weight_decay
    return TrainingPlan(seed, side.bottleneck, side.temperature, side.batch_size, *rates, side.loss)


@dataclass(frozen=True, slots=True)
class Binding:
    """Of one store. `side.epochs` is not part of it: how far to train is asked message by message."""

    identity: Identity
    side: SideConfig
    seed: int

    @classmethod
    def of_header(cls, header: Mapping[str, Any]) -> Binding:
        """Read what `as_header` wrote.

        Raises:
            TransportError: an identity or settings that are none, or a network too large to be sent in one message.
            ConfigError: a setting that is unknown or out of range.
        """
        identity, side, seed = header.get("identity"), header.get("side"), header.get("seed")
        if not (isinstance(identity, Mapping) and isinstance(side, Mapping) and type(seed) is int and seed >= 0):
            raise TransportError("an open message needs identity, side and seed (a number from 0 up); update airtune")
        found = cls(Identity.of_header(identity), build(SideConfig, side, "side."), seed)
        sizes = len(found.identity.layers), found.identity.width, found.side.bottleneck, found.identity.outputs
        if (size := 4 * SideNetwork.size(*sizes)) > DEFAULT_LIMITS.body_bytes:
            raise TransportError(
                f"the side network would have {size} bytes, at most {DEFAULT_LIMITS.body_bytes} can be sent; "
                "choose a smaller side.bottleneck or fewer layers"
            )
        return found

    def as_header(self) -> dict[str, JSON]:
        """Of a device's open message; the file in the store says the same."""
        return {"identity": self.identity.as_header(), "side": asdict(self.side), "seed": self.seed}

    @property
    def plan(self) -> TrainingPlan:
        """How the network is trained."""
        return plan_of(self.side, self.seed)

    def check(self, other: Binding) -> None:
        """Refuse another device's. Raises `ModelError` that names the first that differs, with both values."""
        self.identity.check(other.identity)
        for name, mine in asdict(self.plan).items():
            if (theirs := getattr(other.plan, name)) != mine:
                raise ModelError(
                    f"the device's {name} is {theirs}, the server's {mine}; start both with the same side settings "
                    "and seed, or give the server a new store"
                )

    def save(self, store: Path) -> None:
        """Write it into the store, whole or not at all."""
        write_text(store / _FILE, json_text(self.as_header(), indent=2) + "\n")

    @classmethod
    def load(cls, store: Path) -> Binding | None:
        """That of a store; None for a new one. Raises `RunError` for a file that is not what was written."""
        path = store / _FILE
        if not path.exists():
            return None
        try:
            header = json.loads(path.read_bytes())
            return cls.of_header(header if isinstance(header, dict) else {})
        except (OSError, ValueError, AirtuneError) as error:
            raise RunError(f"{path} is damaged ({error}); restore it or give the server a new store") from None
