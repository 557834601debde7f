"""Episode after episode: train, evaluate, keep a checkpoint, until the steps are used up or the early stop holds.

Knows agents, learners and evaluations; not how either learns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import numpy as np

from airtune.errors import AirtuneError
from airtune.methods.airllm.environment import Executed
from airtune.methods.airllm.paper.algorithm import Agent
from airtune.methods.airllm.paper.checkpoint import Kept, load_checkpoint, save_checkpoint
from airtune.methods.airllm.paper.stepping import Learner
from airtune.methods.airllm.paper.stopping import EarlyStop, Evaluation
from airtune.models import Items

CHECKPOINT_EVERY = 100
"""Least training steps between two checkpoints, which fall on the end of an episode."""


@final
class Course:
    """How training has gone so far. It hears every step and evaluates the model on calibration from time to time.

    Args:
        window: Steps over which the reward of an evaluation is averaged.
        every: Steps between two evaluations.
    """

    def __init__(
        self,
        learner: Learner,
        items: Items,
        *,
        window: int,
        every: int,
        on_evaluation: Callable[[Evaluation], None] = lambda evaluation: None,
    ) -> None:
        self._learner, self._items, self._every, self._on_evaluation = learner, items, every, on_evaluation
        self.steps = 0
        self.evaluations: list[Evaluation] = []
        self.rewards: deque[float] = deque(maxlen=window)
        """Of the last steps."""

    def hear(self, executed: Executed) -> None:
        """One step was trained; evaluate where one is due, under its ranks."""
        self.steps += 1
        self.rewards.append(executed.reward)
        if self.steps % self._every == 0:
            found = self._learner.score(self._items)
            reward = float(np.mean(self.rewards))
            self.evaluations.append(Evaluation(self.steps, found.loss, found.metric, reward, executed.ranks.total))
            self._on_evaluation(self.evaluations[-1])

    def as_dict(self) -> dict[str, Any]:
        evaluations = [asdict(evaluation) for evaluation in self.evaluations]
        return {"steps": self.steps, "rewards": list(self.rewards), "evaluations": evaluations}

    def resume(self, told: Mapping[str, Any]) -> None:
        """Go on from what `as_dict` told."""
        self.steps = int(told["steps"])
        self.rewards.extend(told["rewards"])
        self.evaluations = [Evaluation(**evaluation) for evaluation in told["evaluations"]]


def train(
    agent: Agent,
    learner: Learner,
    course: Course,
    rule: EarlyStop,
    *,
    steps: int,
    horizon: int,
    checkpoint: Path,
    on_resume: Callable[[int], None] = lambda steps: None,
    on_episode: Callable[[int, float, float], None] = lambda steps, reward, loss: None,
) -> None:
    """Train until `steps` are done or `rule` stops, at the end of the episode under way; go on at `checkpoint`.

    Nobody stops before what is trained is what would be sent (`Learner.may_end`).

    Args:
        course: Hears the steps of the environment that the agent acts on.
        on_episode: Hears the steps done, the episode's mean reward and the refiner's loss.

    Raises:
        AirtuneError: of its own kind, with the episode, where a loss, reward or network is no longer finite; the last
            checkpoint is kept.
    """
    kept: dict[str, Kept] = {**learner.kept, **agent.kept}
    saved = 0
    if checkpoint.exists():
        course.resume(load_checkpoint(checkpoint, kept))
        saved = course.steps
        on_resume(saved)
    learner.begin(course.steps)
    while course.steps < steps and not (learner.may_end and rule.stops(course.evaluations)):
        number = course.steps // horizon
        try:
            loss = agent.episode(number)
            on_episode(course.steps, float(np.mean(course.rewards)), loss)
            over = course.steps >= steps or (learner.may_end and rule.stops(course.evaluations))
            if over or course.steps - saved >= CHECKPOINT_EVERY:
                save_checkpoint(checkpoint, kept, course.as_dict())
                saved = course.steps
        except AirtuneError as error:
            left = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint was written yet"
            raise type(error)(
                f"episode {number} (steps {number * horizon} to {course.steps}): {error}; {left}"
            ) from error
