"""Validation: the likelihood of points that are not fitted, by which placements and iterates are compared."""

from __future__ import annotations

import copy
import math
from functools import partial

import torch

from methods.common.mixture_likelihood import codebook
from methods.contract.decoder import GaussianModel
from methods.contract.method import Fitted, Task
from methods.mapa.assignment import Attempt

POINTS = 500
CODES = 2000


class Kept:
    """The state of a fit that was best on validation points so far.

    log p(x) of a state is that of a mixture over 2,000 codes, on at most 500 points. A regression loss would not do: it
    says nothing of the density between the training points.

    Args:
        task: The fitting problem.
        boxes: Number of boxes of the posterior for new x; 0 for that of training.

    Attributes:
        fitted: What is learned in the best state, with a posterior for new x; None before the first look.
        refined: From a model to what is learned there with it.
        model: A copy of its model.
        codes: The code of each share there.
        value: The mean log-likelihood of validation points there, in nats.
    """

    def __init__(self, task: Task, boxes: int):
        self.ledger, self.x = task.ledger, task.validation[:POINTS].double()
        grid = codebook(CODES, task.latent_dim)
        self.grid_codes, self.log_weights = grid.codes.to(task.validation), grid.mass.log().to(self.x)
        self.fitted: Fitted | None = None
        self.model, self.boxes = task.model, boxes
        self.codes = grid.codes
        self.value = -math.inf

    def look(self, attempt: Attempt) -> float:
        """Compare the present state of a fit with the best one, and keep it if it is better; its log-likelihood."""
        value = self.ledger.run("validation", self._log_likelihood, attempt.model)
        if value > self.value or self.fitted is None:
            self.value, self.codes = value, attempt.codes
            self.model = self.ledger.run("keep", copy.deepcopy, attempt.model)
            self.refined = partial(attempt.refined, boxes=self.boxes)
            self.fitted = self.refined(self.model)
        return value

    @torch.no_grad()
    def _log_likelihood(self, model: GaussianModel) -> float:
        """The mean of log sum_s w_s N(x; f(z_s), s2 I) over validation points, in nats."""
        noise = model.variance()
        means = model.decode(self.grid_codes).double()
        bias = self.log_weights - means.square().sum(1) / (2 * noise)
        affinity = torch.logsumexp(torch.addmm(bias, self.x / noise, means.T), 1)
        constant = self.x.shape[1] / 2 * math.log(2 * math.pi * noise)
        return float((affinity - self.x.square().sum(1) / (2 * noise)).mean()) - constant
