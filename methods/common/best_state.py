"""The state of a fit that was best on validation points, for methods that fit one task at a time up to L = 2."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterable

from methods.common.held_out import HeldOut
from methods.common.latent_grid import LatentGrid
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Task

LOOK_EVERY = 10


class Best:
    """The state that was best on validation points so far, which the model of the task has.

    Between two looks of an ascent it has the present state instead, unless that was worse at the last look.

    Args:
        task: The fitting problem.

    Attributes:
        value: The mean log-likelihood of validation points there, in nats; minus infinity before the first look.
    """

    def __init__(self, task: Task):
        self.task, self.value, self.state = task, -math.inf, task.model.state_dict()
        self.over(None)

    def over(self, grid: LatentGrid | None) -> None:
        """From now on, take the likelihood over the codes of a grid; None for the codebook that all methods share."""
        task, size = self.task, "" if grid is None else f" over {len(grid.low)} codes"
        self.name = f"validation{size}"
        self.held_out = task.ledger.run(f"validation points{size}", HeldOut, task.validation, task.latent_dim, grid)

    def look(self, model: GenerativeModel) -> float:
        """Compare the present state of a model with the best one, and keep it if it is better; its log-likelihood."""
        value: float = self.task.ledger.run(self.name, self.held_out.log_likelihood, model)
        if value > self.value:
            self.value, self.state = value, copy.deepcopy(model.state_dict())
        self.task.model.load_state_dict(self.state)
        return value

    def watched(self, model: GenerativeModel, steps: Iterable[object]) -> Generator[None, None, float]:
        """Take the steps of a fit, and look at its model at the start, every 10 steps and at the end.

        Args:
            model: The model that the steps change; not that of the task.
            steps: Takes one step at a time.

        Yields:
            None after each step, and once more after a look at the end.

        Returns:
            The highest log-likelihood of validation points that was seen on the way, in nats.
        """
        last = highest = self.look(model)
        taken = 0
        for taken, _ in enumerate(steps, 1):
            if taken % LOOK_EVERY == 0:
                last = self.look(model)
                highest = max(highest, last)
            elif last == self.value:
                self.task.model.load_state_dict(model.state_dict())
            yield
        if taken % LOOK_EVERY:
            highest = max(highest, self.look(model))
            yield
        return highest
