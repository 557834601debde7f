"""The `labels` and `probe` cells: what knows the labels, on the same hidden states, chosen on dev in the same way.

| of         | what is trained, on what                                            | uplink                            |
|------------|---------------------------------------------------------------------|-----------------------------------|
| `labels`   | the side network, cross-entropy of logits + Dy^ with true labels    | pivots, logits' place: the label  |
| `mobillm`  | as `labels`: rows do not touch, so all tokens give the same network | all tokens and labels, each epoch |
| `probe`    | a softmax on the last pivot, on the device                          | nothing                           |
| `backbone` | nothing                                                             | nothing                           |

MobiLLM's device runs its backbone anew in every epoch and sends at the settings' bits. Its server trains on every
token; only the pivots' rows are computed here, so its seconds are a lower bound.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from airtune.methods.pae_mobillm.building import open_uplink
from airtune.methods.pae_mobillm.cells.choosing import RATES, Look, best_on_dev, epochs_looked_at
from airtune.methods.pae_mobillm.cells.reading import Read, base_of, open_reading
from airtune.methods.pae_mobillm.cells.sending import Sending
from airtune.methods.pae_mobillm.cells.side import plan_of, side_bytes
from airtune.methods.pae_mobillm.cells.ways import Way, known, mib_of, told
from airtune.methods.pae_mobillm.config import config_from
from airtune.methods.pae_mobillm.costs import LABEL_BYTES, costs
from airtune.methods.pae_mobillm.server.training import TrainingPlan
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import body_bytes
from airtune.records import generator, seed_for
from airtune.records.cells import Done, Outcome

PROBE_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
PROBE_BATCH = 32
Settings = Mapping[str, Any]


def labels_settings(settings: Settings) -> Settings:
    """What the network is made of and trained on; differences and defences do not concern it."""
    device = {name: settings["device"][name] for name in ("layers", "layer_count", "bits")}
    return {"device": device, **{name: settings[name] for name in ("seed", "side", "link")}}


def compute_labels(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values of `labels` and `mobillm`, see `ways`."""
    plain = {name: value for name, value in settings.items() if name != "privacy"}
    config, read, reading = config_from(plain), open_reading(needs["reading"]), needs["reading"]
    sending = Sending.chosen(config, read["train"], lambda: base_of(settings))
    seen, plan, looks = sending.own(read["train"]), plan_of(config), epochs_looked_at(config.side.epochs)

    def hits(network: SideNetwork, part: str) -> np.ndarray:
        scores = read[part].logits + network.differences(sending.own(read[part]))
        return scores.argmax(1) == read[part].targets

    chosen = best_on_dev(
        [share * plan.learning_rate for share in RATES],
        lambda rate: by_labels(seen, read["train"], plan, rate, looks),
        lambda network: float(hits(network, "dev").mean()),
    )
    identity, samples, epochs = sending.identity, len(seen), chosen.look.epochs
    down = side_bytes(config, len(identity.layers), identity.width, identity.outputs)
    blocks, tokens, bits = read["train"].states.shape[1], int(known(reading, "tokens")), config.device.bits
    _, mobillm, *_ = costs(identity, samples, samples, tokens, epochs, down, blocks=blocks, text=False, bits=bits)
    right, flops, forward_s = hits(chosen.look.model, "test"), int(known(reading, "flops")), known(reading, "cpu_s")
    once = body_bytes(identity, samples, samples) + samples * (LABEL_BYTES - 4 * identity.outputs)
    mib, all_mib, server_s = mib_of(needs, "reading"), mib_of(needs, f"tokens{bits}"), chosen.look.seconds
    ways = [
        Way("labels", right, once, down, flops, forward_s + server_s, mib, chosen),
        Way("mobillm", right, mobillm.up, down, epochs * flops, epochs * forward_s + server_s, all_mib, chosen),
    ]
    return told(ways, open_uplink(config))


def by_labels(
    seen: np.ndarray, train: Read, plan: TrainingPlan, rate: float, looks: list[int]
) -> Iterator[Look[SideNetwork]]:
    """The same network as by differences, with true labels: cross-entropy of logits + Dy^; looked at after epochs.

    First weights and order of samples are those that `Training` draws of the seed, so that both are paired.
    """
    outputs = train.logits.shape[1]
    draw = torch.Generator().manual_seed(seed_for(plan.seed, "pae side network"))
    network = SideNetwork(
        seen.shape[1], seen.shape[2], plan.bottleneck, outputs, temperature=plan.temperature, generator=draw
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=plan.weight_decay)
    rows, logits, targets = (torch.from_numpy(part) for part in (seen, train.logits, train.targets))
    begun, spent = time.process_time(), 0.0
    for epoch in range(max(looks)):
        order = generator(plan.seed, "pae epoch", epoch + 1).permutation(len(rows))
        for some in torch.from_numpy(order).split(plan.batch_size):
            optimiser.zero_grad()
            functional.cross_entropy(logits[some] + network(rows[some]), targets[some]).backward()
            optimiser.step()
        if epoch + 1 in looks:
            spent += time.process_time() - begun
            yield Look(network, epoch + 1, spent)
            begun = time.process_time()


def probe_settings(settings: Settings) -> Settings:
    """Its seed and how long it may train."""
    return {"seed": settings["seed"], "epochs": settings["side"]["epochs"], "link": settings["link"]}


def compute_probe(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values of `probe` and `backbone`, see `ways`. The probe keeps every sample's last pivot: memory of its own."""
    config, read, reading = config_from(settings), open_reading(needs["reading"]), needs["reading"]
    looks, targets = epochs_looked_at(config.side.epochs), read["test"].targets

    def hits(layer: torch.nn.Linear, part: str) -> np.ndarray:
        with torch.inference_mode():
            scores = layer(torch.from_numpy(read[part].states[:, -1]))
        return scores.argmax(1).numpy() == read[part].targets

    chosen = best_on_dev(
        PROBE_RATES,
        lambda rate: _probes(read["train"], config.seed, rate, looks),
        lambda layer: float(hits(layer, "dev").mean()),
    )
    look, mib = chosen.look, mib_of(needs, "reading")
    kept = read["train"].states[:, -1].nbytes / 2**20
    seconds = known(reading, "cpu_s") + look.seconds
    flops = int(known(reading, "flops")) + look.flops
    own = None if mib is None else mib + kept
    ways = [
        Way("probe", hits(look.model, "test"), 0, 0, flops, seconds, own, chosen),
        Way("backbone", read["test"].logits.argmax(1) == targets, 0, 0, 0, 0.0, mib_of(needs, "plain")),
    ]
    return told(ways, open_uplink(config))


def _probes(train: Read, seed: int, rate: float, looks: list[int]) -> Iterator[Look[torch.nn.Linear]]:
    """A softmax on the last pivot, from 0, looked at after epochs."""
    rows, targets = torch.from_numpy(train.states[:, -1]), torch.from_numpy(train.targets)
    layer = torch.nn.Linear(rows.shape[1], train.logits.shape[1])
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=rate)
    begun, spent = time.process_time(), 0.0
    for epoch in range(max(looks)):
        for some in torch.from_numpy(generator(seed, "probe", epoch).permutation(len(rows))).split(PROBE_BATCH):
            optimiser.zero_grad()
            functional.cross_entropy(layer(rows[some]), targets[some]).backward()
            optimiser.step()
        if epoch + 1 in looks:
            spent += time.process_time() - begun
            flops = 4 * (epoch + 1) * len(rows) * layer.weight.numel()  # forward, and the weights' gradient
            yield Look(layer, epoch + 1, spent, flops)
            begun = time.process_time()
