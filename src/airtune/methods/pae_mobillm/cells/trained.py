"""The `lora` and `split` cells: what trains the backbone itself, on the device alone or between device and server.

LoRA's rate and epochs are the best on dev of two rates and five epochs; split learning takes those of the same seed,
for its network is the same but for what is rounded at the cut. Both start at the head that every other way starts at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from airtune.methods.pae_mobillm.building import open_uplink
from airtune.methods.pae_mobillm.cells.choosing import Chosen, Look, best_on_dev
from airtune.methods.pae_mobillm.cells.reading import config_of, items_of
from airtune.methods.pae_mobillm.cells.ways import Way, known, mib_of, told
from airtune.methods.pae_mobillm.config import PAEConfig, config_from
from airtune.methods.pae_mobillm.rivals.lora import EPOCHS, RATES, Parameters, adapted, plan_for, train_epochs
from airtune.methods.pae_mobillm.rivals.split import cut_behind, half_bytes, middle
from airtune.models import Items, Score, score
from airtune.records.cells import Done, Outcome
from airtune.workloads.opening import open_reader
from airtune.workloads.parts import Reader

Settings = Mapping[str, Any]


def trained_settings(settings: Settings) -> Settings:
    """Beside the reading's cell, which has model, task and samples."""
    return {name: settings[name] for name in ("seed", "link")}


def compute_lora(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values of `lora`, see `ways`."""
    config, reader, train = _opened(settings)
    base, own = reader.base, config_of(settings)
    dev = items_of(own, reader, "dev")
    with adapted(base, config.seed) as parameters:
        start = {name: one.detach().clone() for name, one in parameters.items()}

        def looks(rate: float) -> Iterator[Look[Parameters]]:
            _load(parameters, start)
            batch_size = config.device.batch_size
            plan = plan_for(train, rate=rate, epochs=EPOCHS, batch_size=batch_size, seed=config.seed)
            for epoch in train_epochs(base, parameters, train, plan):
                yield Look(parameters, epoch.done, epoch.seconds, epoch.flops)

        def dev_score(model: Parameters) -> float:
            return score(base.model, dev, keep_logits=0).metric

        chosen = best_on_dev(RATES, looks, dev_score)
        _load(parameters, chosen.look.model)
        on_test = score(base.model, items_of(own, reader, "test"))
    way = _way("lora", on_test, chosen, mib_of(needs, "lora"))
    return told([way], open_uplink(config))


def compute_split(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values of `split`, see `ways`; bytes are counted as they cross."""
    config, reader, train = _opened(settings)
    base, blocks = reader.base, middle(reader.base)
    rate, epochs = (known(needs["lora"], measure, "lora") for measure in ("rate", "epochs"))
    with adapted(base, config.seed) as parameters, cut_behind(base, blocks) as traffic:
        batch_size = config.device.batch_size
        plan = plan_for(train, rate=rate, epochs=EPOCHS, batch_size=batch_size, seed=config.seed)
        for epoch in train_epochs(base, parameters, train, plan, blocks=blocks):
            if epoch.done == epochs:
                break
        look: Look[None] = Look(None, epoch.done, epoch.seconds, epoch.flops)
        dev, test = (items_of(config_of(settings), reader, part) for part in ("dev", "test"))
        chosen = Chosen(look, rate, score(base.model, dev, keep_logits=0).metric)
        on_test = score(base.model, test)
        down = traffic.down + half_bytes(base, parameters, blocks)
    way = _way("split", on_test, chosen, mib_of(needs, "split"), up=traffic.up, down=down)
    return told([way], open_uplink(config))


def _opened(settings: Settings) -> tuple[PAEConfig, Reader, Items]:
    """The seed's own settings; and reader and samples that all seeds share."""
    reader = open_reader(config_of(settings))
    return config_from(settings), reader, items_of(config_of(settings), reader, "train")


def _way(of: str, on_test: Score, chosen: Chosen, mib: float | None, up: int = 0, down: int = 0) -> Way:
    assert on_test.hits is not None
    return Way(of, on_test.hits, up, down, chosen.look.flops, chosen.look.seconds, mib, chosen)


@torch.no_grad()
def _load(parameters: Parameters, values: Mapping[str, torch.Tensor]) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)
