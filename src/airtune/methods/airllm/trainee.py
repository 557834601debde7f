"""The cloud's side of fine-tuning: base model, nested adapter and data; train once, then try any ranks.

Knows losses; not bits, links or policies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from airtune.adapters import Adapter, RankSampler, RankVector
from airtune.adapters.gains import losses_worth, measure_gains
from airtune.codec import Decoded, Factors
from airtune.errors import ModelError, RunError
from airtune.methods.airllm.allocation import Trial
from airtune.methods.airllm.checkpoint import restore_steps, save_steps
from airtune.models import FitPlan, Items, Score, Step, fit, new_optimiser, score
from airtune.records import Measurements, generator
from airtune.workloads.parts import Parts

CHECKPOINT_EVERY = 100
"""Training steps between two checkpoints."""


class Trainee:
    """A base model under fine-tuning.

    Args:
        adapter: Attached to the model it adapts.
        parts: What to train and measure on.
        measurements: Remembers every loss measured, so that a resumed run measures none twice.
    """

    def __init__(self, adapter: Adapter, parts: Parts, measurements: Measurements) -> None:
        self.adapter, self.parts = adapter, parts
        self._measurements = measurements
        self.identity = ""
        """SHA-256 of the trained adapter and the calibration items, once trained: what measured losses are of."""
        self.factors: dict[str, Factors] = {}
        self._trained: tuple[Mapping[str, Factors], Mapping[str, np.ndarray]] = {}, {}
        """P, lam, Q of every site, all directions, once trained."""
        self.dense: dict[str, np.ndarray] = {}
        """The trained head, once trained."""

    def train(
        self,
        plan: FitPlan,
        sampler: RankSampler,
        *,
        orthogonality: float,
        checkpoint: Path,
        on_step: Callable[[Step], None] = lambda step: None,
        on_resume: Callable[[int], None] = lambda steps_done: None,
    ) -> None:
        """Train the nested adapter (Eqs. 2-3), picking up at `checkpoint` where there is one.

        Each step draws its rank vectors from (seed, step) alone, so a resumed run takes the very steps it had left.
        """
        plan = replace(plan, copies=sampler.weights(self.adapter.caps))

        def draw_ranks(step: int, items: int) -> None:
            drawn = sampler.draw(self.adapter.caps, items, generator(plan.seed, "nested-ranks", step))
            if sampler.per_item or sampler.prefixes > 1:
                self.adapter.set_item_ranks(drawn)
            else:
                self.adapter.set_ranks(drawn[0])

        penalty = (lambda: orthogonality * self.adapter.orthogonality()) if orthogonality else None
        rng = generator(plan.seed, "batches")
        self._fit(plan, rng, checkpoint, on_step, on_resume, before_step=draw_ranks, penalty=penalty)
        self.hold(self.adapter.factors(), self.adapter.dense())  # unit rows, norms in lam: measured as it is sent

    @contextmanager
    def specialised(self, ranks: RankVector, plan: FitPlan, checkpoint: Path) -> Iterator[None]:
        """Train the trained adapter on at these ranks alone; inside the block that is held, cut to them, and not after.

        Args:
            checkpoint: Of this training, picked up where there is one.
        """
        before = self.factors, self.dense, self._trained, self.identity
        try:
            self.adapter.load(*self._trained)
            self.adapter.set_ranks(ranks)
            self._fit(plan, generator(plan.seed, "specialising"), checkpoint)
            found = zip(self.adapter.factors().items(), ranks.ranks, strict=True)
            self.hold({path: site.prefix(rank) for (path, site), rank in found}, self.adapter.dense())
            yield
        finally:
            self.factors, self.dense, self._trained, self.identity = before
            self.adapter.load(self.factors, self.dense)

    def _fit(
        self,
        plan: FitPlan,
        rng: np.random.Generator,
        checkpoint: Path,
        on_step: Callable[[Step], None] = lambda step: None,
        on_resume: Callable[[int], None] = lambda steps_done: None,
        **more: Any,
    ) -> None:
        parameters = self.adapter.parameters()
        optimiser = new_optimiser(list(parameters.values()), plan)
        start = restore_steps(checkpoint, parameters, optimiser) if checkpoint.exists() else 0
        if start:
            on_resume(start)
        model, train = self.adapter.base.model, self.parts.train
        for step in fit(model, parameters, train, plan, rng=rng, optimiser=optimiser, start=start, **more):
            done = step.index + 1
            if done % CHECKPOINT_EVERY == 0 or done == plan.steps:
                save_steps(checkpoint, parameters, optimiser, done)
            on_step(step)

    def hold(self, factors: Mapping[str, Factors], dense: Mapping[str, np.ndarray], *, rounded: bool = False) -> None:
        """Take these factors and this head for the trained ones from now on; a site's rank is at most its cap.

        Args:
            rounded: They are those held before, rounded for sending: `score_trained` stays with those before.
        """
        self.factors, self.dense = dict(factors), dict(dense)
        if not rounded:
            self._trained = self.factors, self.dense
        self.identity = self._identity()
        self.adapter.load(self.factors, self.dense)

    @property
    def measured(self) -> int:
        """Losses measured for this run, before an interruption too; a gradient is the work of three."""
        if self._gains_asked not in self._measurements:
            return len(self._measurements)
        return len(self._measurements) - 1 + losses_worth(self.adapter.caps)

    def _identity(self) -> str:
        digest = hashlib.sha256(self.parts.calibration.sha256.encode())
        for site in self.factors.values():
            for values in (site.p, site.lam, site.q):
                digest.update(np.ascontiguousarray(values).data)
        for value in self.dense.values():
            digest.update(value.data)
        return digest.hexdigest()

    def try_ranks(self, ranks: RankVector) -> Trial:
        """U(r): the calibration loss under these ranks, dropout off, the same items every time.

        Raises:
            ModelError: the loss is not finite.
            RunError: a loss remembered from before an interruption is no number.
        """
        question = {"of": self.identity, "ranks": list(ranks.ranks)}
        loss = self._measurements.measure(question, lambda: self._measure(ranks))
        if isinstance(loss, bool) or not isinstance(loss, int | float):
            raise RunError(
                f"measurements.jsonl holds the loss {loss!r:.40} of ranks {list(ranks.ranks)[:8]}...; "
                "expected a finite number; remove that line and resume"
            )
        return Trial(ranks, float(loss))

    def gains(self) -> list[np.ndarray]:
        """What each direction is held to lower the calibration loss by (`measure_gains`), remembered as losses are.

        Raises:
            ModelError: a gradient is not finite.
            RunError: what is remembered from before an interruption is not gains.
        """
        found = self._measurements.measure(
            self._gains_asked, lambda: [gain.tolist() for gain in measure_gains(self.adapter, self.parts.calibration)]
        )
        try:
            gains = [np.array(gain, np.float64).reshape(cap) for gain, cap in zip(found, self._caps, strict=True)]
        except (TypeError, ValueError):
            gains = []
        if len(gains) != len(self._caps) or not all(np.isfinite(gain).all() for gain in gains):
            raise RunError("measurements.jsonl holds gains that are not of these sites; remove that line and resume")
        return gains

    @property
    def _gains_asked(self) -> dict[str, str]:
        return {"of": self.identity, "what": "gains"}

    @property
    def _caps(self) -> tuple[int, ...]:
        return self.adapter.caps.ranks

    def _measure(self, ranks: RankVector) -> float:
        loss = self.score(ranks, self.parts.calibration, keep_logits=0).loss
        if not math.isfinite(loss):
            raise ModelError(
                f"the calibration loss under ranks {list(ranks.ranks)[:8]}... is {loss}; expected a finite number; "
                "train with a lower learning rate"
            )
        return loss

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Lend the adapter out: whatever is loaded into it inside the block, the trained factors are back after it."""
        try:
            yield
        finally:
            self.adapter.load(self.factors, self.dense)

    def score_trained(self, ranks: RankVector, items: Items) -> Score:
        """Score the trained adapter, unquantised, cut to these ranks; no logits are kept."""
        factors, dense = self._trained
        with self.borrowed():
            self.adapter.load(factors, dense)
            return self.score(ranks, items, keep_logits=0)

    def score_decoded(self, decoded: Decoded, *, keep_logits: int) -> Score:
        """Score what a receiver holds on test, as it would."""
        with self.borrowed():
            self.adapter.load(decoded.factors, decoded.dense)
            return score(self.adapter.base.model, self.parts.test, keep_logits=keep_logits)

    def score(self, ranks: RankVector, items: Items, *, keep_logits: int | None = None) -> Score:
        """Score the adapter that is held, cut to these ranks; `keep_logits` as in `models.score`."""
        self.adapter.set_ranks(ranks)
        return score(self.adapter.base.model, items, keep_logits=keep_logits)
