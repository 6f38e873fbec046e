"""What is measured of a fitted model at checkpoints and at the end of a fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from bench.metrics.ais import bidirectional
from bench.metrics.codes import code_use
from bench.metrics.images import ImageRow, images
from bench.metrics.likelihood import (
    EXACT_DATA_DIM,
    Likelihood,
    TrueModel,
    by_quadrature,
    density_grid,
    encoded,
    learned_likelihood,
    true_likelihood,
)
from bench.metrics.measurement import Measurement, mean, tails
from bench.metrics.nuts import NutsDraws, nuts_draws
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
from bench.metrics.shared import UNSHARED, Shared
from bench.metrics.table import tabulated
from datasets.base import DataSource, Observations, Problem, Split
from datasets.quadrature import normal_codebook
from methods.common.latent_grid import GridPosterior, exact_posterior
from methods.contract.method import DecoderModel, Fitted, likelihood_of
from methods.likelihoods import Gaussian

DRAWS = 16
LAST_DRAWS = 400
SAMPLED_POINTS = 500
NUTS_POINTS = 32
FEWER_NUTS_POINTS = 8
FEWER_ANNEALED_POINTS = 30
GRID_POINTS = 80
GRID_MARGIN = 0.05

PROBES = 256

DensityRow = tuple[str, float, float, float]


@dataclass(frozen=True)
class _Known:
    """A problem; two are equal if their models are."""

    content: bytes
    problem: Problem = field(compare=False)


@lru_cache(maxsize=4)
def _true_posterior(of: _Known) -> GridPosterior:
    return exact_posterior(TrueModel(of.problem), of.problem.latent_dim)


@torch.no_grad()
def _content(model: DecoderModel, latent_dim: int) -> bytes:
    """What tells a model from others: its noise and 256 decoded codes."""
    decoded, likelihood = model.decode(normal_codebook(PROBES, latent_dim)).double().cpu(), likelihood_of(model)
    noise = likelihood.dispersion if likelihood.scale is None else likelihood.scale
    return torch.cat([decoded.flatten(), torch.as_tensor(noise).double().flatten()]).numpy().tobytes()


class BaseEvaluator(ABC):
    """Scores fitted models on held-out data, with random generators of its own. Only checkpoints must be scored.

    Attributes:
        exact: Whether log p(x) is exact up to its standard error.
    """

    exact = False

    @abstractmethod
    def evaluate_checkpoint(self, fitted: Fitted, draws: int = DRAWS) -> list[Measurement]:
        """What is measured at every checkpoint.

        Args:
            fitted: What the method has learned so far.
            draws: Number of draws for each ELBO: 16, or 400 at the last checkpoint, as an ELBO can be heavy-tailed.

        Raises:
            NotFiniteError: If a value is not a finite number.
        """

    def evaluate_final(self, fitted: Fitted) -> list[Measurement]:  # noqa: ARG002
        """What else is measured at the end of a fit.

        Args:
            fitted: What the method has learned.

        Raises:
            NotFiniteError: If a value is not a finite number.
        """
        return []

    def densities(self, name: str, fitted: Fitted) -> list[DensityRow]:  # noqa: ARG002
        """The true and the learned density on a grid of the plane, for plots.

        Args:
            name: The name of the method.
            fitted: What the method has learned.

        Returns:
            Rows (`truth` or the method's name, x1, x2, log p(x) in nats); none unless D is 2.
        """
        return []

    def index_posteriors(self, name: str, fitted: Fitted) -> list[Row]:  # noqa: ARG002
        """Index posteriors of a few training points, for plots.

        Args:
            name: The name of the method.
            fitted: What the method has learned.
        """
        return []

    def signal_posteriors(self, name: str, fitted: Fitted) -> list[SignalRow]:  # noqa: ARG002
        """Signal posteriors of a few test points, for plots.

        Args:
            name: The name of the method.
            fitted: What the method has learned.
        """
        return []

    def images(self, name: str, fitted: Fitted) -> list[ImageRow]:  # noqa: ARG002
        """Test points, their reconstructions and samples of the model, for plots, if points are images.

        Args:
            name: The name of the method.
            fitted: What the method has learned.
        """
        return []

    @property
    def nuts(self) -> NutsDraws | None:
        """Draws of the true posterior that models are scored with; None if there are none."""
        return None


class Evaluator(BaseEvaluator):
    """Scores models on the test set.

    Above 2 latent or 100 data dimensions, likelihoods are estimated by sampling, on the first 500 test points only.
    For observations, whose true model is unknown, the metrics that need it are left out.

    Args:
        source: The data source.
        split: Its data.
        seed: The seed of the evaluation's own random draws, the same for every model.
        device: Where the models are.
        shared: Where what all runs of a dataset and seed are scored with is kept for other runs.
    """

    def __init__(
        self,
        source: DataSource,
        split: Split,
        seed: int,
        device: str = "cpu",
        shared: Shared = UNSHARED,
    ):
        self.source, self.split, self.seed, self.shared = source, split, seed, shared
        self.problem = source if isinstance(source, Problem) else None
        self.exact = by_quadrature(source.latent_dim, source.data_dim)
        points = None if self.exact else SAMPLED_POINTS
        self.train, self.test = split.train.to(device), split.test[:points].to(device)
        self.known: tuple[bytes, Likelihood] = b"", Likelihood(torch.empty(0), torch.empty(0), {})
        self.truth = self._true_likelihood(split.test[:points])

    @torch.no_grad()
    def evaluate_checkpoint(self, fitted: Fitted, draws: int = DRAWS) -> list[Measurement]:
        """test_ll, elbo and inference_gap, how q uses the codes, and oracle_gap if the true model is known.

        Args:
            fitted: What the method has learned so far.
            draws: Number of draws for each ELBO: 16, or 400 at the last checkpoint, as an ELBO can be heavy-tailed.

        Raises:
            NotFiniteError: If a value is not a finite number.
        """
        learned = self._likelihood(fitted)
        codes = encoded(self._quick(fitted), self.test, draws, self.seed)
        count = {} if self.problem else {"test_points": float(len(self.test))}
        found = [
            mean("test_ll", learned.value, learned.error, diagnostics=learned.diagnostics | count),
            *self._oracle_gap(learned),
            mean("elbo", codes.elbo),
            mean("inference_gap", learned.value - codes.elbo, learned.error),
            *code_use(fitted.posterior, self.test, codes),
        ]
        return [each.checked() for each in found]

    @torch.no_grad()
    def evaluate_final(self, fitted: Fitted) -> list[Measurement]:
        """How good the posterior and the samples are.

        Args:
            fitted: What the method has learned.

        Raises:
            NotFiniteError: If a value is not a finite number.
        """
        quick = self._quick(fitted)
        found = [
            *gap_split(quick, self.test[:GAP_POINTS], self._likelihood(fitted, GAP_POINTS), self.seed),
            *self._index_divergence(fitted),
            *self._signal_distance(quick),
            *self._sample_quality(quick),
            *self._annealing_gap(fitted),
        ]
        return [each.checked() for each in found]

    def densities(self, name: str, fitted: Fitted) -> list[DensityRow]:
        """The true density, if it is known, and the learned one on a grid around the test points, for plots.

        Args:
            name: The name of the method.
            fitted: What the method has learned.

        Returns:
            Rows (`truth` or the method's name, x1, x2, log p(x) in nats); none unless D is 2.
        """
        if self.source.data_dim != 2 or self.source.family != Gaussian.name:
            return []
        low, high = self.split.test.amin(0), self.split.test.amax(0)
        margin = GRID_MARGIN * (high - low)
        truth = [("truth", TrueModel(self.problem))] if self.problem else []
        return [
            (each, x1, x2, value)
            for each, model in (*truth, (name, fitted.model))
            for x1, x2, value in density_grid(model, self.source.latent_dim, low - margin, high + margin, GRID_POINTS)
        ]

    @torch.no_grad()
    def index_posteriors(self, name: str, fitted: Fitted) -> list[Row]:
        """Index posteriors of four training points, for plots, if L is 1 and a grid holds the true posterior.

        Args:
            name: The name of the method.
            fitted: What the method has learned.
        """
        if (
            self.source.latent_dim != 1
            or self.true_posterior is None
            or self.problem is None
            or self.split.codes is None
        ):
            return []
        return index_posteriors(name, fitted, self.problem, self.true_posterior, self.train, self.split.codes)

    @torch.no_grad()
    def signal_posteriors(self, name: str, fitted: Fitted) -> list[SignalRow]:
        """Signal posteriors of four test points, for plots, where a grid holds the true posterior.

        Args:
            name: The name of the method.
            fitted: What the method has learned.
        """
        if self.true_posterior is None or self.problem is None:
            return []
        return signal_posteriors(name, fitted, self.problem, self.true_posterior, self.test, self.seed)

    @torch.no_grad()
    def images(self, name: str, fitted: Fitted) -> list[ImageRow]:
        """Test points, their reconstructions and samples of the model, for plots, if points are images.

        Args:
            name: The name of the method.
            fitted: What the method has learned.
        """
        if not isinstance(self.source, Observations) or self.source.image_shape is None:
            return []
        return images(name, fitted, self.test, self.source.latent_dim, self.source.image_shape[1], self.seed)

    @cached_property
    def true_posterior(self) -> GridPosterior | None:
        """p(z | x) of the true model on a grid; None where a grid is too expensive or the true model is unknown."""
        if self.problem is None or not self.exact:
            return None
        return _true_posterior(_Known(_content(TrueModel(self.problem), self.problem.latent_dim), self.problem))

    @cached_property
    def nuts(self) -> NutsDraws | None:
        """Draws of the true p(z | x) for the first 32 test points, or 8 above 100 data dimensions.

        None where a grid holds the true posterior, and where the true model is unknown.
        """
        if self.problem is None or self.exact:
            return None
        points = NUTS_POINTS if self.source.data_dim <= EXACT_DATA_DIM else FEWER_NUTS_POINTS
        return nuts_draws(self.problem, self.split.test[:points], self.seed, self.shared)

    def _quick(self, fitted: Fitted) -> Fitted:
        """The same, with a table for a learned decoder of one latent dimension, which is asked for many codes."""
        if self.source.latent_dim != 1 or isinstance(fitted.model, TrueModel) or self.test.is_cuda:
            return fitted
        return replace(fitted, model=tabulated(fitted.model))

    def _true_likelihood(self, x: Tensor) -> Likelihood | None:
        """log p(x) under the true model; None where that is unknown."""
        problem = self.problem
        if problem is None:
            return None

        def compute() -> dict[str, Tensor]:
            found = true_likelihood(problem, x, self.seed)
            diagnostics = {name: torch.tensor(value).double() for name, value in found.diagnostics.items()}
            return {"value": found.value, "error": found.error} | diagnostics

        found = dict(self.shared.found(f"true likelihood {problem.name} {self.seed}", [x], compute))
        value, error = found.pop("value"), found.pop("error")
        return Likelihood(value, error, {name: float(each) for name, each in found.items()})

    def _likelihood(self, fitted: Fitted, points: int | None = None) -> Likelihood:
        """log p(x) of the first test points under a learned model."""
        if self.truth is not None and isinstance(fitted.model, TrueModel):
            return self.truth.first(points)
        content = _content(fitted.model, self.source.latent_dim)
        if content != self.known[0]:
            found = learned_likelihood(fitted, self.test[:points], self.source.latent_dim, self.seed)
            if points is not None:
                return found
            self.known = content, found
        return self.known[1].first(points)

    def _oracle_gap(self, learned: Likelihood) -> list[Measurement]:
        if self.truth is None:
            return []
        gap, error = self.truth.value - learned.value, self.truth.error + learned.error
        return [mean("oracle_gap", gap, error), *tails("oracle_gap", gap, error)]

    def _signal_distance(self, fitted: Fitted) -> list[Measurement]:
        if self.problem is None:
            return []
        if self.true_posterior is not None:
            return signal_distance(fitted, self.problem, self.true_posterior, self.test, self.seed, self.shared)
        if self.nuts is None:
            return []
        return signal_distance_from_draws(fitted, self.problem, self.nuts, self.test[: self.nuts.draws.shape[1]])

    def _index_divergence(self, fitted: Fitted) -> list[Measurement]:
        """With the floor, below which no method can be on average, where the true posterior is known."""
        if self.problem is None or self.split.codes is None or fitted.log_index is None:
            return []
        found = index_divergence(fitted, self.problem, self.train, self.split.codes)
        if self.true_posterior is None:
            return found
        return found + index_floor(self.problem, self.true_posterior, self.split.train, self.split.codes, self.shared)

    def _sample_quality(self, fitted: Fitted) -> list[Measurement]:
        if self.problem is None:
            return sample_quality_on_data(self.source, self.split, fitted.model, self.seed, self.shared)
        return sample_quality(self.problem, fitted.model, self.seed, self.shared)

    def _annealing_gap(self, fitted: Fitted) -> list[Measurement]:
        """The largest error of annealing, on draws of the learned model; nothing where annealing is not used."""
        if self.exact:
            return []
        points = GAP_POINTS if self.source.data_dim <= EXACT_DATA_DIM else FEWER_ANNEALED_POINTS
        generator = torch.Generator().manual_seed(self.seed)
        lower, upper = bidirectional(fitted.model, self.source.latent_dim, points, generator)
        diagnostics = {
            f"{name}_{direction}": float(value)
            for direction, bound in (("forward", lower), ("backward", upper))
            for name, value in (("ess_median", bound.ess.median()), ("khat", bound.khat[0]))
        }
        return [mean("annealing_gap", upper.value - lower.value, diagnostics=diagnostics)]
