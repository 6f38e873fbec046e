"""Scores by which hyperparameters are chosen: on validation data alone."""

from __future__ import annotations

import torch

from bench.metrics.evaluator import SAMPLED_POINTS
from bench.metrics.likelihood import by_quadrature, learned_likelihood
from bench.metrics.measurement import Measurement, mean
from datasets.base import DataSource, Split
from methods.contract.method import Fitted


class ValidationEvaluator:
    """Scores models by the likelihood of validation data; where that is sampled, of the first 500 of them."""

    reference = None

    def __init__(self, problem: DataSource, split: Split, seed: int, device: str = "cpu"):
        points = None if by_quadrature(problem.latent_dim, problem.data_dim) else SAMPLED_POINTS
        self.latent_dim, self.seed = problem.latent_dim, seed
        self.validation = split.validation[:points].to(device)

    @torch.no_grad()
    def evaluate_checkpoint(self, fitted: Fitted) -> list[Measurement]:
        """validation_ll: the mean log p(x) in nats; raises NotFiniteError if it is not a finite number."""
        found = learned_likelihood(fitted, self.validation, self.latent_dim, self.seed)
        return [mean("validation_ll", found.value, found.error, diagnostics=found.diagnostics).checked()]

    def evaluate_final(self, fitted: Fitted) -> list[Measurement]:  # noqa: ARG002
        """Nothing more."""
        return []
