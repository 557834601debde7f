"""Where fine-tuning stands, on disk: parameters, their optimiser and the steps done. Safetensors, written whole."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from airtune.errors import RunError
from airtune.records import write_bytes


def save_steps(
    path: Path, parameters: dict[str, torch.nn.Parameter], optimiser: torch.optim.Optimizer, done: int
) -> None:
    """Write a checkpoint after `done` steps."""
    tensors = {name: parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimiser.state[parameter].items():
            tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value).detach()
    metadata = {"steps_done": str(done)}
    write_bytes(path, save({name: value.contiguous() for name, value in tensors.items()}, metadata=metadata))


def restore_steps(path: Path, parameters: dict[str, torch.nn.Parameter], optimiser: torch.optim.Optimizer) -> int:
    """Take over a checkpoint; return the steps it had done. Raises `RunError` where it is none of these parameters."""
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            written = set(file.keys())
            for name, parameter in parameters.items():
                parameter.copy_(_like(parameter, file.get_tensor(name)))
                if f"optimiser.step.{name}" not in written:  # a site at rank 0 has no gradient yet
                    continue
                average, square = (file.get_tensor(f"optimiser.{key}.{name}") for key in ("exp_avg", "exp_avg_sq"))
                optimiser.state[parameter] = {
                    "step": file.get_tensor(f"optimiser.step.{name}"),  # AdamW counts on the CPU
                    "exp_avg": _like(parameter, average),
                    "exp_avg_sq": _like(parameter, square),
                }
            return int((file.metadata() or {})["steps_done"])
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise RunError(
            f"checkpoint {path.name} cannot be read ({error}); expected one written by this run; "
            "remove it to train from the start"
        ) from error


def _like(parameter: torch.nn.Parameter, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.shape != parameter.shape:
        raise ValueError(f"a tensor is {tuple(tensor.shape)}, expected {tuple(parameter.shape)}")
    return tensor.to(parameter.device)
