"""Hyperparameters for each dataset, as `python -m bench tune` writes them to tuned.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.common.errors import UsageError
from bench.config import labels
from bench.registry.declared import search
from bench.registry.registry import Registry

Parameters = Mapping[str, Mapping[str, Any]]
Choices = Mapping[str, Sequence[Mapping[str, Any]]]
SCHEMA = 5
EVERY = "*"  # stands for all datasets, those that were not tuned on included


@dataclass(frozen=True)
class Hyperparameters:
    """The content of a tuned.json.

    Args:
        file: Its name.
        sha256: Its digest.
        datasets: {dataset: {method: [{hyperparameter: value}]}}, one choice of each independent tuning; of the dataset
            EVERY those for datasets that are not named.
        budget: The tuning budget, in words.
        seeds: The seeds on whose validation data the hyperparameters were chosen.
        content: Its bytes.
    """

    file: str
    sha256: str
    datasets: Mapping[str, Choices]
    budget: str = ""
    seeds: tuple[int, ...] = ()
    content: bytes = field(default=b"", repr=False)

    def choices(self, dataset: str, method: str) -> Sequence[Mapping[str, Any]]:
        """What each tuning chose for the method of a label on a dataset; one empty choice where it was not tuned."""
        return self._of(dataset).get(labels.name_of(method), ({},))

    def _of(self, dataset: str) -> Choices:
        return self.datasets.get(dataset, self.datasets.get(EVERY, {}))

    def described(self, datasets: Iterable[str], methods: Iterable[str], given: Parameters, known: Registry) -> Any:
        """What study.json says: file, digest, budget and, by method and dataset, the choices of all tunings in effect.

        --set and labels win over what was chosen. None stands for a method that could have been tuned but was not.

        Args:
            datasets: Labels of the study's datasets.
            methods: Labels of its methods.
            given: The hyperparameters of --set.
            known: What can be compared.
        """
        used = {m: {d: self._in_effect(d, m, given, known) for d in datasets} for m in methods}
        return {"file": self.file, "sha256": self.sha256, "budget": self.budget, "methods": used}

    def _in_effect(self, dataset: str, label: str, given: Parameters, known: Registry) -> list[dict[str, Any]] | None:
        name, stated = labels.parse(label)
        if name not in self._of(dataset) and search(known, name):
            return None
        won = {**given.get(name, {}), **stated}
        return [
            {key: value for key, value in choice.items() if key not in won} for choice in self.choices(dataset, name)
        ]

    def check(self, datasets: Iterable[str], methods: Iterable[str], known: Registry) -> None:
        """Check that the file has the datasets, and that its values fit the methods.

        Raises:
            UsageError: If it does not.
        """
        names = dict.fromkeys(map(labels.name_of, methods))
        for dataset in datasets:
            if not {dataset, EVERY} & {*self.datasets}:
                held = ", ".join(self.datasets) or "none"
                raise UsageError(
                    f"{self.file} holds nothing for dataset {dataset!r} (available: {held}); tune it first"
                )
            for name in names:
                for choice in self.choices(dataset, name):
                    known.make_method(name, choice)

    def check_seeds(self, seeds: range) -> None:
        """Check that no seed was used for tuning: a method would look better on its own tuning data.

        Raises:
            UsageError: If one was.
        """
        if shared := sorted({*self.seeds} & {*seeds}):
            raise UsageError(f"{self.file} was chosen on seed {shared[0]}, which this study uses too; use other seeds")


def read(file: str | Path) -> Hyperparameters:
    """Read a tuned.json.

    Raises:
        UsageError: If it cannot be read as one, or has another schema.
    """
    path = Path(file)
    try:
        content = path.read_bytes()
        found = json.loads(content)
        datasets = {d: {m: _choices(each) for m, each in tuned.items()} for d, tuned in found["datasets"].items()}
        schema, budget = found.get("schema", 1), found.get("budget", {})
        words, seeds = _in_words(budget), tuple(found.get("seeds", _seeds(budget)))
    except OSError as error:
        raise UsageError(f"--tuned {file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"--tuned {file} is not a tuned.json that `python -m bench tune` wrote") from None
    if schema not in range(1, SCHEMA + 1):
        raise UsageError(f"--tuned {file} has schema {schema!r}; this version reads schemas 1 to {SCHEMA}")
    return Hyperparameters(path.name, hashlib.sha256(content).hexdigest(), datasets, words, seeds, content)


def _choices(stated: Any) -> tuple[dict[str, Any], ...]:
    """The choices of all tunings; files before schema 4 state the one choice there was."""
    return tuple(map(dict, stated if isinstance(stated, list) else [stated])) or ({},)


def _seeds(budget: Mapping[str, Any]) -> range:
    """The seeds on which choices were made, as far as a file before schema 4 says."""
    first = budget.get("first_seed", 0)
    return range(first, first + budget["seeds"]) if "first_seed" in budget else range(0)


def _in_words(budget: Mapping[str, Any]) -> str:
    """The budget of a tuned.json; files of schema 1 state a number of trials instead of FLOPs, or nothing."""
    if "flops" in budget:
        each = f"{budget['flops']:.3g} FLOPs for each method on each dataset"
        each += ", one choice for all datasets" if budget.get("jointly") else ""
        return each if budget.get("repeats", 1) == 1 else f"{each}, in each of {budget['repeats']} tunings"
    return f"{budget['trials']} trials of each method on each dataset" if "trials" in budget else "no stated budget"
