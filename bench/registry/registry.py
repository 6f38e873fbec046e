"""What can be compared: built-in methods and datasets, installed packages, and plugin files."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import datasets
import methods
from bench.common.errors import UsageError, describe, unknown
from bench.config import labels
from bench.config.fields import Field, read
from bench.config.schema import Conditions
from bench.process.containment import contained
from bench.registry import own_data
from bench.registry.plugins import Entry, installed, offered

if TYPE_CHECKING:
    from datasets.base import DataSource
    from methods.contract.method import Method

NOISE = "noise_variance"


@dataclass(frozen=True)
class DatasetLabel:
    """A dataset's label, taken apart.

    Args:
        name: The dataset's name.
        conditions: The conditions that the label sets, such as n_train.
        parameters: What the dataset itself takes, its noise variance included.
    """

    name: str
    conditions: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, label: str) -> DatasetLabel:
        """Take a label apart.

        Raises:
            UsageError: For a label of another form, and for a value that does not fit.
        """
        name, texts = labels.parse(label)
        given = {key: text for key, text in texts.items() if key in Conditions.IN_LABEL}

        def spelled(each: Field) -> str:
            return f"{each.name} of {label!r}"

        found = read(Conditions, given, spelled, text=True)
        parameters = {key: labels.literal(text) for key, text in sorted(texts.items()) if key not in given}
        noise: Any = parameters.get(NOISE, 1.0)
        if isinstance(noise, str) or noise <= 0:
            raise UsageError(f"{NOISE} of {label!r} must be a positive number, got {noise}")
        data_dim = parameters.get("data_dim", 1)
        if not isinstance(data_dim, int) or data_dim < 1:
            raise UsageError(f"data_dim of {label!r} must be a whole number of at least 1, got {data_dim}")
        return cls(name, {key: getattr(found, key) for key in sorted(given)}, parameters)

    def __str__(self) -> str:
        """The label, spelled in one way: parameters in alphabetical order, without spaces."""
        return labels.spell(self.name, dict(sorted({**self.conditions, **self.parameters}.items())))


@dataclass(frozen=True)
class Registry:
    """The methods and datasets on offer, by name; built-in ones first."""

    methods: Mapping[str, Entry]
    datasets: Mapping[str, Entry]

    def method(self, label: str) -> Entry:
        """The entry of a method's label.

        Raises:
            UsageError: If there is no such method; the message names the nearest one.
        """
        name = labels.name_of(label)
        if name not in self.methods:
            raise unknown("method", name, self.methods)
        return self.methods[name]

    def dataset(self, label: str) -> Entry:
        """The entry of a dataset's label, with its own dimensions.

        Raises:
            UsageError: If there is no such dataset; the message names the nearest one.
        """
        asked = DatasetLabel.parse(label)
        if asked.name not in self.datasets:
            raise unknown("dataset", asked.name, self.datasets)
        entry = self.datasets[asked.name]
        if not asked.parameters and "latent_dim" not in asked.conditions:
            return entry
        given = asked.conditions | asked.parameters
        sizes = {key: given[key] for key in ("latent_dim", "data_dim") if key in given}
        return dataclasses.replace(entry, expected_log_prob=None, **sizes)

    def make_method(self, label: str, parameters: Mapping[str, Any] | None = None) -> Method:
        """A method with its default hyperparameters, except those given.

        Args:
            label: The method's label; what stands in its brackets wins.
            parameters: Other hyperparameters.

        Raises:
            UsageError: If the method breaks the contract, or has no such hyperparameter or value.
        """
        made, changed = self._method(label, parameters or {})
        if not changed:
            return made
        try:
            with contained():
                replaced: Any = dataclasses.replace(made, **changed)  # type: ignore[type-var]
                return replaced
        except (Exception, SystemExit) as error:
            raise UsageError(f"method {label!r} cannot be made: {describe(error)}") from error

    def parameters(self, label: str, under: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The hyperparameters that a label states, and those of `under` that it leaves open, converted and in order."""
        return self._method(label, under or {})[1] if under or labels.parse(label)[1] else {}

    def method_label(self, label: str) -> str:
        """A method's label, spelled in one way."""
        self.method(label)
        return labels.spell(labels.name_of(label), self.parameters(label))

    def dataset_label(self, label: str) -> str:
        """A dataset's label, spelled in one way."""
        self.dataset(label)
        return str(DatasetLabel.parse(label))

    def _method(self, label: str, under: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
        """A method with its defaults, and what of them is to be changed."""
        from methods.contract.method import Method

        name, stated = labels.parse(label)
        made = make(self.method(name).load)
        if not isinstance(made, Method) or not dataclasses.is_dataclass(made):
            raise UsageError(
                f"method {name!r} must be a dataclass that inherits methods.contract.method.Method, "
                f"got {type(made).__name__}"
            )
        return made, labels.converted(name, made, {**under, **stated})

    def make_problem(self, label: str, latent_dim: int | None) -> DataSource:
        """The data source of a dataset's label.

        A noise variance other than the dataset's own changes neither its name nor its random streams, but removes its
        closed form.

        Args:
            label: The dataset's label; a latent dimension in it wins.
            latent_dim: L; None for the dataset's own.

        Raises:
            UsageError: If the dataset breaks the contract, or has no such dimension or parameter.
        """
        from bench.registry.sources import checked
        from datasets.base import Problem

        asked = DatasetLabel.parse(label)
        parameters = dict(asked.parameters)
        factory = self.dataset(asked.name).load()
        noise = _noise_to_set(asked.name, factory, parameters)
        try:
            with contained():
                made = factory(asked.conditions.get("latent_dim", latent_dim), **parameters)
        except ValueError as error:
            raise UsageError(f"dataset {label!r}: {error}") from None
        except (Exception, SystemExit) as error:
            raise UsageError(f"dataset {label!r} cannot be made: {describe(error)}") from error
        with contained():
            made = checked(made, asked.name)
        if noise is None:
            return made
        if not isinstance(made, Problem) or made.noise_variance is None:
            raise UsageError(f"dataset {asked.name!r} has no true noise to be set")
        changed = dataclasses.replace(made, noise_variance=noise, exact_log_prob=None)
        with contained():
            return checked(changed, label)


def _noise_to_set(name: str, factory: Any, parameters: dict[str, Any]) -> float | None:
    """The noise variance to set on what a factory makes; None if it takes it itself, as all else in `parameters`."""
    if not parameters:
        return None
    try:
        takes = list(inspect.signature(factory).parameters)[1:]
    except (TypeError, ValueError):
        takes = []
    for key in parameters:
        if key not in (*takes, NOISE):
            available = dict.fromkeys((*Conditions.IN_LABEL, NOISE, *takes))
            raise unknown(f"parameter of dataset {name!r}", key, available)
    return None if NOISE in takes else parameters.pop(NOISE, None)


def make(load: Callable[[], Any]) -> Any:
    """An instance of the class that `load` returns, or what it returns if that is no class.

    Raises:
        UsageError: If the class cannot be made with its defaults.
    """
    loaded = load()
    if not isinstance(loaded, type):
        return loaded
    try:
        with contained():
            return loaded()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{loaded.__name__}() cannot be made with its defaults: {describe(error)}") from error


def registry(plugins: Iterable[str] = (), columns: Iterable[str] = ()) -> Registry:
    """All methods and datasets: built in, installed under the entry-point groups, in plugin files, and own data.

    Args:
        plugins: Paths of plugin files and of files of data.
        columns: The names of the columns to take from files of data; none for all that hold numbers.

    Raises:
        UsageError: For a plugin file that is missing, fails on import or offers nothing, for data that cannot be used,
            and for a name taken twice.
    """
    if not hasattr(datasets, "BUILTIN") or not hasattr(methods, "BUILTIN"):
        other = methods if hasattr(datasets, "BUILTIN") else datasets
        where = getattr(other, "__file__", None) or next(iter(other.__path__), "?")
        raise UsageError(f"{where} hides mapa-bench's package {other.__name__!r}: rename it or use another environment")
    found: dict[str, dict[str, Entry]] = {
        "methods": {name: _builtin(name, entry) for name, entry in methods.BUILTIN.items()},
        "datasets": {name: _builtin(name, entry) for name, entry in datasets.BUILTIN.items()},
    }
    for kind, entries in found.items():
        _add(entries, installed(kind))
    for file in plugins:
        if own_data.is_data(file):
            _add(found["datasets"], [own_data.entry(file, columns)])
            continue
        for kind, offers in offered(file).items():
            _add(found[kind], offers)
    return Registry(**found)


def _builtin(name: str, entry: methods.Entry | datasets.Entry) -> Entry:
    module, attribute = entry.target.split(":")
    load = partial(_load, module, attribute)
    if isinstance(entry, methods.Entry):
        return Entry(name, entry.summary, entry.source, "built in", load, module)
    return Entry(
        name,
        entry.summary,
        entry.source,
        "built in",
        load,
        module,
        latent_dim=entry.latent_dim,
        data_dim=entry.data_dim,
        expected_log_prob=entry.expected_log_prob,
    )


def _load(module: str, attribute: str) -> Any:
    return getattr(import_module(module), attribute)


def _add(into: dict[str, Entry], entries: Iterable[Entry]) -> None:
    for entry in entries:
        if entry.name in into:
            taken = into[entry.name].origin
            raise UsageError(f"{entry.origin} offers {entry.name!r}, which is taken ({taken}); rename it")
        into[entry.name] = entry
