"""Hyperparameters chosen on each dataset, as `python -m bench tune` writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.common.errors import UsageError
from bench.registry import labels

if TYPE_CHECKING:
    from bench.registry.registry import Registry
    from bench.study.execute import Settings

Parameters = Mapping[str, Mapping[str, Any]]
Choices = Mapping[str, Parameters]
SCHEMA = 2


@dataclass(frozen=True)
class Tuned:
    """The file tuned.json: name, digest, {dataset: {method: {parameter: value}}}, the budget in words, its bytes.

    seeds: those on whose validation data the choices were made, as far as the file tells.
    """

    file: str
    sha256: str
    datasets: Choices
    budget: str = ""
    seeds: range = range(0)
    content: bytes = field(default=b"", repr=False)

    @property
    def citation(self) -> str:
        """How results say which file was used."""
        return f"{self.file} (sha256 {self.sha256[:16]})"

    def parameters(self, dataset: str, method: str) -> dict[str, Any]:
        """What was chosen for the method of a label on a dataset; nothing where none was tuned."""
        return dict(self.datasets[dataset].get(labels.name_of(method), {}))

    def described(self, settings: Settings, known: Registry) -> dict[str, Any]:
        """What study.json says: file, digest, budget and, by method and dataset, the choices that are in effect.

        --set and labels win over what was chosen. None stands where a method could have been tuned but was not.
        """
        given = settings.parameters
        used = {m: {d: self._in_effect(d, m, given, known) for d in settings.datasets} for m in settings.methods}
        return {"file": self.file, "sha256": self.sha256, "budget": self.budget, "methods": used}

    def _in_effect(self, dataset: str, label: str, given: Parameters, known: Registry) -> dict[str, Any] | None:
        name, stated = labels.parse(label)
        if name not in self.datasets[dataset] and known.search(name):
            return None
        won = {**given.get(name, {}), **stated}
        return {key: value for key, value in self.parameters(dataset, name).items() if key not in won}

    def check(self, datasets: Iterable[str], methods: Iterable[str], known: Registry) -> None:
        """Raise UsageError for a dataset that the file lacks, and for values that do not fit."""
        names = dict.fromkeys(map(labels.name_of, methods))
        for dataset in datasets:
            if dataset not in self.datasets:
                held = ", ".join(self.datasets) or "none"
                raise UsageError(
                    f"{self.file} holds nothing for dataset {dataset!r} (available: {held}); tune it first"
                )
            for name in names:
                known.make_method(name, self.parameters(dataset, name))

    def check_seeds(self, seeds: range) -> None:
        """Raise UsageError for seeds on whose validation data the choices were made: theirs would flatter."""
        if shared := sorted({*self.seeds} & {*seeds}):
            raise UsageError(f"{self.file} was chosen on seed {shared[0]}, which this study has too; take other seeds")


def read(file: str | Path) -> Tuned:
    """The choices in a file; raises UsageError if it cannot be read as such."""
    path = Path(file)
    try:
        content = path.read_bytes()
        found = json.loads(content)
        datasets = {d: {m: dict(values) for m, values in each.items()} for d, each in found["datasets"].items()}
        schema, budget = found.get("schema", 1), found.get("budget", {})
        told, seeds = _in_words(budget), _seeds(budget)
    except OSError as error:
        raise UsageError(f"--tuned {file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"--tuned {file} is not a tuned.json that `python -m bench tune` wrote") from None
    if schema not in range(1, SCHEMA + 1):
        raise UsageError(f"--tuned {file} is of schema {schema!r}; this version reads schemas 1 to {SCHEMA}")
    return Tuned(path.name, hashlib.sha256(content).hexdigest(), datasets, told, seeds, content)


def _seeds(budget: Mapping[str, Any]) -> range:
    """The seeds on which choices were made, as far as the file tells."""
    first = budget.get("first_seed", 0)
    return range(first, first + budget["seeds"]) if "first_seed" in budget else range(0)


def _in_words(budget: Mapping[str, Any]) -> str:
    """The budget in a tuned.json; files of schema 1 state a number of trials instead of FLOPs, or nothing."""
    if "flops" in budget:
        return f"{budget['flops']:.3g} FLOPs for each method on each dataset"
    return f"{budget['trials']} trials of each method on each dataset" if "trials" in budget else "no stated budget"
