"""The state of a fit that was best on validation points, by which placements and iterates are compared."""

from __future__ import annotations

import copy
import math
from functools import partial

from methods.common.held_out import HeldOut
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Fitted, Task
from methods.mapa.assignment import Attempt


class Kept:
    """The state of a fit that was best on validation points so far.

    Args:
        task: The fitting problem.
        boxes: Number of boxes of the posterior for new x; 0 for that of training.

    Attributes:
        fitted: What is learned in the best state, with a posterior for new x; None before the first look.
        refined: From a model to what is learned there with it.
        model: A copy of its model.
        codes: The centres of the cells of its grid, (K, L). For the noise, as codes off the grid follow the data.
        value: The mean log-likelihood of validation points there, in nats.
    """

    def __init__(self, task: Task, boxes: int):
        self.ledger, self.held_out = task.ledger, HeldOut(task.validation, task.latent_dim)
        self.fitted: Fitted | None = None
        self.model, self.boxes = task.model, boxes
        self.value = -math.inf

    def look(self, attempt: Attempt) -> None:
        """Compare the present state of a fit with the best one, and keep it if it is better."""
        value = self.log_likelihood(attempt.model)
        attempt.value = max(attempt.value, value)
        if value > self.value or self.fitted is None:
            self.value, self.codes = value, attempt.placed.posterior.grid.codes
            self.model = self.ledger.run("keep", copy.deepcopy, attempt.model)
            self.refined = partial(attempt.refined, boxes=self.boxes)
            self.fitted = self.refined(self.model)

    def log_likelihood(self, model: GenerativeModel) -> float:
        """The mean log-likelihood of validation points under a model, in nats."""
        return self.ledger.run("validation", self.held_out.log_likelihood, model)
