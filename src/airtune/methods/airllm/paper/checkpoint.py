"""Everything that training changes, in one safetensors file, written at once: networks, optimisers, replay, course.

Random numbers are no part of it: every episode draws from generators made of the seed and its number. Knows tensors
by name; not what they mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from airtune.errors import ModelError, RunError
from airtune.records import write_bytes

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Kept:
    """How one part gives its tensors and takes them back."""

    give: Callable[[], Tensors]
    take: Callable[[Tensors], None]


def of_module(module: nn.Module) -> Kept:
    """All parameters and buffers of a network."""

    def take(tensors: Tensors) -> None:
        module.load_state_dict(dict(tensors))

    return Kept(module.state_dict, take)


def of_tensors(tensors: Tensors) -> Kept:
    """Tensors that are filled in place."""

    @torch.no_grad()
    def take(given: Tensors) -> None:
        for name, tensor in tensors.items():
            if given[name].shape != tensor.shape:
                raise ValueError(f"{name} is {tuple(given[name].shape)}, expected {tuple(tensor.shape)}")
            tensor.copy_(given[name])

    return Kept(lambda: tensors, take)


def of_optimiser(optimiser: torch.optim.Optimizer) -> Kept:
    """An optimiser's moments and counts, by the index of the parameter."""

    def give() -> Tensors:
        state = optimiser.state_dict()["state"]
        return {f"{i}.{key}": torch.as_tensor(value) for i, found in state.items() for key, value in found.items()}

    def take(tensors: Tensors) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})

    return Kept(give, take)


def save_checkpoint(path: Path, kept: Mapping[str, Kept], course: Mapping[str, Any]) -> None:
    """Write all parts and the course of training (plain values); an unfit one leaves the file as it was.

    Raises:
        ModelError: a value is not finite.
    """
    tensors = {f"{part}/{name}": tensor for part, each in kept.items() for name, tensor in each.give().items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"{name} holds a number that is not finite; lower the learning rates")
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={"course": json.dumps(course)}))


def load_checkpoint(path: Path, kept: Mapping[str, Kept]) -> dict[str, Any]:
    """Give all parts their tensors back; return the course. Raises `RunError` for a file that is not this run's."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            course: dict[str, Any] = json.loads((file.metadata() or {})["course"])
        for part, each in kept.items():
            own = {name.removeprefix(f"{part}/"): tensors[name] for name in tensors if name.startswith(f"{part}/")}
            each.take(own)
        return course
    except (SafetensorError, ValueError, KeyError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"checkpoint {path.name} cannot be read ({reason}); expected one written by this run; "
            "remove it to train from the start"
        ) from error
