"""The method under test and its fits, which get the same data, weights and random numbers as a run of a study."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from bench.check.errors import SkippedError
from bench.check.fingerprint import fingerprint
from bench.check.short_fit import LONG, Limit, ShortFit
from bench.config.schema import Noise
from bench.fit.flop_counter import CountingLedger
from bench.fit.task import make_task
from bench.registry import registry
from bench.registry.registry import Registry
from bench.store.records import RunSpec
from bench.store.schema import LEARNS
from datasets.base import Problem, Split, draw
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Fitted, Method

DATASETS = ("circle", "s_curve", "linear_gaussian[latent_dim=3,data_dim=10]")
N_TRAIN = 60
LONG_N_TRAIN = 200
N_TEST = 200


@dataclass(frozen=True)
class ShortResult:
    """The result of a short fit.

    Args:
        yields: Number of yields.
        numbers: Fingerprint of the last yield.
    """

    yields: int
    numbers: list[Tensor]


@dataclass(frozen=True)
class LongResult:
    """The result of a fit with hundreds of steps.

    Args:
        fitted: The last yield.
        initial_model: The generative model at its initial weights.
        flops: FLOPs spent up to each yield.
    """

    fitted: Fitted
    initial_model: GenerativeModel
    flops: list[float]


@dataclass(frozen=True)
class MethodUnderTest:
    """A method and the short fits that checks share.

    Args:
        label: The label of the method.
        method: The method.
        registry: Where datasets are looked up.
        plugins: Paths of the plugin files that a run of the method needs.
    """

    label: str
    method: Method
    registry: Registry
    plugins: tuple[str, ...] = ()

    @classmethod
    def of(cls, label: str, plugins: tuple[str, ...] = ()) -> MethodUnderTest:
        """The method with a given label.

        Args:
            label: The name of the method, with hyperparameters in brackets if they differ from the defaults.
            plugins: Paths of plugin files.

        Raises:
            UsageError: For an unknown method or hyperparameter, and for a plugin file that cannot be loaded.
        """
        found = registry.registry(plugins)
        return cls(label, found.make_method(label), found, plugins)

    @property
    def learns_nothing(self) -> bool:
        """Whether the method is the ceiling or the floor of comparisons and learns nothing."""
        return self.method.role not in LEARNS

    @cached_property
    def default_dataset(self) -> str:
        """The dataset of checks that need only one: the first of `DATASETS` that the method accepts."""
        return self.accepted(*DATASETS)[0]

    @cached_property
    def short(self) -> ShortResult:
        """A short fit at seed 0 without evaluation, with which other fits are compared."""
        fit = self.fit(self.default_dataset)
        fitted = fit.run()
        return ShortResult(len(fit.flops), fingerprint(fitted, fit.problem))

    @cached_property
    def long(self) -> LongResult:
        """A fit to the end or up to the limit `LONG`, with more training points."""
        fit = self.fit(self.default_dataset, n_train=LONG_N_TRAIN)
        return LongResult(fit.run(LONG), fit.initial_model, fit.flops)

    @property
    def as_short(self) -> Limit:
        """The limit at which a fit has as many yields as `short`."""
        return Limit(self.short.yields, float("inf"), float("inf"))

    def accepted(self, *datasets: str, n_train: int = N_TRAIN) -> tuple[str, ...]:
        """The datasets that the method accepts.

        Args:
            *datasets: Labels of datasets.
            n_train: Number of training points.

        Raises:
            SkippedError: If the method accepts none of them.
        """
        reasons = {label: self.declines(label, n_train) for label in datasets}
        accepted = tuple(label for label, reason in reasons.items() if reason is None)
        if not accepted:
            raise SkippedError("; ".join(f"{label}: {reason}" for label, reason in reasons.items()))
        return accepted

    def declines(self, dataset: str, n_train: int) -> str | None:
        """The reason why the method does not accept so many training points of a dataset, or None."""
        problem = self.problem(dataset)
        reason = self.method.skip_likelihood(problem.family, problem.latent_dim)
        return reason or self.method.skip(problem.latent_dim, problem.data_dim, n_train)

    def problem(self, dataset: str) -> Problem:
        """The true model of a dataset.

        Raises:
            TypeError: If the dataset has none.
        """
        found = self.registry.make_problem(dataset, None)
        if not isinstance(found, Problem):
            raise TypeError(f"{dataset} is a {type(found).__name__}; expected a Problem, which has a true model")
        return found

    def fit(self, dataset: str, seed: int = 0, n_train: int = N_TRAIN, observation_noise: Noise = "known") -> ShortFit:
        """A fit that has not started yet, of the data that a run would use.

        Args:
            dataset: The label of the dataset.
            seed: The seed of data, initial weights and training.
            n_train: Number of training points, and of validation points.
            observation_noise: "known", "learned" if the noise variance is a parameter, or "per-coordinate".
        """
        problem = self.problem(dataset)
        split = draw(problem, seed, n_train, n_train, N_TEST)
        return self.fit_of(problem, split, self.spec(dataset, seed, n_train, observation_noise))

    def fit_of(self, problem: Problem, split: Split, spec: RunSpec) -> ShortFit:
        """A fit of given data that has not started yet.

        Args:
            problem: The true model.
            split: The data.
            spec: The run that the fit corresponds to.

        Raises:
            ValueError: For data that the harness gives to no method, such as nan.
        """
        ledger = CountingLedger()
        task = make_task(self.method, problem, split, spec, ledger)
        return ShortFit(self.method, problem, split, spec, task, ledger)

    def spec(self, dataset: str, seed: int = 0, n_train: int = N_TRAIN, observation_noise: Noise = "known") -> RunSpec:
        """The run that a fit with these arguments corresponds to; see `fit`."""
        return RunSpec(
            dataset=dataset,
            method=self.label,
            seed=seed,
            n_train=n_train,
            n_test=N_TEST,
            observation_noise=observation_noise,
            plugins=self.plugins,
        )

    def with_hyperparameters(self, **values: object) -> MethodUnderTest:
        """The same method with some hyperparameters changed."""
        method = dataclasses.replace(self.method, **values)  # type: ignore[type-var]
        return dataclasses.replace(self, method=method)
