"""Which hyperparameters are tried: the defaults, and points of a scrambled Sobol set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bench.common.errors import UsageError
from bench.registry import labels
from bench.registry.registry import Registry
from bench.study import execute
from bench.study.folder import union

Pair = tuple[str, str]  # dataset and method
FIRST_SEED = 1000
DESIGN_SEED = 1  # chosen by cost alone: after 0, iwae's first point costs five fits at its defaults


@dataclass(frozen=True)
class Trial:
    """One setting of a method's hyperparameters: trial 0 is the defaults. label: by which its runs are told."""

    method: str
    number: int
    label: str


def trials(method: str, count: int, known: Registry) -> list[Trial]:
    """The first so many trials of a method: the defaults, then quasi-random search (Bousquet et al. 2017, 1706.03200).

    The points after the first are those of one Sobol set, so that more trials add to fewer. A point that repeats an
    earlier one, as happens where all ranges are choices, is no trial of its own.
    """
    from scipy.stats import qmc

    ranges = known.search(method)
    sobol = qmc.Sobol(len(ranges), scramble=True, rng=DESIGN_SEED)
    points = sobol.random_base2(max(count - 2, 0).bit_length())[: count - 1]
    found = [{name: ranges[name].at(u) for name, u in zip(ranges, point, strict=True)} for point in points]
    spelled = dict.fromkeys(known.method_label(labels.spell(method, values)) for values in ({}, *found))
    return [Trial(method, number, label) for number, label in enumerate(spelled)]


def planned(settings: execute.Settings, known: Registry) -> execute.Settings:
    """The conditions under which the methods of other settings are tuned: scored on validation data alone.

    Raises UsageError for a method that declares no `search`, and for parameters given of those that are searched.
    """
    settings = execute.checked(settings, known)
    for name in settings.methods:
        _check(name, settings, known)
    return replace(settings, first_seed=FIRST_SEED, test_size=0, kind="tune", scored_on="validation")


def with_trials(settings: execute.Settings, wanted: Mapping[Pair, int], known: Registry) -> execute.Settings:
    """The study of the first so many trials of methods on datasets, under settings as `planned` gives them."""
    pairs = [
        (dataset, trial.label)
        for (dataset, method), count in wanted.items()
        for trial in trials(method, settings.trials or 1, known)[:count]
    ]
    datasets, methods = zip(*pairs, strict=True)
    return replace(
        settings,
        datasets=union(settings.datasets, datasets),
        methods=union(settings.methods, methods),
        pairs=tuple(pairs),
    )


def _check(method: str, settings: execute.Settings, known: Registry) -> None:
    ranges = known.search(method)
    if "[" in method:
        raise UsageError(f"tune takes methods by name, got {method!r}; fix a hyperparameter with --set")
    if not ranges:
        tunable = [name for name in known.methods if known.search(name)]
        raise UsageError(f"method {method!r} declares nothing to tune (available: {', '.join(tunable)})")
    for name in settings.parameters.get(method, {}):
        if name in ranges:
            raise UsageError(f"--set {method}.{name}: tune searches it; it cannot be given, too")
