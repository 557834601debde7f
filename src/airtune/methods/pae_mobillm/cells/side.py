"""The `side` cell: a side network trained on what was sent, by differences, as the server does.

Rate and epochs are the best on dev of three rates and three looks (`choosing`); its weights are kept for attacks.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from airtune.methods.pae_mobillm.building import open_uplink
from airtune.methods.pae_mobillm.cells.choosing import RATES, Look, best_on_dev, epochs_looked_at
from airtune.methods.pae_mobillm.cells.reading import base_of, open_reading
from airtune.methods.pae_mobillm.cells.sending import Sending
from airtune.methods.pae_mobillm.cells.ways import Way, known, mib_of, told
from airtune.methods.pae_mobillm.config import PAEConfig, config_from
from airtune.methods.pae_mobillm.server import binding
from airtune.methods.pae_mobillm.server.training import Training, TrainingPlan
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import Samples, body_bytes
from airtune.records import write_bytes
from airtune.records.cells import Done, Outcome

SIDE = "side.safetensors"
Settings = Mapping[str, Any]


def side_settings(settings: Settings) -> Settings:
    """What is sent and how it is trained on, beside the reading's cell."""
    return {name: settings[name] for name in ("seed", "device", "side", "privacy", "link")}


class Arrays:
    """Samples that are there from the start, as `Training` reads them."""

    def __init__(self, states: np.ndarray, differences: np.ndarray) -> None:
        self._states, self._differences = states, differences

    def ids(self) -> np.ndarray:
        return np.arange(len(self._states), dtype=np.uint64)

    def rows(self, ids: np.ndarray) -> Samples:
        at = ids.astype(int)
        return Samples(ids, np.ones(len(ids), np.int64), self._states[at], self._differences[at])


def compute_side(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values of `pae`, see `ways`; the file `SIDE`."""
    config, read = config_from(settings), open_reading(needs["reading"])
    sending = Sending.chosen(config, read["train"], lambda: base_of(settings))
    identity, source = sending.identity, Arrays(*sending.sent(read["train"]))
    plan = plan_of(config)

    def train(rate: float) -> Iterator[Look[SideNetwork]]:
        folder, seconds = work / "training", 0.0
        shutil.rmtree(folder, ignore_errors=True)  # of another rate, or of an interrupted try, whose looks are over
        training = Training(folder, identity, replace(plan, learning_rate=rate))
        for epochs in epochs_looked_at(config.side.epochs):
            begun = time.process_time()
            for _ in training.until(source, epochs):
                pass
            seconds += time.process_time() - begun
            yield Look(training.network, epochs, seconds)

    def hits(network: SideNetwork, part: str) -> np.ndarray:
        return sending.answers(network, read[part]).argmax(1) == read[part].targets

    rates = [share * plan.learning_rate for share in RATES]
    chosen = best_on_dev(rates, train, lambda network: float(hits(network, "dev").mean()))
    network, reading, samples = chosen.look.model, needs["reading"], len(read["train"].targets)
    write_bytes(work / SIDE, network.to_bytes())
    way = Way(
        of="pae",
        hits=hits(network, "test"),
        up=body_bytes(identity, samples, samples),
        down=side_bytes(config, len(identity.layers), identity.width, identity.outputs),
        flops=int(known(reading, "flops")),
        seconds=known(reading, "cpu_s") + chosen.look.seconds,
        mib=mib_of(needs, "reading"),
        chosen=chosen,
    )
    return told([way], open_uplink(config), files=(SIDE,))


def plan_of(config: PAEConfig) -> TrainingPlan:
    return binding.plan_of(config.side, config.seed)


def side_bytes(config: PAEConfig, layers: int, width: int, outputs: int) -> int:
    """Of a side network of these sizes as it is sent, float32."""
    return 4 * SideNetwork.size(layers, width, config.side.bottleneck, outputs)


def open_side(done: Done, config: PAEConfig, sending: Sending) -> SideNetwork:
    """The network that a finished cell has trained."""
    identity = sending.identity
    return SideNetwork.of_bytes(
        (done.work / SIDE).read_bytes(),
        layers=len(identity.layers),
        width=identity.width,
        outputs=identity.outputs,
        temperature=config.side.temperature,
    )
