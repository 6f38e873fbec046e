"""What is measured of a fitted model, and when."""

from __future__ import annotations

from functools import cached_property

import torch

from bench.metrics.annealed import bidirectional
from bench.metrics.likelihood import (
    EXACT_UP_TO,
    Likelihood,
    TrueModel,
    elbo,
    learned_likelihood,
    true_likelihood,
)
from bench.metrics.measurement import Measurement, mean
from bench.metrics.posterior import (
    GAP_POINTS,
    REFERENCE_POINTS,
    gap_split,
    index_divergence,
    signal_distance,
    signal_distance_from_draws,
)
from bench.metrics.reference import Reference, reference_posterior
from bench.metrics.samples import sample_quality
from datasets.base import Problem, Split
from methods.base import Fitted, Posterior
from methods.cells import exact_posterior

DRAWS = 16
SAMPLED_POINTS = 500


class Evaluator:
    """Scores models against one problem, on its test set; draws from generators of its own, anew for each model.

    Above two latent dimensions, where likelihoods are sampled, it takes the first 500 points of the test set.
    """

    def __init__(self, problem: Problem, split: Split, seed: int, device: str = "cpu"):
        self.problem, self.split, self.seed = problem, split, seed
        points = None if problem.latent_dim <= EXACT_UP_TO else SAMPLED_POINTS
        self.train, self.test = split.train.to(device), split.test[:points].to(device)
        self.truth = true_likelihood(problem, split.test[:points], seed)

    @torch.no_grad()
    def look(self, fitted: Fitted) -> list[Measurement]:
        """What is measured at every checkpoint: test_ll, oracle_gap, elbo and inference_gap.

        Raises NotFiniteError if one of them is not a finite number.
        """
        learned = self._likelihood(fitted)
        bound = elbo(fitted, self.test, DRAWS, self.seed)
        found = [
            mean("test_ll", learned.value, learned.error, diagnostics=learned.diagnostics),
            mean("oracle_gap", self.truth.value - learned.value, self.truth.error + learned.error),
            mean("elbo", bound),
            mean("inference_gap", learned.value - bound, learned.error),
        ]
        return [each.checked() for each in found]

    @torch.no_grad()
    def last_look(self, fitted: Fitted) -> list[Measurement]:
        """What is measured once a fit is over: how good its posterior and its samples are.

        Raises NotFiniteError if one of them is not a finite number.
        """
        found = [
            *gap_split(fitted, self.test[:GAP_POINTS], self._likelihood(fitted, GAP_POINTS), self.seed),
            *index_divergence(fitted, self.problem, self.train, self.split.codes),
            *self._signal_distance(fitted),
            *sample_quality(self.problem, fitted.model, self.seed),
            *self._annealing_gap(fitted),
        ]
        return [each.checked() for each in found]

    @cached_property
    def true_posterior(self) -> Posterior:
        """p(z | x) of the true model, for L <= 2."""
        return exact_posterior(TrueModel(self.problem), self.problem.latent_dim)

    @cached_property
    def reference(self) -> Reference | None:
        """Draws of p(z | x) of the true model for the first 32 test points, where no grid can hold it; else None."""
        if self.problem.latent_dim <= EXACT_UP_TO:
            return None
        return reference_posterior(self.problem, self.split.test[:REFERENCE_POINTS], self.seed)

    def _likelihood(self, fitted: Fitted, points: int | None = None) -> Likelihood:
        """log p(x) of the first so many test points under a learned model."""
        if isinstance(fitted.model, TrueModel):
            return Likelihood(self.truth.value[:points], self.truth.error[:points], self.truth.diagnostics)
        return learned_likelihood(fitted, self.test[:points], self.problem.latent_dim, self.seed)

    def _signal_distance(self, fitted: Fitted) -> list[Measurement]:
        if self.reference is None:
            return signal_distance(fitted, self.problem, self.true_posterior, self.test, self.seed)
        return signal_distance_from_draws(fitted, self.problem, self.reference, self.test[:REFERENCE_POINTS])

    def _annealing_gap(self, fitted: Fitted) -> list[Measurement]:
        """How far annealing can be off, on data drawn from the learned model; nothing where it is not used."""
        if self.problem.latent_dim <= EXACT_UP_TO:
            return []
        generator = torch.Generator().manual_seed(self.seed)
        lower, upper = bidirectional(fitted.model, self.problem.latent_dim, GAP_POINTS, generator)
        return [mean("annealing_gap", upper - lower)]
