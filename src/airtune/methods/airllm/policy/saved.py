"""Trained policies travel: a folder with `policy.safetensors` and `policy.toml`, which says what the policy is for.

Knows a frozen policy, the sites it decides for and what ranks weigh there; not how it was trained. Loads without torch.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import tomli_w
from safetensors import SafetensorError
from safetensors.numpy import load, save

from airtune.adapters import RankVector
from airtune.codec import Binding, Contents
from airtune.errors import AirtuneError, ConfigError
from airtune.methods.airllm.allocators import AirLLM
from airtune.methods.airllm.policy.frozen import FrozenPolicy
from airtune.methods.airllm.policy.priors import CoarseLatent, DiscreteHeads, NoPrior, Prior
from airtune.methods.airllm.sizes import Sizes, weighed, weighing
from airtune.records import write_bytes, write_text
from airtune.records.plain import for_toml
from airtune.tasks import Complexity

if TYPE_CHECKING:
    from airtune.models import Site

FORMAT = 1
WEIGHTS, ABOUT = "policy.safetensors", "policy.toml"
POLICY = "policy"
"""Folder of the policy within a run folder."""


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """Model, task, links and lambda of a policy's training."""

    model: str
    task: str
    snrs_db: tuple[float, ...]
    bandwidths_hz: tuple[float, ...]
    cost_weight: float

    def __post_init__(self) -> None:
        if not (self.snrs_db and self.bandwidths_hz):
            raise ConfigError("the policy names no SNR or no bandwidth that it was trained at; save it anew")


@final
@dataclass(frozen=True)
class SavedPolicy:
    """A policy and what it is for.

    Args:
        name: What it is called in a table.
        seed: Draws the noise that it decides from.
        modules: Layer and kind of module of every site, in the order of the ranks.
        caps: Largest rank of each site.
        sizes: What ranks weigh there, head and container included.
        deadline_s: T_max that it was trained with.
        complexity: H and rho of the task that it was trained on.
        trained_on: For people: where it may be trusted.
    """

    name: str
    seed: int
    policy: FrozenPolicy
    modules: tuple[tuple[int, str], ...]
    caps: RankVector
    sizes: Sizes
    deadline_s: float
    complexity: Complexity
    trained_on: TrainedOn

    def allocator(self) -> AirLLM:
        """Decides as the policy did when it was saved."""
        return AirLLM(self.caps, self.policy, self.seed, self.name)

    def check_anatomy(self, sites: Sequence[Site], caps: RankVector) -> None:
        """Refuse to decide for a model with other sites, shapes or largest ranks. Raises `ConfigError`."""
        shapes = self.sizes.contents.sites
        mine = [
            (*module, (shape.fan_out, shape.fan_in), cap)
            for module, shape, cap in zip(self.modules, shapes, self.caps.ranks, strict=True)
        ]
        asked = [
            (site.layer, site.module, (site.fan_out, site.fan_in), cap)
            for site, cap in zip(sites, caps.ranks, strict=True)
        ]
        if len(mine) != len(asked):
            raise ConfigError(f"the policy decides {len(mine)} ranks, this model has {len(asked)} sites; {_ADVICE}")
        for have, want in zip(mine, asked, strict=True):
            if have != want:
                raise ConfigError(
                    f"the policy has {_described(have)} where this model has {_described(want)}; {_ADVICE}"
                )


_ADVICE = "give a policy that was trained for this model and adapter.max_rank"


def _described(site: tuple[int, str, tuple[int, int], int]) -> str:
    layer, module, (fan_out, fan_in), cap = site
    return f"{module} of layer {layer} ({fan_out} x {fan_in}, rank up to {cap})"


def save_policy(folder: Path, saved: SavedPolicy) -> None:
    """Write a policy; the text comes last and names the weights by hash. Raises `RunError`."""
    told, arrays = weighing(saved.sizes.weigh)
    weights = save({**saved.policy.arrays, **arrays})
    contents = saved.sizes.contents
    about = {
        "format": FORMAT,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "name": saved.name,
        "seed": saved.seed,
        "prior": _PRIORS[type(saved.policy.prior)],
        "guidance": saved.policy.guidance,
        **told,
        "deadline_s": saved.deadline_s,
        "trained_on": saved.trained_on,
        "complexity": saved.complexity,
        "base": {"sha256": contents.binding.base_sha256, "tokenizer_sha256": contents.binding.tokenizer_sha256},
        "meta": contents.meta,
        "dense": {tensor.name: tensor.shape for tensor in contents.dense},
        "sites": [
            {"path": shape.name, "layer": layer, "module": module, "out": shape.fan_out, "in": shape.fan_in, "cap": cap}
            for shape, (layer, module), cap in zip(contents.sites, saved.modules, saved.caps.ranks, strict=True)
        ],
    }
    write_bytes(folder / WEIGHTS, weights)
    write_text(folder / ABOUT, tomli_w.dumps(for_toml(about)))


