"""Scores on validation data, by which hyperparameters are chosen."""

from __future__ import annotations

import torch

from bench.metrics.evaluator import DRAWS, SAMPLED_POINTS, BaseEvaluator
from bench.metrics.likelihood import by_quadrature, learned_likelihood
from bench.metrics.measurement import Measurement, mean
from datasets.base import DataSource, Split
from methods.contract.method import Fitted


class ValidationEvaluator(BaseEvaluator):
    """Scores models by their likelihood on validation data; where that is estimated by sampling, on the first 500.

    Args:
        source: The data source.
        split: The data; the test set may be empty.
        seed: The seed of the evaluation's own random draws.
        device: Where the models are.
    """

    def __init__(self, source: DataSource, split: Split, seed: int, device: str = "cpu"):
        points = None if by_quadrature(source.latent_dim, source.data_dim) else SAMPLED_POINTS
        self.latent_dim, self.seed = source.latent_dim, seed
        self.validation = split.validation[:points].to(device)

    @torch.no_grad()
    def evaluate_checkpoint(self, fitted: Fitted, draws: int = DRAWS) -> list[Measurement]:  # noqa: ARG002
        """validation_ll, the mean of log p(x) in nats.

        Args:
            fitted: What the method has learned so far.
            draws: Not used, as no ELBO is measured.

        Raises:
            NotFiniteError: If it is not a finite number.
        """
        found = learned_likelihood(fitted, self.validation, self.latent_dim, self.seed)
        return [mean("validation_ll", found.value, found.error, diagnostics=found.diagnostics).checked()]
