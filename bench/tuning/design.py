"""Which hyperparameters are tried, and on which seeds: the defaults, and points of a scrambled Sobol set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.common.errors import UsageError
from bench.config import labels
from bench.config.schema import TuneSettings
from bench.registry.declared import search
from bench.study.plan import Pair, Plan, resolve

if TYPE_CHECKING:
    from bench.store.records import RunResult
    from methods.contract.search_space import Range

# Seeds of the Sobol sets, chosen by cost alone: the default budget then has room for four trials of iwae in each of the
# first four tunings, and after most other seeds for two.
DESIGN_SEED, NEXT_DESIGN = 11, 15
STAGE_SEEDS = 1000  # the first seeds of two stages are so far apart
FRESH_SEEDS = 10
SEARCH_BLOCK = 4  # seeds of a search are few and begin at a multiple of it; a larger program would fit more in vain
SEARCH, CONFIRMATION = "search", "confirmation"


@dataclass(frozen=True)
class Stage:
    """A stage of a tuning, which is a study of its own: no two stages share a seed.

    Args:
        tuning: The number of the tuning, from 1 on.
        name: SEARCH, where trials are compared, or CONFIRMATION, where the best one meets the defaults again.
    """

    tuning: int
    name: str

    @property
    def folder(self) -> Path:
        """Where it is kept, within the folder of the command, which is that of the first search."""
        of_tuning = Path() if self.tuning == 1 else Path(f"tuning-{self.tuning}")
        return of_tuning if self.name == SEARCH else of_tuning / self.name

    def of(self, plan: Plan, pairs: Iterable[Pair]) -> Plan:
        """The plan of this stage for some pairs of dataset and method, on its own seeds."""
        earlier = 2 * (self.tuning - 1) + (self.name == CONFIRMATION)
        first = plan.settings.first_seed + STAGE_SEEDS * earlier
        seeds = FRESH_SEEDS if self.name == CONFIRMATION else plan.settings.seeds
        block = plan.settings.block if self.name == CONFIRMATION else min(plan.settings.block, SEARCH_BLOCK)
        settings = msgspec.structs.replace(plan.settings, first_seed=first, seeds=seeds, block=block)
        return replace(plan, settings=settings).with_pairs(tuple(pairs))


@dataclass(frozen=True)
class Trial:
    """One choice of a method's hyperparameters.

    Args:
        method: The method's name.
        number: Its number; trial 0 is the defaults.
        label: The label of the method in its runs.
    """

    method: str
    number: int
    label: str


def searched(plan: Plan, method: str) -> dict[str, Range]:
    """The ranges of a method's hyperparameters but those that --set fixes."""
    fixed = plan.settings.set.get(method, {})
    return {name: each for name, each in search(plan.registry, method).items() if name not in fixed}


def trials(method: str, count: int, plan: Plan, tuning: int = 1) -> list[Trial]:
    """The first trials of a method: the defaults, then quasi-random search (Bousquet et al. 2017, arXiv 1706.03200).

    The points after the first are those of one Sobol set, so that more trials add to fewer. A point that repeats an
    earlier one, as happens where all ranges are choices, is no trial of its own.

    Args:
        method: The method's name.
        count: The most trials.
        plan: The plan of the tuning.
        tuning: The number of the tuning; each has points of its own.
    """
    from scipy.stats import qmc

    ranges, known = searched(plan, method), plan.registry
    sobol = qmc.Sobol(len(ranges), scramble=True, rng=DESIGN_SEED + NEXT_DESIGN * (tuning - 1))
    points = sobol.random_base2(max(count - 2, 0).bit_length())[: count - 1]
    found = [{name: ranges[name].at(u) for name, u in zip(ranges, point, strict=True)} for point in points]
    spelled = dict.fromkeys(known.method_label(labels.spell(method, values)) for values in ({}, *found))
    return [Trial(method, number, label) for number, label in enumerate(spelled)]


def planned(settings: TuneSettings) -> Plan:
    """The plan of the defaults of every method, scored on validation data alone.

    Raises:
        UsageError: For a method that declares no `search`, and for one with all of it fixed by --set.
    """
    plan = resolve(settings)
    for name in plan.methods:
        _check(name, plan)
    return plan


def with_given(plan: Plan, results: Iterable[RunResult]) -> Plan:
    """A plan with the hyperparameters that all methods of a folder were run with, those of earlier commands included.

    Args:
        plan: As `planned` gives it.
        results: All results of a search; the defaults of a method are run with what --set gives and no more.
    """
    given = {each.spec.method: dict(each.spec.parameters) for each in results if "[" not in each.spec.method}
    return replace(plan, settings=msgspec.structs.replace(plan.settings, set=given))


def settings_of(plan: Plan) -> TuneSettings:
    """The settings of a plan of `tune`."""
    if not isinstance(plan.settings, TuneSettings):
        raise TypeError(f"a plan of tune is needed, got one of {plan.settings.KIND}")
    return plan.settings


def _check(method: str, plan: Plan) -> None:
    ranges = search(plan.registry, method)
    if "[" in method:
        raise UsageError(f"tune takes methods by name, got {method!r}; fix a hyperparameter with --set")
    if not ranges:
        tunable = [name for name in plan.registry.methods if search(plan.registry, name)]
        raise UsageError(f"method {method!r} declares nothing to tune (available: {', '.join(tunable)})")
    if not searched(plan, method):
        raise UsageError(f"--set fixes all that could be tuned of {method!r}: {', '.join(ranges)}")
