"""Which hyperparameters are tried: the defaults, and points of a scrambled Sobol set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.common.errors import UsageError
from bench.config import labels
from bench.config.schema import TuneSettings
from bench.registry.registry import Registry
from bench.study.plan import Pair, Plan, resolve

DESIGN_SEED = 1  # chosen by cost alone: after 0, iwae's first point costs five fits at its defaults


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


def trials(method: str, count: int, known: Registry) -> list[Trial]:
    """The first trials of a method: the defaults, then quasi-random search (Bousquet et al. 2017, arXiv 1706.03200).

    The points after the first are those of one Sobol set, so that more trials add to fewer. A point that repeats an
    earlier one, as happens where all ranges are choices, is no trial of its own.

    Args:
        method: The method's name.
        count: The most trials.
        known: What can be compared.
    """
    from scipy.stats import qmc

    ranges = known.search(method)
    sobol = qmc.Sobol(len(ranges), scramble=True, rng=DESIGN_SEED)
    points = sobol.random_base2(max(count - 2, 0).bit_length())[: count - 1]
    found = [{name: ranges[name].at(u) for name, u in zip(ranges, point, strict=True)} for point in points]
    spelled = dict.fromkeys(known.method_label(labels.spell(method, values)) for values in ({}, *found))
    return [Trial(method, number, label) for number, label in enumerate(spelled)]


def planned(settings: TuneSettings) -> Plan:
    """The plan of the defaults of every method, scored on validation data alone.

    Raises:
        UsageError: For a method that declares no `search`, and for hyperparameters that are both given and searched.
    """
    plan = resolve(settings)
    for name in plan.methods:
        _check(name, plan)
    return plan


def with_trials(plan: Plan, wanted: Mapping[Pair, int]) -> Plan:
    """The plan of the first trials of methods on datasets.

    Args:
        plan: As `planned` gives it.
        wanted: How many trials of each method on each dataset.
    """
    pairs = [
        (dataset, trial.label)
        for (dataset, method), count in wanted.items()
        for trial in trials(method, settings_of(plan).trials, plan.registry)[:count]
    ]
    return plan.with_pairs(tuple(pairs))


def settings_of(plan: Plan) -> TuneSettings:
    """The settings of a plan of `tune`."""
    if not isinstance(plan.settings, TuneSettings):
        raise TypeError(f"a plan of tune is needed, got one of {plan.settings.KIND}")
    return plan.settings


def _check(method: str, plan: Plan) -> None:
    ranges = plan.registry.search(method)
    if "[" in method:
        raise UsageError(f"tune takes methods by name, got {method!r}; fix a hyperparameter with --set")
    if not ranges:
        tunable = [name for name in plan.registry.methods if plan.registry.search(name)]
        raise UsageError(f"method {method!r} declares nothing to tune (available: {', '.join(tunable)})")
    for name in plan.settings.set.get(method, {}):
        if name in ranges:
            raise UsageError(f"--set {method}.{name}: tune searches it; it cannot be given as well")
