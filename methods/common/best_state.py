"""The state of a fit that was best on validation points, for methods that fit one task at a time up to L = 2."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterable

from methods.common.held_out import CODES, HeldOut
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Task

LOOK_EVERY = 10


class Best:
    """The state that was best on validation points so far, which the model of the task has.

    Between two looks of an ascent it has the present state instead, unless that was worse at the last look.

    Args:
        task: The fitting problem.
        codes: Number of codes over which the likelihood is taken; by default those that all methods share.

    Attributes:
        value: The mean log-likelihood of validation points there, in nats; minus infinity before the first look.
    """

    def __init__(self, task: Task, codes: int = CODES):
        self.task, self.value, self.state = task, -math.inf, task.model.state_dict()
        over = "" if codes == CODES else f" over {codes} codes"
        self.name = f"validation{over}"
        self.held_out = task.ledger.run(f"validation points{over}", HeldOut, task.validation, task.latent_dim, codes)

    def look(self, model: GenerativeModel) -> float:
        """Compare the present state of a model with the best one, and keep it if it is better.

        Returns:
            Its mean log-likelihood of validation points, in nats; minus infinity if that is no number.
        """
        value: float = self.task.ledger.run(self.name, self.held_out.log_likelihood, model)
        if value > self.value:
            self.value, self.state = value, copy.deepcopy(model.state_dict())
        self.task.model.load_state_dict(self.state)
        return -math.inf if math.isnan(value) else value

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
