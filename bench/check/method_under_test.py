"""The method under check, and its fits, which are made as `bench.fit.runner` does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from bench.check.errors import SkippedError
from bench.check.fingerprint import fingerprint
from bench.check.short_fit import LONG, Limit, Trial
from bench.fit.flop_counter import CountingLedger
from bench.fit.runner import make_task
from bench.registry import registry
from bench.registry.registry import Registry
from bench.store.records import RunSpec
from datasets.base import Problem, Split, draw
from methods.baselines import Oracle, Untrained
from methods.contract.decoder import GaussianModel
from methods.contract.method import Fitted

DATASETS = ("circle", "s_curve", "linear_gaussian[latent_dim=3,data_dim=10]")
SIZE = 60
LONG_SIZE = 200
TEST_SIZE = 200


@dataclass(frozen=True)
class Result:
    """What a short fit gave: its yields, and its fingerprint."""

    yields: int
    numbers: list[Tensor]


@dataclass(frozen=True)
class LongFit:
    """A fit of hundreds of steps: its last yield, its model at the initial weights, and FLOPs at each yield."""

    fitted: Fitted
    begun: GaussianModel
    flops: list[float]


@dataclass(frozen=True)
class Subject:
    """A method by its label."""

    label: str
    method: Any
    known: Registry
    plugins: tuple[str, ...] = ()

    @classmethod
    def of(cls, label: str, plugins: tuple[str, ...] = ()) -> Subject:
        """The method of that label; raises UsageError where there is none, or for a plugin file that will not do."""
        known = registry.registry(plugins)
        return cls(label, known.make_method(label), known, plugins)

    @property
    def is_reference(self) -> bool:
        """Whether it is the ceiling or the floor of a comparison, which learn nothing."""
        return isinstance(self.method, Oracle | Untrained)

    @cached_property
    def home(self) -> str:
        """The dataset of the duties for which any will do: the first that the method takes."""
        return self.accepted(*DATASETS)[0]

    @cached_property
    def plain(self) -> Result:
        """A short fit at seed 0, nobody looking, with which others are compared."""
        trial = self.trial(self.home)
        fitted = trial.drive()
        return Result(len(trial.flops), fingerprint(fitted, trial.problem))

    @cached_property
    def long(self) -> LongFit:
        """A fit to the end, or for 10 s, on more data."""
        trial = self.trial(self.home, size=LONG_SIZE)
        return LongFit(trial.drive(LONG), trial.begun, trial.flops)

    @property
    def as_plain(self) -> Limit:
        """The limit at which a fit has come exactly as far as the plain one."""
        return Limit(self.plain.yields, float("inf"), float("inf"))

    def accepted(self, *datasets: str, size: int = SIZE) -> tuple[str, ...]:
        """Those of the datasets that the method does not decline; raises SkippedError if it declines them all."""
        reasons = {label: self.declines(label, size) for label in datasets}
        taken = tuple(label for label, reason in reasons.items() if reason is None)
        if not taken:
            raise SkippedError("; ".join(f"{label}: {reason}" for label, reason in reasons.items()))
        return taken

    def declines(self, dataset: str, size: int) -> str | None:
        """Why the method does not take so many data of a dataset, or None."""
        item = self.problem(dataset)
        return self.method.skip(item.latent_dim, item.data_dim, size)

    def problem(self, dataset: str) -> Problem:
        """The true model of a dataset."""
        found = self.known.make_problem(dataset, None)
        if not isinstance(found, Problem):
            raise TypeError(f"{dataset} has no true model")
        return found

    def trial(self, dataset: str, seed: int = 0, size: int = SIZE, noise: str = "known") -> Trial:
        """A fit, not yet begun, as a run would begin it."""
        problem = self.problem(dataset)
        split = draw(problem, seed, size, size, TEST_SIZE)
        spec = self.spec(dataset, seed, size, noise)
        return self.trial_on(problem, split, spec)

    def trial_on(self, problem: Problem, split: Split, spec: RunSpec) -> Trial:
        """A fit of given data, not yet begun; raises ValueError for data that no method is to be given."""
        ledger = CountingLedger()
        task = make_task(self.method, problem, split, spec, ledger)
        return Trial(self.method, problem, split, spec, task, ledger)

    def spec(self, dataset: str, seed: int = 0, size: int = SIZE, noise: str = "known") -> RunSpec:
        """The run that a fit is that of."""
        return RunSpec(
            dataset=dataset,
            method=self.label,
            seed=seed,
            size=size,
            validation_size=size,
            test_size=TEST_SIZE,
            noise=noise,
            plugins=self.plugins,
        )

    def changed(self, **parameters: object) -> Subject:
        """The same method with other hyperparameters."""
        return dataclasses.replace(self, method=dataclasses.replace(self.method, **parameters))
