"""Hyperparameters chosen on each dataset, as `python -m bench tune` writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import labels
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.registry import Registry

Choices = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Tuned:
    """The file tuned.json: its name, a digest of its content, and {dataset: {method: {parameter: value}}}."""

    file: str
    digest: str
    datasets: Choices

    @property
    def citation(self) -> str:
        """How results say which file was used."""
        return f"{self.file} (sha256 {self.digest})"

    def parameters(self, dataset: str, method: str) -> dict[str, Any]:
        """What was chosen for the method of a label on a dataset; nothing where none was tuned."""
        return dict(self.datasets[dataset].get(labels.name_of(method), {}))

    def check(self, datasets: Iterable[str], methods: Iterable[str], known: Registry) -> None:
        """Raise UsageError for a dataset or a tunable method that the file lacks, and for values that do not fit."""
        names = dict.fromkeys(map(labels.name_of, methods))
        for dataset in datasets:
            if dataset not in self.datasets:
                held = ", ".join(self.datasets) or "none"
                raise UsageError(
                    f"{self.file} holds nothing for dataset {dataset!r} (available: {held}); tune it first"
                )
            for name in names:
                if name not in self.datasets[dataset] and known.search(name):
                    held = ", ".join(self.datasets[dataset]) or "none"
                    raise UsageError(
                        f"{self.file} holds nothing for method {name!r} on {dataset!r} (available: {held}); "
                        "tune it with the same budget"
                    )
                known.make_method(name, self.parameters(dataset, name))


def read(file: str | Path) -> Tuned:
    """The choices in a file; raises UsageError if it cannot be read as such."""
    path = Path(file)
    try:
        content = path.read_bytes()
        found = json.loads(content)["datasets"]
        datasets = {d: {m: dict(values) for m, values in methods.items()} for d, methods in found.items()}
    except OSError as error:
        raise UsageError(f"--tuned {file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"--tuned {file} is not a tuned.json that `python -m bench tune` wrote") from None
    return Tuned(path.name, hashlib.sha256(content).hexdigest()[:16], datasets)
