"""A trained baseline in a file, so that no training that ended is ever repeated.

Knows factors, head and losses; not what they were trained on: whoever names the file does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from airtune.codec import Factors
from airtune.methods.airllm.baselines.training import TrainedAdapter
from airtune.records import write_bytes

_PARTS = ("p", "lam", "q")


def kept(path: Path, train: Callable[[], TrainedAdapter]) -> TrainedAdapter:
    """The adapter in a file; where there is none, or a damaged one, it is trained and put there."""
    try:
        return load_adapter(path)
    except (OSError, SafetensorError, KeyError, ValueError):
        trained = train()
        save_adapter(path, trained)
        return trained


def save_adapter(path: Path, trained: TrainedAdapter) -> None:
    """Write factors (float32), head and losses of an adapter."""
    tensors = {
        f"{name}.{index:04d}.{site}": np.ascontiguousarray(getattr(factors, name), np.float32)
        for index, (site, factors) in enumerate(trained.factors.items())
        for name in _PARTS
    }
    tensors |= {f"dense.{name}": np.ascontiguousarray(value) for name, value in trained.dense.items()}
    write_bytes(path, save({**tensors, "losses": np.array(trained.losses)}))


def load_adapter(path: Path) -> TrainedAdapter:
    """Read what `save_adapter` wrote. Raises `OSError`, `SafetensorError`, `KeyError` or `ValueError`."""
    tensors = load(path.read_bytes())
    sites = sorted(name.removeprefix("lam.") for name in tensors if name.startswith("lam."))  # in the order written
    factors = {site.split(".", 1)[1]: Factors(*(tensors[f"{name}.{site}"] for name in _PARTS)) for site in sites}
    dense = {name.removeprefix("dense."): value for name, value in tensors.items() if name.startswith("dense.")}
    return TrainedAdapter(factors, dense, tuple(tensors["losses"].tolist()))
