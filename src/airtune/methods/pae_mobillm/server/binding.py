"""What a store was opened for first, and is held to: the identity of samples and how their network is trained.

Knows headers and one file; not caches or training.
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


@dataclass(frozen=True, slots=True)
class Binding:
    """Of one store."""

    identity: Identity
    plan: TrainingPlan

    @classmethod
    def of_header(cls, header: Mapping[str, Any]) -> Binding:
        """Read `opening` of a device.

        Raises:
            TransportError: an identity or settings that are none, or a network too large to be sent in one message.
            ConfigError: a setting that is unknown or out of range.
        """
        identity, side, seed = header.get("identity"), header.get("side"), header.get("seed")
        if not (isinstance(identity, Mapping) and isinstance(side, Mapping) and type(seed) is int and seed >= 0):
            raise TransportError("an open message needs identity, side and seed (a number from 0 up); update airtune")
        found = cls(Identity.of_header(identity), training_plan(build(SideConfig, side, "side."), seed))
        size = 4 * SideNetwork.size(
            len(found.identity.layers), found.identity.width, found.plan.bottleneck, found.identity.outputs
        )
        if size > DEFAULT_LIMITS.body_bytes:
            raise TransportError(
                f"the side network would have {size} bytes, at most {DEFAULT_LIMITS.body_bytes} can be sent; "
                "choose a smaller side.bottleneck or fewer layers"
            )
        return found

    def check(self, other: Binding) -> None:
        """Refuse another device's. Raises `ModelError` that names the first that differs, with both values."""
        self.identity.check(other.identity)
        for name, mine in asdict(self.plan).items():
            if (theirs := getattr(other.plan, name)) != mine:
                raise ModelError(
                    f"the device's {name.replace('_', ' ')} is {theirs}, the server's {mine}; start both with the "
                    "same side settings and seed, or give the server a new store"
                )

    def save(self, store: Path) -> None:
        """Write it into the store, whole or not at all."""
        text = json_text({"identity": self.identity.as_header(), "plan": asdict(self.plan)}, indent=2)
        write_text(store / _FILE, text + "\n")

    @classmethod
    def load(cls, store: Path) -> Binding | None:
        """That of a store; None for a new one. Raises `RunError` for a file that is not what was written."""
        path = store / _FILE
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_bytes())
            return cls(Identity.of_header(values["identity"]), TrainingPlan(**values["plan"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AirtuneError) as error:
            raise RunError(f"{path} is damaged ({error}); restore it or give the server a new store") from None


def opening(identity: Identity, side: SideConfig, seed: int) -> dict[str, JSON]:
    """The header of a device's open message."""
    return {"identity": identity.as_header(), "side": asdict(side), "seed": seed}


def training_plan(side: SideConfig, seed: int) -> TrainingPlan:
    """From settings; how many epochs is not part of it, that is asked for message by message."""
    return TrainingPlan(
        seed, side.bottleneck, side.temperature, side.batch_size, side.learning_rate, side.weight_decay, side.loss
    )
