"""Which hyperparameters are tried: the defaults, and points of a scrambled Sobol set."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from bench import labels, study
from bench.errors import UsageError
from bench.registry import Registry

FIRST_SEED = 1000
DESIGN_SEED = 0


@dataclass(frozen=True)
class Trial:
    """One setting of a method's hyperparameters: trial 0 is the defaults. label: by which its cells are told."""

    method: str
    number: int
    label: str


def trials(method: str, count: int, known: Registry) -> list[Trial]:
    """So many trials of a method: the defaults, then quasi-random search (Bousquet et al. 2017, arXiv 1706.03200).

    The points after the first are those of one Sobol set, so that more trials add to fewer.
    """
    from scipy.stats import qmc

    ranges = known.search(method)
    sobol = qmc.Sobol(len(ranges), scramble=True, rng=DESIGN_SEED)
    points = sobol.random_base2(max(count - 2, 0).bit_length())[: count - 1]
    found = [{name: ranges[name].at(u) for name, u in zip(ranges, point, strict=True)} for point in points]
    spelled = [known.method_label(labels.spell(method, values)) for values in ({}, *found)]
    return [Trial(method, number, label) for number, label in enumerate(spelled)]


def planned(settings: study.Settings, known: Registry) -> study.Settings:
    """The study that tunes the methods of other settings on their datasets, scored on validation data alone.

    Raises UsageError for a method that declares no `search`, and for parameters given of those that are searched.
    """
    settings = study.checked(settings, known)
    for name in settings.methods:
        _check(name, settings, known)
    tried = [t.label for m in settings.methods for t in trials(m, settings.trials or 1, known)]
    settings = study.checked(replace(settings, methods=tuple(tried)), known)
    return replace(
        settings,
        pairs=tuple(itertools.product(settings.datasets, settings.methods)),
        first_seed=FIRST_SEED,
        test_size=0,
        kind="tune",
        scored_on="validation",
    )


def _check(method: str, settings: study.Settings, known: Registry) -> None:
    ranges = known.search(method)
    if "[" in method:
        raise UsageError(f"tune takes methods by name, got {method!r}; fix a hyperparameter with --set")
    if not ranges:
        tunable = [name for name in known.methods if known.search(name)]
        raise UsageError(f"method {method!r} declares nothing to tune (available: {', '.join(tunable)})")
    for name in settings.parameters.get(method, {}):
        if name in ranges:
            raise UsageError(f"--set {method}.{name}: tune searches it; it cannot be given, too")
