"""Scores by which hyperparameters are chosen: on validation data alone, with the test set never drawn."""

from __future__ import annotations

import torch

from bench.metrics.evaluator import SAMPLED_POINTS
from bench.metrics.likelihood import by_quadrature, learned_likelihood
from bench.metrics.measurement import Measurement, mean
from datasets.base import DataSource, Observations, Split, draw, stream
from methods.base import Fitted


def split_without_test(problem: DataSource, seed: int, train: int, validation: int) -> Split:
    """The training and validation sets that `datasets.base.draw` gives, with no test set: (0, D)."""
    if isinstance(problem, Observations):
        return draw(problem, seed, train, validation, 0)
    codes, first = problem.sample_joint(train, stream(problem.name, seed, "train"))
    second = problem.sample(validation, stream(problem.name, seed, "validation"))
    return Split(first, second, second[:0], codes)


class ValidationEvaluator:
    """Scores models by the likelihood of validation data; where that is sampled, of the first 500 of them."""

    reference = None

    def __init__(self, problem: DataSource, split: Split, seed: int, device: str = "cpu"):
        points = None if by_quadrature(problem.latent_dim, problem.data_dim) else SAMPLED_POINTS
        self.latent_dim, self.seed = problem.latent_dim, seed
        self.validation = split.validation[:points].to(device)

    @torch.no_grad()
    def look(self, fitted: Fitted) -> list[Measurement]:
        """validation_ll: the mean log p(x) in nats; raises NotFiniteError if it is not a finite number."""
        found = learned_likelihood(fitted, self.validation, self.latent_dim, self.seed)
        return [mean("validation_ll", found.value, found.error, diagnostics=found.diagnostics).checked()]

    def last_look(self, fitted: Fitted) -> list[Measurement]:  # noqa: ARG002
        """Nothing more."""
        return []
