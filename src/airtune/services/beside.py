"""A PEFT adapter beside its base model: what packing it needs to know of that, and of a task.

Knows models and tasks; not budgets or codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy.typing as npt

from airtune.adapters.derived import Bases, core_name, lift_cores, within
from airtune.adapters.imported import ImportedAdapter
from airtune.adapters.receiver import about, classes_of
from airtune.codec import Binding, Coded, Curvature, Decoded, Factors
from airtune.errors import DataError
from airtune.records import Progress, generator

if TYPE_CHECKING:
    from airtune.models import BaseModel, FitPlan, Items


@dataclass(frozen=True, slots=True, eq=False)
class OnTask:
    """A task on the bare base model: items to train, to choose and to report on, and how it is trained otherwise."""

    base: BaseModel
    train: Items
    dev: Items
    test: Items
    plan: FitPlan

    def loss(self, factors: Mapping[str, Factors], dense: Mapping[str, npt.NDArray], items: Items) -> float:
        """On some items, in nat."""
        from airtune.methods.airllm.baselines.training import score_adapter
        from airtune.methods.airllm.baselines.truncation import spectral

        exact = {path: spectral(site) if site.rank > min(site.shape) else site for path, site in factors.items()}
        return score_adapter(self.base, exact, dense, items, keep_logits=0).loss

    def tune(self, coded: Coded, steps: int, bases: Mapping[str, Bases], progress: Progress) -> Coded:
        """Codes trained on through their rounding, of cores too."""
        from airtune.adapters.rounded import tune
        from airtune.methods.airllm.baselines.training import head_kept

        plan, rng = replace(self.plan, steps=steps), generator(self.plan.seed, "tuning")
        with progress.stage("Training on through the rounding", total=steps) as stage, head_kept(self.base):
            return tune(
                self.base,
                coded,
                self.train,
                plan,
                rng=rng,
                bases=bases,
                on_step=lambda step: stage.advance(note=f"loss {step.loss:.3f}"),
            )


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An adapter beside its base model: updates at all of that one's sites, its hashes, and how a task's loss bends.

    Args:
        bases: By site path, where cores between them are sent; none where whole updates are.
    """

    factors: Mapping[str, Factors]
    binding: Binding
    curvature: Mapping[str, Curvature]
    on_task: OnTask | None = None
    bases: Mapping[str, Bases] = field(default_factory=dict)

    def sent(self) -> tuple[Mapping[str, Factors], Mapping[str, Curvature]]:
        """What a payload is made of and how the loss bends there, by the names it has in the payload."""
        if not self.bases:
            return self.factors, self.curvature
        names = {path: core_name(path, bases) for path, bases in self.bases.items()}
        return (
            {names[path]: self.bases[path].core(site) for path, site in self.factors.items()},
            {names[path]: within(self.bases[path], bends) for path, bends in self.curvature.items()},
        )

    def loss(self, found: Decoded, items: Items) -> float:
        """Of what a receiver has, on items of the task, which there must be."""
        assert self.on_task is not None
        return self.on_task.loss(lift_cores(found.factors, self.bases), found.dense, items)


def alone(adapter: ImportedAdapter) -> Opened:
    """Without the base model: bound to its name."""
    at = f" at revision {adapter.revision}" if adapter.revision else ""
    digest = sha256(f"base model by name: {adapter.base_model}{at}".encode()).hexdigest()
    return Opened(adapter.factors, Binding(digest, digest), {})


def open_beside(adapter: ImportedAdapter, model: str, task: str, data: str, core_size: int = 0) -> Opened:
    """With a task, the curvature on its calibration items, and its items; bases of `core_size` if any."""
    import torch

    from airtune.adapters import Adapter
    from airtune.adapters.core_adapter import bases_of
    from airtune.adapters.curvature import measure_curvature
    from airtune.methods.airllm.baselines.truncation import spectral
    from airtune.methods.airllm.building import fit_plan, parts_of
    from airtune.methods.airllm.config import load_config
    from airtune.workloads.opening import open_base, open_reader

    overrides: dict[str, object] = {"model.name": model, "task.name": task or "text"}
    if data:
        overrides["task.data"] = data
    config = load_config("default", overrides)
    if not task:
        base = open_base(config, classes_of(adapter.kind))
        bases = bases_of(base, core_size) if core_size else {}
        return Opened(_at_all_sites(adapter, base), about(base)[0], {}, bases=bases)
    reader = open_reader(config)
    base, factors = reader.base, _at_all_sites(adapter, reader.base)
    _check_head(adapter, base, task)
    bases = bases_of(base, core_size) if core_size else {}
    reached = {path: bases[path].lift(bases[path].core(site)) if bases else site for path, site in factors.items()}
    exact = {path: spectral(site) if site.rank > min(site.shape) else site for path, site in reached.items()}
    rank = max(1, *(site.rank for site in exact.values()))
    attached = Adapter(base, rank, generator=torch.Generator().manual_seed(0))
    attached.load(exact, adapter.dense)
    parts = parts_of(config, reader)
    curvature = measure_curvature(base, parts.calibration)
    attached.detach()
    on_task = OnTask(base, parts.train, parts.dev, parts.test, fit_plan(config, base.hidden_size))
    return Opened(factors, about(base)[0], curvature, on_task, bases)


def _check_head(adapter: ImportedAdapter, base: BaseModel, task: str) -> None:
    found = {name: value.shape for name, value in adapter.dense.items()}
    expected = {name: tuple(base.model.get_parameter(name).shape) for name in base.head}
    if found and found != expected:
        there = f"a head of {_listed(expected)}" if expected else "none"
        raise DataError(
            f"the adapter holds {_listed(found)} saved whole; {base.name} has {there} for task {task}; "
            "name the task it was trained on, or leave the task out"
        )
    if not found and base.drawn:
        raise DataError(
            f"the adapter holds no head, and that of {base.name} was drawn at random, so a loss on task {task} means "
            "nothing; save the head with the adapter (modules_to_save), or leave the task out"
        )


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """At most two names and shapes."""
    some = ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items())[:2])
    return some if len(shapes) <= 2 else f"{some} and {len(shapes) - 2} more"


def _at_all_sites(adapter: ImportedAdapter, base: BaseModel) -> dict[str, Factors]:
    """The adapter's updates in the order of the model's sites, no directions where it has none."""
    shapes = {site.path: (site.fan_out, site.fan_in) for site in base.sites}
    if odd := sorted(set(adapter.factors) - set(shapes)):
        raise DataError(f"the adapter changes {odd[0]}, which is no site of {base.name}; name the model it is for")
    for path, given in adapter.factors.items():
        if given.shape != shapes[path]:
            raise DataError(
                f"the adapter's update of {path} has shape {given.shape}, that of {base.name} is {shapes[path]}; "
                "name the model it is for"
            )
    return {
        site.path: adapter.factors.get(site.path, Factors.nothing(site.fan_out, site.fan_in)) for site in base.sites
    }
