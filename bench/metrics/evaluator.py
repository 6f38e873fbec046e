"""What is measured of a fitted model, and when."""

from __future__ import annotations

from functools import cached_property

import torch

from bench.metrics.ais import bidirectional
from bench.metrics.likelihood import (
    EXACT_DATA_DIM,
    Likelihood,
    TrueModel,
    by_quadrature,
    elbo,
    learned_likelihood,
    true_likelihood,
)
from bench.metrics.measurement import Measurement, mean
from bench.metrics.nuts import Reference, reference_posterior
from bench.metrics.posterior import (
    GAP_POINTS,
    gap_split,
    index_divergence,
    index_floor,
    signal_distance,
    signal_distance_from_draws,
)
from bench.metrics.posterior_plots import Row, SignalRow, index_posteriors, signal_posteriors
from bench.metrics.samples import sample_quality, sample_quality_on_data
from datasets.base import DataSource, Problem, Split
from methods.common.latent_grid import GridPosterior, exact_posterior
from methods.contract.method import Fitted

DRAWS = 16
SAMPLED_POINTS = 500
REFERENCE_POINTS = 32
FEWER_REFERENCE_POINTS = 8
FEWER_ANNEALED_POINTS = 30


class Evaluator:
    """Scores models on the test set of a source; draws from generators of its own, anew for each model.

    Above two latent or 100 data dimensions, where likelihoods are sampled, it takes the first 500 points of the test
    set. What is measured against the true model is left out for observations, which have none.
    """

    def __init__(self, source: DataSource, split: Split, seed: int, device: str = "cpu"):
        self.source, self.split, self.seed = source, split, seed
        self.problem = source if isinstance(source, Problem) else None
        self.exact = by_quadrature(source.latent_dim, source.data_dim)
        points = None if self.exact else SAMPLED_POINTS
        self.train, self.test = split.train.to(device), split.test[:points].to(device)
        self.truth = true_likelihood(self.problem, split.test[:points], seed) if self.problem else None

    @torch.no_grad()
    def evaluate_checkpoint(self, fitted: Fitted) -> list[Measurement]:
        """What is measured at every checkpoint: test_ll, elbo and inference_gap, and oracle_gap where there is a truth.

        Raises NotFiniteError if one of them is not a finite number.
        """
        learned = self._likelihood(fitted)
        bound = elbo(fitted, self.test, DRAWS, self.seed)
        count = {} if self.problem else {"test_points": float(len(self.test))}
        found = [
            mean("test_ll", learned.value, learned.error, diagnostics=learned.diagnostics | count),
            *self._oracle_gap(learned),
            mean("elbo", bound),
            mean("inference_gap", learned.value - bound, learned.error),
        ]
        return [each.checked() for each in found]

    @torch.no_grad()
    def evaluate_final(self, fitted: Fitted) -> list[Measurement]:
        """What is measured once a fit is over: how good its posterior and its samples are.

        Raises NotFiniteError if one of them is not a finite number.
        """
        found = [
            *gap_split(fitted, self.test[:GAP_POINTS], self._likelihood(fitted, GAP_POINTS), self.seed),
            *self._index_divergence(fitted),
            *self._signal_distance(fitted),
            *self._sample_quality(fitted),
            *self._annealing_gap(fitted),
        ]
        return [each.checked() for each in found]

    @torch.no_grad()
    def index_posteriors(self, name: str, fitted: Fitted) -> list[Row]:
        """The index posteriors of four training data, to look at, for L = 1."""
        if self.true_posterior is None or self.problem is None or self.split.codes is None:
            return []
        return index_posteriors(name, fitted, self.problem, self.true_posterior, self.train, self.split.codes)

    @torch.no_grad()
    def signal_posteriors(self, name: str, fitted: Fitted) -> list[SignalRow]:
        """The signal posteriors of four test data, to look at, where a grid holds the true one."""
        if self.true_posterior is None or self.problem is None:
            return []
        return signal_posteriors(name, fitted, self.problem, self.true_posterior, self.test, self.seed)

    @cached_property
    def true_posterior(self) -> GridPosterior | None:
        """p(z | x) of the true model, where a grid can hold it; else None."""
        if self.problem is None or not self.exact:
            return None
        return exact_posterior(TrueModel(self.problem), self.problem.latent_dim)

    @cached_property
    def reference(self) -> Reference | None:
        """Draws of p(z | x) of the true model for the first 32 test points, where no grid can hold it; else None.

        For the first 8 above 100 data dimensions.
        """
        if self.problem is None or self.exact:
            return None
        points = REFERENCE_POINTS if self.source.data_dim <= EXACT_DATA_DIM else FEWER_REFERENCE_POINTS
        return reference_posterior(self.problem, self.split.test[:points], self.seed)

    def _likelihood(self, fitted: Fitted, points: int | None = None) -> Likelihood:
        """log p(x) of the first so many test points under a learned model."""
        if self.truth is not None and isinstance(fitted.model, TrueModel):
            return Likelihood(self.truth.value[:points], self.truth.error[:points], self.truth.diagnostics)
        return learned_likelihood(fitted, self.test[:points], self.source.latent_dim, self.seed)

    def _oracle_gap(self, learned: Likelihood) -> list[Measurement]:
        if self.truth is None:
            return []
        return [mean("oracle_gap", self.truth.value - learned.value, self.truth.error + learned.error)]

    def _signal_distance(self, fitted: Fitted) -> list[Measurement]:
        if self.problem is None:
            return []
        if self.true_posterior is not None:
            return signal_distance(fitted, self.problem, self.true_posterior, self.test, self.seed)
        if self.reference is None:
            return []
        return signal_distance_from_draws(
            fitted, self.problem, self.reference, self.test[: self.reference.draws.shape[1]]
        )

    def _index_divergence(self, fitted: Fitted) -> list[Measurement]:
        """With the floor, which no method can be below on average, where the true posterior is known."""
        if self.problem is None or self.split.codes is None or fitted.log_index is None:
            return []
        found = index_divergence(fitted, self.problem, self.train, self.split.codes)
        if self.true_posterior is None:
            return found
        return found + index_floor(self.problem, self.true_posterior, self.split.train, self.split.codes)

    def _sample_quality(self, fitted: Fitted) -> list[Measurement]:
        if self.problem is None:
            return sample_quality_on_data(self.source, self.split, fitted.model, self.seed)
        return sample_quality(self.problem, fitted.model, self.seed)

    def _annealing_gap(self, fitted: Fitted) -> list[Measurement]:
        """How far annealing can be off, on data drawn from the learned model; nothing where it is not used."""
        if self.exact:
            return []
        points = GAP_POINTS if self.source.data_dim <= EXACT_DATA_DIM else FEWER_ANNEALED_POINTS
        generator = torch.Generator().manual_seed(self.seed)
        lower, upper = bidirectional(fitted.model, self.source.latent_dim, points, generator)
        return [mean("annealing_gap", upper - lower)]
