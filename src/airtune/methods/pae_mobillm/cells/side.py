"""The `side` cell: side networks trained on what was read, by differences as the server does and by true labels.

| of       | what is trained, on what                                            | uplink                           |
|----------|---------------------------------------------------------------------|----------------------------------|
| `pae`    | the side network, on differences, as received                       | pivots and differences, once     |
| `labels` | the same network, cross-entropy of logits + Dy^ with true labels    | pivots, logits' place: the label |
| `mobillm`| as `labels`: rows do not touch, so all tokens give the same network | all tokens and labels, each epoch |
| `probe`  | a softmax on the last pivot, on the device                          | nothing                          |
| `backbone` | nothing                                                           | nothing                          |

Accuracy on test, whose items stand behind every `score`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from airtune.methods.pae_mobillm.building import open_uplink
from airtune.methods.pae_mobillm.cells.reading import Read, open_reading
from airtune.methods.pae_mobillm.config import PAEConfig, config_from
from airtune.methods.pae_mobillm.costs import costs
from airtune.methods.pae_mobillm.device.differences import corrected, prediction_differences
from airtune.methods.pae_mobillm.device.layers import every_layer, uniform_layers
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.privacy.defences import defence
from airtune.methods.pae_mobillm.server.training import Training, TrainingPlan
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import Samples, as_received
from airtune.records import generator, seed_for
from airtune.records.cells import Done, Outcome, Value

PROBE_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
PROBE_EPOCHS = 20
Settings = Mapping[str, Any]


def side_settings(settings: Settings) -> Settings:
    """What is trained and sent, beside the reading's cell."""
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
    """Values: `score`, `up_bytes`, `down_bytes`, `seconds` on the uplink, by who trained (of)."""
    config, read = config_from(settings), open_reading(needs["reading"])
    train, test = read["train"], read["test"]
    outputs, blocks = train.logits.shape[1], train.states.shape[1]
    device, plan = config.device, plan_of(config)
    choice = (
        uniform_layers(blocks, device.layer_count, device.bits)
        if device.layers == "uniform"
        else every_layer(blocks, device.bits)
    )
    secret = generator(config.seed, "privacy", device.secret, *choice.layers)
    secrecy = defence(outputs, rotate_to=config.privacy.rotate_to, secret=secret)
    sizes = choice.layers, choice.bits, secrecy.outputs(outputs), device.space
    identity = Identity("0", "0", "0", train.states.shape[2], *sizes)
    at = [layer - 1 for layer in choice.layers]
    seen, asked = (as_received(part.states[:, at], identity) for part in (train, test))
    plain = prediction_differences(train.logits, train.targets, space=device.space, scale=device.target_scale)
    _, differences = secrecy.outgoing(np.arange(len(seen), dtype=np.uint64), seen, plain)
    training = Training(work / "pae", identity, plan)
    for _ in training.until(Arrays(seen, differences), config.side.epochs):
        pass
    predicted = secrecy.incoming(training.network.differences(asked))
    answers = {
        "backbone": test.logits,
        "pae": corrected(test.logits, predicted, space=device.space),
        "labels": test.logits + by_labels(seen, train, plan, config.side.epochs).differences(asked),
        "probe": probe(read, plan.seed),
    }
    answers["mobillm"] = answers["labels"]
    return _told(config, identity, answers, test, needs["reading"], len(seen), blocks)


def plan_of(config: PAEConfig) -> TrainingPlan:
    side = config.side
    rates = side.learning_rate, side.weight_decay
    return TrainingPlan(config.seed, side.bottleneck, side.temperature, side.batch_size, *rates, side.loss)


def by_labels(seen: np.ndarray, train: Read, plan: TrainingPlan, epochs: int) -> SideNetwork:
    """The same network on the same batches with true labels: cross-entropy of logits + Dy^."""
    outputs = train.logits.shape[1]
    draw = torch.Generator().manual_seed(seed_for(plan.seed, "labels"))
    network = SideNetwork(
        seen.shape[1], seen.shape[2], plan.bottleneck, outputs, temperature=plan.temperature, generator=draw
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    rows, logits, targets = (torch.from_numpy(part) for part in (seen, train.logits, train.targets))
    for epoch in range(epochs):
        order = generator(plan.seed, "labels", epoch).permutation(len(rows))
        for start in range(0, len(order), plan.batch_size):
            some = torch.from_numpy(order[start : start + plan.batch_size])
            optimiser.zero_grad()
            functional.cross_entropy(logits[some] + network(rows[some]), targets[some]).backward()
            optimiser.step()
    return network.requires_grad_(False)


def probe(read: Mapping[str, Read], seed: int) -> np.ndarray:
    """A softmax on the last pivot, the best of four rates on dev: its scores on test."""
    best: tuple[float, np.ndarray] | None = None
    train = read["train"]
    rows, targets = torch.from_numpy(train.states[:, -1]), torch.from_numpy(train.targets)
    for rate in PROBE_RATES:
        layer = torch.nn.Linear(rows.shape[1], train.logits.shape[1])
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimiser = torch.optim.AdamW(layer.parameters(), lr=rate)
        for epoch in range(PROBE_EPOCHS):
            order = torch.from_numpy(generator(seed, "probe", epoch).permutation(len(rows)))
            for some in order.split(32):
                optimiser.zero_grad()
                functional.cross_entropy(layer(rows[some]), targets[some]).backward()
                optimiser.step()
        with torch.inference_mode():
            on_dev, on_test = (layer(torch.from_numpy(read[part].states[:, -1])).numpy() for part in ("dev", "test"))
        right = float((on_dev.argmax(1) == read["dev"].targets).mean())
        if best is None or right > best[0]:
            best = right, on_test
    assert best is not None
    return best[1]


def _told(
    config: PAEConfig,
    identity: Identity,
    answers: Mapping[str, np.ndarray],
    test: Read,
    reading: Done,
    samples: int,
    blocks: int,
) -> Outcome:
    link = open_uplink(config)
    tokens = next(v.value for v in reading.values if v.measure == "tokens")
    side_bytes = 4 * SideNetwork.size(len(identity.layers), identity.width, config.side.bottleneck, identity.outputs)
    pae, mobillm, *_ = costs(
        identity, samples, samples, int(tokens), config.side.epochs, side_bytes, blocks=blocks, text=False
    )
    sent = {
        "pae": (pae.up, pae.down),
        "labels": (pae.up - 4 * samples * (identity.outputs - 1), pae.down),
        "mobillm": (mobillm.up, mobillm.down),
        "probe": (0, 0),
        "backbone": (0, 0),
    }
    values, items = [], {}
    for of, scores in answers.items():
        hits = (scores.argmax(1) == test.targets).astype(float)
        up, down = sent[of]
        score = Value("score", float(hits.mean()), of=of)
        values += [score, Value("up_bytes", float(up), of=of), Value("down_bytes", float(down), of=of)]
        values.append(Value("seconds", link.airtime_s(8 * (up + down), link.mean_state), of=of))
        items[score.item_name] = hits
    return Outcome(tuple(values), items=items)