def load_policy(folder: Path) -> SavedPolicy:
    """Read a policy back.

    Raises:
        ConfigError: a file is missing or damaged, the weights are not those the text names, or the format is another.
    """
    try:
        about = tomllib.loads((folder / ABOUT).read_text(encoding="utf-8"))
        weights = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no readable policy ({error}); expected {ABOUT} and {WEIGHTS}") from None
    if about.get("format") != FORMAT:
        raise ConfigError(f"the policy in {folder} has format {about.get('format')!r}, expected {FORMAT}; save it anew")
    if hashlib.sha256(weights).hexdigest() != about.get("weights_sha256"):
        raise ConfigError(f"{folder / WEIGHTS} is not what {ABOUT} names by hash; copy both files again")
    try:
        return _read(about, dict(load(weights)))
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError, AirtuneError) as error:
        raise ConfigError(
            f"the policy in {folder} is damaged ({type(error).__name__}: {error}); save it anew"
        ) from None


def shipped_policy(name: str) -> SavedPolicy:
    """A policy that comes with airtune, by its base model's name. Raises `ConfigError` that lists what there is."""
    root = resources.files("airtune.methods.airllm.policy") / "shipped"
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if name not in names:
        raise ConfigError(f"no policy comes with airtune for {name!r}, only for {', '.join(names)}; give a folder")
    with resources.as_file(root / name) as folder:
        return load_policy(folder)


def _read(about: Mapping[str, Any], arrays: dict[str, Any]) -> SavedPolicy:
    sites, trained = about["sites"], about["trained_on"]
    caps = RankVector(tuple(site["cap"] for site in sites))
    modules = tuple((int(site["layer"]), str(site["module"])) for site in sites)
    contents = Contents.of(
        {site["path"]: (site["out"], site["in"]) for site in sites},
        {name: tuple(shape) for name, shape in about["dense"].items()},
        Binding(about["base"]["sha256"], about["base"]["tokenizer_sha256"]),
        about["meta"],
    )
    weigh = weighed(about, arrays, contents)
    read = SavedPolicy(
        name=str(about["name"]),
        seed=whole(about["seed"]),
        policy=FrozenPolicy(_prior(about["prior"], modules, caps), number(about["guidance"], 0), arrays),
        modules=modules,
        caps=caps,
        sizes=Sizes(contents, weigh),
        deadline_s=number(about["deadline_s"], 1e-9),
        complexity=Complexity(
            number(about["complexity"]["entropy_bits"], 0),
            number(about["complexity"]["oov_rate"], 0),
            whole(about["complexity"]["words"]),
        ),
        trained_on=TrainedOn(
            str(trained["model"]),
            str(trained["task"]),
            tuple(number(snr_db, -1e3) for snr_db in trained["snrs_db"]),
            tuple(number(width, 0) for width in trained["bandwidths_hz"]),
            number(trained["cost_weight"], 0),
        ),
    )
    read.sizes.air_bits(caps)
    read.policy.act(np.zeros((1, 4 + len(sites)), dtype=np.float32), np.random.default_rng(0))  # do the parts fit?
    return read


def whole(value: object) -> int:
    """A whole number of at least 0. Raises `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no whole number of at least 0")
    return value


def number(value: object, least: float) -> float:
    """A finite number of at least `least`. Raises `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise ValueError(f"{value!r} is no finite number of at least {least:g}")
    return float(value)


_PRIORS = {CoarseLatent: "latent", DiscreteHeads: "discrete", NoPrior: "none"}


def _prior(kind: str, modules: Sequence[tuple[int, str]], caps: RankVector) -> Prior:
    made: Mapping[str, Prior] = {
        "latent": CoarseLatent.of_modules(modules),
        "discrete": DiscreteHeads(caps),
        "none": NoPrior(len(caps)),
    }
    return made[kind]
