"""How long each method takes, for 25 steps and for a whole fit, with nothing counted."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from bench.fit.task import make_task
from bench.registry.registry import registry
from bench.store.records import RunSpec
from datasets.base import draw
from methods import BUILTIN
from methods.contract.method import Fitted, NullLedger, Task

METHODS = tuple(BUILTIN)
N_TRAIN = 500
STEPS = 500
FIRST = 5
TIMED = 25
BLOCK = 10


def task(name: str, seed: int) -> Task:
    """The task of the method on the circle."""
    method, problem = registry().make_method(name), registry().make_problem("circle", None)
    spec = RunSpec(dataset="circle", method=name, seed=seed, n_train=N_TRAIN, n_test=1)
    split = draw(problem, spec.seed, spec.n_train, spec.n_train, spec.n_test)
    return make_task(method, problem, split, spec, NullLedger())


def begin(name: str, **changed: Any) -> Iterator[Fitted]:
    """A fit of the method, with some of its hyperparameters changed, to the circle at seed 0."""
    return iter(replace(registry().make_method(name), **changed).fit(task(name, 0)))


def shortened(name: str) -> dict[str, int]:
    """What makes the method take at most 500 steps; empty where it does anyway."""
    return {"steps": STEPS} if getattr(registry().make_method(name), "steps", 0) > STEPS else {}


class Steps:
    """Steps with the default hyperparameters, 25 of them, after the first five, which set up."""

    params = METHODS
    param_names = ("method",)
    number = 1  # asv sets up anew for each call
    repeat = (2, 4, 2.0)
    rounds = 1
    warmup_time = 0.0

    def setup(self, name: str) -> None:
        self.fit = begin(name)
        if sum(1 for _ in islice(self.fit, FIRST)) < FIRST:
            raise NotImplementedError(f"{name} takes no steps")

    def time_25_steps(self, _: str) -> None:
        for _fitted in islice(self.fit, TIMED):
            pass


class StepsOfABlock(Steps):
    """Steps of ten seeds as one program, for methods that can: 25 of them, after the first five."""

    params = tuple(name for name in METHODS if registry().make_method(name).stacks)

    def setup(self, name: str) -> None:
        self.fit = iter(registry().make_method(name).fit_together([task(name, seed) for seed in range(BLOCK)]))
        for _ in range(FIRST):
            next(self.fit)


class Fit:
    """A whole fit with everything before and after its steps, of which there are at most 500.

    Of methods that fit one seed at a time, and of three others, whose steps are timed by themselves.
    """

    params = tuple(name for name in METHODS if name in ("vae", "iterative", "svi") or name not in StepsOfABlock.params)
    param_names = ("method",)
    number = 1
    repeat = (1, 3, 5.0)
    rounds = 1
    warmup_time = 0.0

    def setup(self, name: str) -> None:
        self.fit = begin(name, **shortened(name))

    def time_fit(self, _: str) -> None:
        for _fitted in self.fit:
            pass
