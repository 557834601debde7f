"""What the cells of AirLLM share: which settings a result depends on, and the parts of a run built from them.

The stages are `method.py`'s own, so a study measures what a run does. Knows settings and files; not studies.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from airtune.adapters.gains import losses_worth
from airtune.errors import ConfigError
from airtune.ledger import Ledger
from airtune.links import Link
from airtune.methods.airllm.allocation import decision_budget
from airtune.methods.airllm.building import fit_plan, new_packer, new_trainee, open_links, parts_of
from airtune.methods.airllm.config import AdapterConfig, AirLLMConfig, config_from
from airtune.methods.airllm.fine_tuning import fine_tune
from airtune.methods.airllm.learning import learn_surrogate, settle
from airtune.methods.airllm.method import GREEDY_EVALUATIONS
from airtune.methods.airllm.packing import Packer
from airtune.methods.airllm.policy.settings import PolicyConfig
from airtune.methods.airllm.search.acquisition import Acquisition
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.greedy import Greedy
from airtune.methods.airllm.search.space import Space
from airtune.methods.airllm.search.surrogate import LossSurrogate
from airtune.methods.airllm.session import Session
from airtune.methods.airllm.trainee import Trainee
from airtune.records import Measurements, RunFolder, Silent
from airtune.records.cells import Done
from airtune.workloads.content import content, model_content, software
from airtune.workloads.opening import open_reader

CHECKPOINT, MEASURED = "checkpoint.safetensors", "measurements.jsonl"
Settings = Mapping[str, Any]
OF_PPO = ("ppo_learning_rate", "ppo_width", "ppo_epochs", "clip")
OF_REFINER = (
    *("backbone", "objective", "ddim_learning_rate", "width", "blocks", "schedule", "prediction", "train_steps"),
    *("sample_steps", "eta", "guidance", "condition_dropout", "warm_start_updates", "updates", "proposals", "kappa"),
)


def adapter_settings(settings: Settings) -> Settings:
    """What a trained adapter and its measured losses depend on. Raises `ConfigError` in `paper` mode."""
    if settings["mode"] != "nested":
        raise ConfigError(f"mode is {settings['mode']!r}, but studies are of nested mode; leave it out")
    link, model, adapter = settings["link"], settings["model"], AdapterConfig(**settings["adapter"])
    told = {**settings["adapter"], "prefixes": adapter.copies, "steps": adapter.steps - adapter.specialise_steps}
    del told["specialise_share"]  # of what is sent, not of the nested adapter
    if adapter.copies == 1 or adapter.rank_one_weight == AdapterConfig().rank_one_weight:
        del told["rank_one_weight"]  # nothing reads it, or it is what it was before it could be set
    if not adapter.off_share:
        del told["off_share"]  # as before it could be set
    if not (adapter.octaves and adapter.copies > 1):
        del told["octaves"]
    return {
        **{name: settings[name] for name in ("mode", "seed")},
        "codec": codec_settings(settings["codec"]),
        "adapter": told,
        "link": {**link, "trace": content(link["trace"]) if link["fading"] == "trace" else ""},
        "model": {**model, "name": model_content(model["name"])},
        "task": {**settings["task"], "data": content(settings["task"]["data"])},
        "measurements": settings["policy"]["measurements"],
        "software": software(),
    }


def codec_settings(codec: Settings) -> Settings:
    """The codec's settings; blockwise ones without their name, as they were written before there was another."""
    return {"bits": round(codec["bits"])} if codec["name"] == "blockwise" else dict(codec)


def policy_settings(settings: Settings) -> Settings:
    """What a policy and its rows depend on, beside the adapter's cell. Raises `ConfigError` for a saved policy."""
    if trained := settings["policy"]["trained"]:
        raise ConfigError(f"policy.trained is {trained!r}, but a study trains its policies itself; leave it out")
    policy, defaults = settings["policy"], PolicyConfig()
    idle = {name: getattr(defaults, name) for name in unread(policy)}
    return {**adapter_settings(settings), "policy": {**policy, **idle}}


def specialised_settings(settings: Settings) -> Settings:
    """What decisions depend on, and how long the adapter is trained on at them."""
    return {**policy_settings(settings), "share": settings["adapter"]["specialise_share"]}


