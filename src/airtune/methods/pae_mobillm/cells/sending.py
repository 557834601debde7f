"""What a device sends of a part that was read, under the settings' layers, bits and defences; and what comes back.

For classification: every sample has one pivot. The identity's hashes are empty: no server asks for them here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from airtune.errors import ConfigError
from airtune.methods.pae_mobillm.building import centre_of, defence_of
from airtune.methods.pae_mobillm.cells.reading import Read
from airtune.methods.pae_mobillm.config import PAEConfig
from airtune.methods.pae_mobillm.device.differences import corrected, prediction_differences
from airtune.methods.pae_mobillm.device.layers import named_layers
from airtune.methods.pae_mobillm.device.pivots import Reading
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.privacy.defences import Defence
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import as_received
from airtune.models import BaseModel, weights_hash


@dataclass(frozen=True, slots=True, eq=False)
class Sending:
    """How samples are sent.

    Args:
        space, scale: Of the differences.
    """

    identity: Identity
    secrecy: Defence
    space: str
    scale: float

    @classmethod
    def chosen(cls, config: PAEConfig, train: Read, base: Callable[[], BaseModel]) -> Sending:
        """By the settings, for these samples.

        Args:
            base: Loads the backbone, which noise alone needs, to say what it is centred around.

        Raises:
            ConfigError: layers that the backbone does not have, or that are to be chosen greedily.
        """
        device, blocks, outputs = config.device, train.states.shape[1], train.logits.shape[1]
        if device.layers == "greedy":
            raise ConfigError("device.layers is greedy, which studies do not measure; choose all, uniform or a list")
        choice = named_layers(device.layers, blocks, device.layer_count, device.bits)
        some, centre, backbone = None, np.zeros(()), ""
        if config.privacy.epsilon:
            rows = slice(device.value_items)
            plain = prediction_differences(
                train.logits[rows], train.targets[rows], space=device.space, scale=device.target_scale
            )
            some = train.states[rows][:, [layer - 1 for layer in choice.layers]], plain
            loaded = base()
            centre, backbone = centre_of(loaded, choice.layers), weights_hash(loaded.model)
        secrecy = defence_of(config, outputs, choice.layers, some, centre, backbone)
        sizes = choice.layers, choice.bits, secrecy.outputs(outputs), device.space
        identity = Identity("0", "0", "0", train.states.shape[2], *sizes)
        return cls(identity, secrecy, device.space, device.target_scale)

    def sent(self, read: Read) -> tuple[np.ndarray, np.ndarray]:
        """Hidden states ``(n, K, d)`` and differences ``(n, C')`` as the server gets them."""
        plain = prediction_differences(read.logits, read.targets, space=self.space, scale=self.scale)
        ids = np.arange(len(plain), dtype=np.uint64)
        states, differences = self.secrecy.outgoing(ids, self._chosen_of(read), plain)
        return as_received(states, self.identity), differences

    def own(self, read: Read) -> np.ndarray:
        """Hidden states ``(n, K, d)`` as the device itself infers from them: rounded as on the wire, nothing hidden."""
        return as_received(self._chosen_of(read), self.identity)

    def answers(self, network: SideNetwork, read: Read) -> np.ndarray:
        """Scores ``(n, C)`` of backbone and side network together."""
        predicted = self.secrecy.incoming(network.differences(self.own(read)))
        return corrected(read.logits, predicted, space=self.space)

    def reads(self, read: Read) -> Callable[[np.ndarray], Reading]:
        """Rows of a part as a device would read them now."""

        def rows_of(rows: np.ndarray) -> Reading:
            states, ones = self._chosen_of(read)[rows], np.ones(len(rows), np.int64)
            return Reading(ones, states, read.logits[rows], read.targets[rows])

        return rows_of

    def _chosen_of(self, read: Read) -> np.ndarray:
        return read.states[:, [layer - 1 for layer in self.identity.layers]]
