"""Trains the side network on samples that are cached, epoch by epoch, from where the last checkpoint stands.

An epoch takes the samples that are there when it begins, each once, in an order drawn from seed and epoch alone: what
arrives later comes in with the next one, and neither the order of arrival nor a restart changes a number. Knows
samples and side networks; not how samples came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, final

import numpy as np
import torch
from torch.nn import functional

from airtune.errors import DataError, RunError
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.server.checkpoint import Epoch, load_checkpoint, save_checkpoint
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import Samples
from airtune.records import generator, seed_for

_LOSSES: Final[dict[str, Callable[..., torch.Tensor]]] = {"mse": functional.mse_loss, "huber": functional.huber_loss}
_MOMENTS: Final = ("step", "exp_avg", "exp_avg_sq")


class SampleSource(Protocol):
    """Where samples are: a cache, or arrays."""

    def ids(self) -> np.ndarray:
        """Of all that are there, uint64."""
        ...

    def rows(self, ids: np.ndarray) -> Samples:
        """Some of them, in this order."""
        ...


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How a side network starts and is trained.

    Args:
        seed: Of its first weights and of the order of samples.
        bottleneck: r.
        temperature: T of the gates.
        batch_size: Samples in a step.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW, on all weights.
        loss: `mse`, or `huber` (delta 1), mean over rows and outputs.
    """

    seed: int
    bottleneck: int
    temperature: float
    batch_size: int
    learning_rate: float
    weight_decay: float
    loss: str


@final
class Training:
    """A side network and its optimiser, as the last checkpoint has them.

    Args:
        folder: Of the checkpoint.
        identity: Gives the sizes.
        plan: How to train.

    Raises:
        RunError: the checkpoint is damaged, or of a network of another size.
    """

    def __init__(self, folder: Path, identity: Identity, plan: TrainingPlan) -> None:
        self._folder, self._identity, self._plan = folder, identity, plan
        self.history: tuple[Epoch, ...] = ()
        self._restore()

    def until(self, source: SampleSource, epoch: int) -> Iterator[Epoch]:
        """Train until that many epochs have been trained in all; each is on disk before it is yielded.

        Raises:
            DataError: nothing is there to train on, or a number is no longer finite. The last epoch stands.
            RunError: the checkpoint cannot be written. The same.
        """
        while len(self.history) < epoch:
            try:
                self._train_epoch(source)
            except RuntimeError as error:  # torch's: no memory, or a step beyond its numbers
                self._restore()
                at, line = len(self.history), str(error).partition("\n")[0]
                raise DataError(
                    f"epoch {at + 1} failed ({line}); epoch {at} is kept; free memory, or train with a lower learning "
                    "rate in a new store"
                ) from None
            except BaseException:
                self._restore()
                raise
            yield self.history[-1]

    def _train_epoch(self, source: SampleSource) -> None:
        number, total, rows = len(self.history) + 1, 0.0, 0
        ids = source.ids()
        if not len(ids):
            raise DataError(
                "nothing is cached to train on: no sample came, or all were forgotten or have expired; send samples "
                "(with server.again, those that were forgotten, too)"
            )
        ids = ids[generator(self._plan.seed, "pae epoch", number).permutation(len(ids))]
        for start in range(0, len(ids), self._plan.batch_size):
            samples = source.rows(ids[start : start + self._plan.batch_size])
            loss = self._step(samples)
            if not math.isfinite(loss):
                raise DataError(
                    f"loss is {loss} in epoch {number} over samples {_some(samples.ids.tolist())}; epoch {number - 1} "
                    "is kept; have them forgotten, or train with a lower learning rate in a new store"
                )
            total, rows = total + loss * len(samples.activations), rows + len(samples.activations)
        tensors = self._tensors()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            raise DataError(
                f"a weight is no longer finite after epoch {number}; epoch {number - 1} is kept; "
                "train with a lower learning rate in a new store"
            )
        history = (*self.history, Epoch(number, total / rows, len(ids), rows))
        save_checkpoint(self._folder, tensors, history)
        self.history = history

    def _step(self, samples: Samples) -> float:
        """Loss of one batch before the step that it makes; none where the loss is not finite."""
        predicted = self.network(torch.from_numpy(samples.activations))
        loss = _LOSSES[self._plan.loss](predicted, torch.from_numpy(samples.differences))
        if math.isfinite(loss.item()):
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        return loss.item()

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Weights, and what AdamW remembers of each that it has moved."""
        found = dict(self.network.state_dict())
        for name, parameter in self.network.named_parameters():
            for moment, value in self._optimizer.state.get(parameter, {}).items():
                found[f"{moment}/{name}"] = value
        return found

    def _restore(self) -> None:
        """Make network and optimiser what the checkpoint says, or new ones where there is none."""
        plan = self._plan
        draw = torch.Generator().manual_seed(seed_for(plan.seed, "pae side network"))
        self.network = SideNetwork(
            len(self._identity.layers),
            self._identity.width,
            plan.bottleneck,
            self._identity.outputs,
            temperature=plan.temperature,
            generator=draw,
        )
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
        saved = load_checkpoint(self._folder)
        if saved is None:
            return
        tensors, self.history = saved
        names = [name for name, _ in self.network.named_parameters()]
        state = {
            at: {moment: tensors[f"{moment}/{name}"] for moment in _MOMENTS}
            for at, name in enumerate(names)
            if f"step/{name}" in tensors
        }
        try:
            self.network.load_state_dict({name: tensors[name] for name in names if name in tensors})
            self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})
        except (RuntimeError, KeyError, ValueError) as error:
            line = str(error).splitlines()[-1].strip()
            raise RunError(f"checkpoint in {self._folder} is of another network ({line}); delete it") from None


def _some(ids: Iterable[int], most: int = 8) -> str:
    """At most so many ids, and how many more there are."""
    listed = [str(one) for one in ids]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