def unread(policy: Settings) -> tuple[str, ...]:
    """Settings that this variant of the policy never looks at; their values change nothing."""
    if policy["refiner"] == "none":
        return OF_REFINER
    return (
        *(OF_PPO if policy["prior"] == "none" else ()),
        *(("sample_steps", "eta") if policy["refiner"] == "ddpm" else ()),
        *(("blocks",) if policy["backbone"] == "unet" else ()),
        "kappa" if policy["objective"] == "improved" else "proposals",
    )


def rival_settings(settings: Settings) -> Settings:
    """What rows of allocators that learn nothing depend on: of the policy, only lambda in their rewards."""
    return {**adapter_settings(settings), "cost_weight": settings["policy"]["cost_weight"]}


@dataclass
class Opened:
    """A trained adapter with all that decides, packs and measures."""

    session: Session
    trainee: Trainee
    metric: str

    @property
    def config(self) -> AirLLMConfig:
        return self.session.config

    @cached_property
    def packer(self) -> Packer:
        return new_packer(self.config, self.trainee)

    @cached_property
    def links(self) -> list[Link]:
        return open_links(self.config.link, self.packer, self.trainee.adapter.caps)[0]

    @cached_property
    def _learned(self) -> tuple[LossSurrogate, Acquisition]:
        """From the adapter cell's measurements, which are remembered and not repeated."""
        return learn_surrogate(self.session, self.trainee, self.packer, self.links)[:2]

    @property
    def surrogate(self) -> LossSurrogate:
        return self._learned[0]

    @cached_property
    def greedy(self) -> Greedy:
        found = self.greedy_of(GREEDY_EVALUATIONS)
        settle(self.session, found, self.links)
        return found

    @property
    def space(self) -> Space:
        return self._learned[1].space

    @property
    def archive(self) -> Archive:
        """What the surrogate learned from, and whatever was measured since."""
        return self._learned[1].archive

    @property
    def losses_each(self) -> int:
        """Losses for each link that the surrogate learned from and greedy added, gradients at what they cost."""
        gradients = losses_worth(self.trainee.adapter.caps)
        return GREEDY_EVALUATIONS + round((self.config.policy.measurements + gradients) / len(self.links))

    def budget(self, link: Link) -> int:
        """Bits on the air that decisions on a link may spend, as they were when losses were measured for it."""
        deadline = self.config.link
        return decision_budget(link, link.mean_state, deadline.deadline_s, deadline.late_share)

    def greedy_of(self, evaluations: int) -> Greedy:
        """Elimination and exchange on the surrogate, then so many measured losses for each budget."""
        return Greedy(self._learned[1], evaluations=evaluations, cost_weight=self.config.policy.cost_weight)

    @property
    def site_names(self) -> list[str]:
        return [f"{site.layer}.{site.module}" for site in self.trainee.adapter.sites]


@contextmanager
def opened(settings: Settings, work: Path, adapter: Done | None = None) -> Iterator[Opened]:
    """Open a work folder as a run folder, new or interrupted; the adapter comes from its cell where there is one."""
    config = config_from(settings)
    with session_in(work, config) as session:
        if adapter is not None:
            _take_over(adapter.work, work)
        reader = open_reader(config)
        trainee = new_trainee(config, reader, parts_of(config, reader), Measurements(work / MEASURED))
        fine_tune(session, trainee, fit_plan(config, reader.base.hidden_size))
        yield Opened(session, trainee, reader.task.metric)


@contextmanager
def session_in(work: Path, config: AirLLMConfig) -> Iterator[Session]:
    """A session whose run folder is a cell's work folder."""
    cell = {"cell": work.parent.name}  # its key stands for the settings that matter
    start = RunFolder.resume
    if not (work / "config.toml").exists():
        start = RunFolder.create
        shutil.rmtree(work, ignore_errors=True)  # what a damaged cell or an interrupted removal left behind
    with start(work, cell) as folder:
        yield Session(config, folder, Silent(), Ledger())


def _take_over(source: Path, work: Path) -> None:
    """Start from the adapter's finished checkpoint, and from a copy of its measurements, to which others are added."""
    if not (work / CHECKPOINT).exists():
        try:
            os.link(source / CHECKPOINT, work / CHECKPOINT)  # replaced, never written into: sharing it is safe
        except OSError:
            shutil.copyfile(source / CHECKPOINT, work / CHECKPOINT)
    if not (work / MEASURED).exists():
        shutil.copyfile(source / MEASURED, work / MEASURED)
