"""The `baselines` cell: what the trained baselines send at each SNR, and what it is worth, as `rows` measures it.

| of        | what is sent: the largest that fits, or the next one cut to fit, whichever dev likes better          |
|-----------|------------------------------------------------------------------------------------------------------|
| `lora`    | of LoRAs trained at 1, 2, 4, ..., r_max, and at the largest rank everywhere that each link has room for |
| `adalora` | of AdaLoRAs trained down to 80 % of the directions that each link has room for, as it keeps dear ones |
| `svd`     | the LoRA of r_max, cut                                                                               |

All by the same codec, within what a decision may spend on that link.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from airtune.adapters import RankVector, rank_caps
from airtune.errors import ConfigError
from airtune.links import ChannelState, Link
from airtune.methods.airllm.allocation import decision_budget, project
from airtune.methods.airllm.baselines.kept import load_adapter
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.methods.airllm.baselines.truncation import keep_within
from airtune.methods.airllm.building import new_trainee, open_links, parts_of
from airtune.methods.airllm.cells.opening import MEASURED, Opened, Settings, adapter_settings, session_in
from airtune.methods.airllm.cells.policy import rank_values
from airtune.methods.airllm.cells.rows import Measurer
from airtune.methods.airllm.cells.trained import ADAPTER, TOTAL, nearest_swept, ranks_to_train
from airtune.methods.airllm.config import AirLLMConfig, config_from
from airtune.methods.airllm.packing import block_packer
from airtune.methods.airllm.plan import plan
from airtune.methods.airllm.trainee import Trainee
from airtune.records import Measurements, generator
from airtune.records.cells import Done, Outcome
from airtune.records.plain import canonical_json
from airtune.workloads.opening import open_reader

ADALORA_SHARE = 0.8
"""AdaLoRA is trained at this share of the most directions that fit, for it chooses sites that are dear: what is
trained at all of them has to be cut, and dev liked that on no link (docs/log.md)."""


def ladders(settings: Settings) -> Mapping[str, Settings]:
    """The trainings by name: LoRA by its rank (`lora 4`), AdaLoRA by its directions in all (`adalora 23`)."""
    adapter = settings["adapter"]
    sites, uniform, totals = _room({**settings, "seed": 0, "policy": {}})
    ranks = sorted({*ranks_to_train(adapter["max_rank"]), *uniform})
    found = {f"lora {rank}": {**settings, "adapter": {**adapter, "max_rank": rank}} for rank in ranks}
    for total in totals:
        near = nearest_swept(total / sites)
        its = {**settings, "adapter": {**adapter, "max_rank": near}, TOTAL: total}
        found[f"adalora {total}"] = its
    return found


def _room(settings: Settings) -> tuple[int, list[int], list[int]]:
    """Sites; and over all links, the largest ranks everywhere that fit and the directions AdaLoRA is to leave."""
    return _planned(canonical_json(settings))


@lru_cache(maxsize=64)
def _planned(settings: str) -> tuple[int, list[int], list[int]]:
    found = plan(config_from(json.loads(settings)))
    uniform = {row.uniform_rank for row in found.rows if row.uniform_rank}
    totals = {max(1, math.floor(ADALORA_SHARE * row.total_rank)) for row in found.rows if row.total_rank}
    return found.sites, sorted(uniform), sorted(totals)


def baseline_settings(settings: Settings) -> Settings:
    """What the choice and the measuring depend on, beside the trained adapters' cells.

    Raises:
        ConfigError: numbers of coded sizes, of which budgets cannot be told from shapes.
    """
    found = adapter_settings(settings)
    if settings["codec"]["name"] != "blockwise":
        told = f"codec.name is {settings['codec']['name']!r}, but trained baselines are cut to budgets by their shapes"
        raise ConfigError(f"{told}; choose blockwise")
    return {
        **{name: found[name] for name in ("seed", "link", "codec", "model", "task", "software")},
        "max_rank": settings["adapter"]["max_rank"],
        "cost_weight": settings["policy"]["cost_weight"],
    }


def largest_that_fits(bits: Mapping[int, int], budget_bits: float) -> int:
    """The largest rank whose payload fits, 0 where none does."""
    return max((rank for rank, size in bits.items() if size <= budget_bits), default=0)


@dataclass(frozen=True, slots=True)
class Sent:
    """What somebody sends on a link: a trained adapter by its name, and how much of it."""

    of: str
    name: str
    ranks: RankVector
    link: Link
    block: ChannelState


class Ladder:
    """Trained adapters by name (`lora 4`, `adalora 23`), to be cut to budgets.

    Args:
        trainee: With room for the largest rank of a site; holds one of them at a time.
        bits: Bits per number of a factor.
    """

    def __init__(self, trained: Mapping[str, TrainedAdapter], trainee: Trainee, bits: int) -> None:
        self._trained, self._trainee = trained, trainee
        some = next(iter(trained.values()))
        self.packer = block_packer(trainee.adapter.base, some.factors, some.dense, bits)  # asked for sizes alone

    def hold(self, name: str) -> Trainee:
        """The trainee, with this adapter in it."""
        self._trainee.hold(self._trained[name].factors, self._trained[name].dense)
        return self._trainee

    def whole(self, method: str, budget: int) -> tuple[str, RankVector]:
        """The largest adapter of a method that fits; where none does, the head of the smallest."""
        bits = {size: self.packer.air_bits(self._trained[f"{method} {size}"].ranks) for size in self._sizes(method)}
        if size := largest_that_fits(bits, budget):
            return f"{method} {size}", self._trained[f"{method} {size}"].ranks
        none = RankVector((0,) * len(self._trainee.adapter.sites))
        return f"{method} {min(bits)}", project(none, self.packer.air_bits, budget)

    def cut(self, name: str, budget: int) -> tuple[str, RankVector]:
        """An adapter cut to the budget, most energy per bit first."""
        packer = self.packer
        return name, keep_within(self._trained[name].factors, packer.direction_bits, packer.air_bits, budget)

    def better(self, method: str, budget: int) -> tuple[str, RankVector]:
        """The largest that fits or the next one cut to the budget, whichever has the least loss on dev."""
        whole = self.whole(method, budget)
        above = [size for size in self._sizes(method) if size > (int(whole[0].split()[1]) if whole[1].total else 0)]
        both = [whole, *(self.cut(f"{method} {size}", budget) for size in above[:1])]
        return min(both, key=lambda found: self._dev_loss(*found))

    def _sizes(self, method: str) -> list[int]:
        return sorted(int(name.split()[1]) for name in self._trained if name.split()[0] == method)

    def _dev_loss(self, name: str, ranks: RankVector) -> float:
        trainee = self.hold(name)
        return trainee.score(ranks, trainee.parts.dev, keep_logits=0).loss


def compute_baselines(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values as `rows` has them, ranks, and `dev_loss` of every trained adapter, unquantised, by its size (x)."""
    config = config_from(settings)
    trained = {name: load_adapter(done.work / ADAPTER) for name, done in needs.items()}
    values = [replace(v, of=name.split()[0]) for name, n in needs.items() for v in n.values if v.measure == "dev_loss"]
    items: dict[str, np.ndarray] = {}
    with session_in(work, config) as session:
        reader = open_reader(config)
        most = max(rank for adapter in trained.values() for rank in adapter.ranks.ranks)
        roomy = replace(config, adapter=replace(config.adapter, max_rank=most))
        trainee = new_trainee(roomy, reader, parts_of(config, reader), Measurements(work / MEASURED))
        ladder = Ladder(trained, trainee, round(config.codec.bits))
        for name, sent in _by_name(_decided(ladder, config, rank_caps(reader.base.sites, config.adapter.max_rank))):
            found = Opened(session, ladder.hold(name), reader.task.metric)
            measurer = Measurer(found)
            for one in sent:
                measurer.values += rank_values(found, one.ranks, one.link, one.of)
                measurer.measure(one.ranks, one.link, one.block, one.of)
            values += measurer.values
            items |= measurer.items
    return Outcome(tuple(values), items=items)


def _decided(ladder: Ladder, config: AirLLMConfig, caps: RankVector) -> Iterator[Sent]:
    """What each baseline sends on each of the links that a run with these caps has."""
    least = ladder.packer.air_bits(RankVector((0,) * len(caps)))
    for link in open_links(config.link, ladder.packer, caps)[0]:
        seen, block = link.observe(generator(config.seed, "channel", f"{link.snr_db:g}"), 2)
        budget = decision_budget(link, seen, config.link.deadline_s, config.link.late_share, least_bits=least)
        yield Sent("lora", *ladder.better("lora", budget), link, block)
        yield Sent("adalora", *ladder.better("adalora", budget), link, block)
        yield Sent("svd", *ladder.cut(f"lora {config.adapter.max_rank}", budget), link, block)


def _by_name(all_sent: Iterable[Sent]) -> Iterator[tuple[str, list[Sent]]]:
    found: dict[str, list[Sent]] = {}
    for sent in all_sent:
        found.setdefault(sent.name, []).append(sent)
    yield from found.items()
