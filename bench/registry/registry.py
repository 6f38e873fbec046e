"""What can be compared: built-in methods and datasets, installed plugins, and plugin files."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from importlib import import_module, metadata, util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import datasets
import methods
from bench.common.errors import UsageError, unknown
from bench.process.containment import contained, importing
from bench.registry import labels

if TYPE_CHECKING:
    from datasets.base import DataSource

METHOD_GROUP = "mapa_bench.methods"
DATASET_GROUP = "mapa_bench.datasets"
NAME = re.compile(r"[\w.+-]+")
GROUPS = ("curves", "surfaces", "all")
ACTIVATIONS = ("tanh", "silu", "relu", "gelu")  # of the decoder, by methods.contract.decoder.ACTIVATIONS
PLUGIN_NAMES = {METHOD_GROUP: "METHODS", DATASET_GROUP: "DATASETS"}


@dataclasses.dataclass(frozen=True)
class Item:
    """A method or dataset that can be asked for by name; `load` imports what it names."""

    name: str
    summary: str
    source: str
    origin: str
    load: Callable[[], Any]
    file: str | None = None
    latent_dim: int | None = None
    data_dim: int | None = None
    expected_log_prob: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Registry:
    """The methods and datasets on offer, by name; built-in ones first."""

    methods: Mapping[str, Item]
    datasets: Mapping[str, Item]

    def method(self, label: str) -> Item:
        """The method of that label; raises UsageError with the nearest name if there is none."""
        name = labels.name_of(label)
        if name not in self.methods:
            raise unknown("method", name, self.methods)
        return self.methods[name]

    def dataset(self, label: str) -> Item:
        """The dataset of that label; raises UsageError with the nearest name if there is none."""
        name, parameters = dataset_parameters(label)
        if name not in self.datasets:
            raise unknown("dataset", name, self.datasets)
        item = self.datasets[name]
        if set(parameters) <= {"size", "activation"}:
            return item
        sizes = {key: parameters.get(key, getattr(item, key)) for key in ("latent_dim", "data_dim")}
        return dataclasses.replace(item, expected_log_prob=None, **sizes)

    def make_method(self, label: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """A method with its default hyperparameters but for `parameters`, and but for those in its label.

        Raises UsageError if it lacks the contract, or has no such parameter or none of such a value.
        """
        made, changed = self._method(label, parameters or {})
        if not changed:
            return made
        try:
            with contained():
                return dataclasses.replace(made, **changed)
        except (Exception, SystemExit) as error:
            raise UsageError(f"method {label!r} cannot be made: {describe(error)}") from error

    def parameters(self, label: str, under: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The parameters in a method's label, and those `under` it that it leaves open, in declared order and type."""
        return self._method(label, under or {})[1] if under or labels.parse(label)[1] else {}

    def search(self, name: str) -> Mapping[str, Any]:
        """The ranges in which a method's hyperparameters may be looked for; empty if it declares none."""
        return self.make_method(name).search

    def method_label(self, label: str) -> str:
        """A method's label, spelled in the one way there is."""
        self.method(label)
        return labels.spell(labels.name_of(label), self.parameters(label))

    def dataset_label(self, label: str) -> str:
        """A dataset's label, spelled in the one way there is."""
        self.dataset(label)
        return labels.spell(*dataset_parameters(label))

    def _method(self, label: str, under: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """A method with its defaults, and what is to be changed of them."""
        name, stated = labels.parse(label)
        made = make(self.method(name).load)
        from methods.contract.method import Method

        if not dataclasses.is_dataclass(made) or not isinstance(made, Method):
            raise UsageError(f"method {name!r} must be a dataclass that inherits Method, got {type(made).__name__}")
        return made, labels.converted(name, made, {**under, **stated})

    def make_problem(self, label: str, latent_dim: int | None) -> DataSource:
        """What a dataset's data come from; raises UsageError if it lacks the contract, that dimension or a parameter.

        Other noise than the dataset's own leaves its name, and so its random streams, but no closed form.
        """
        from datasets.base import Observations, Problem

        name, parameters = dataset_parameters(label)
        factory = self.dataset(name).load()
        noise = _taken_out(name, factory, parameters)
        try:
            with contained():
                made = factory(parameters.pop("latent_dim", latent_dim), **parameters)
        except ValueError as error:
            raise UsageError(str(error)) from None
        except (Exception, SystemExit) as error:
            raise UsageError(f"dataset {label!r} cannot be made: {describe(error)}") from error
        if not isinstance(made, Problem | Observations):
            found = type(made).__name__
            raise UsageError(f"dataset {name!r} must give a datasets.base.Problem or Observations, got {found}")
        if noise is None:
            return made
        if isinstance(made, Observations):
            raise UsageError(f"dataset {name!r} has no true noise to be set")
        return dataclasses.replace(made, noise=float(noise), exact_log_prob=None)


def dataset_parameters(label: str) -> tuple[str, dict[str, Any]]:
    """The name in a dataset's label and its parameters, sorted; raises UsageError for a value that will not do."""
    name, texts = labels.parse(label)
    found: dict[str, Any] = {key: labels.literal(text) for key, text in sorted(texts.items())}
    for key in {"size", "latent_dim", "data_dim"} & set(found):
        if not isinstance(found[key], int) or found[key] < 1:
            raise UsageError(f"{key} of {label!r} must be a whole number of at least 1, got {found[key]}")
    if "noise" in found and (isinstance(found["noise"], str) or found["noise"] <= 0):
        raise UsageError(f"noise of {label!r} must be a positive number, the variance, got {found['noise']}")
    if found.get("activation", "tanh") not in ACTIVATIONS:
        raise UsageError(f"activation of {label!r} must be one of {', '.join(ACTIVATIONS)}, got {found['activation']}")
    return name, found


def _taken_out(name: str, factory: Any, parameters: dict[str, Any]) -> float | None:
    """Leave the parameters that a factory takes; the noise, if it takes none, and raises UsageError for any other."""
    for condition in ("size", "activation"):
        parameters.pop(condition, None)
    if not parameters:
        return None
    try:
        takes = list(inspect.signature(factory).parameters)[1:]
    except (TypeError, ValueError):
        takes = []
    for key in parameters:
        if key not in (*takes, "latent_dim", "noise"):
            raise unknown(
                f"parameter of dataset {name!r}",
                key,
                dict.fromkeys(("size", "noise", "activation", "latent_dim", *takes)),
            )
    return None if "noise" in takes else parameters.pop("noise", None)


def make(load: Callable[[], Any]) -> Any:
    """An instance of the class that `load` gives, or what it gives if that is an instance already."""
    loaded = load()
    if not isinstance(loaded, type):
        return loaded
    try:
        with contained():
            return loaded()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{loaded.__name__}() cannot be made with its defaults: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def registry(plugins: Iterable[str] = ()) -> Registry:
    """All methods and datasets: built in, installed under the entry-point groups, and in plugin files.

    Raises UsageError for a plugin file that is missing, fails on import, or offers nothing, and for a name taken twice.
    """
    if not hasattr(datasets, "BUILTIN") or not hasattr(methods, "BUILTIN"):
        where = getattr(datasets, "__file__", None) or getattr(methods, "__file__", None)
        raise UsageError(
            f"another package hides mapa-bench's 'datasets' or 'methods' ({where}); use an environment of its own"
        )
    found_methods = {name: _builtin(name, entry, methods.load) for name, entry in methods.BUILTIN.items()}
    found_datasets = {name: _builtin_dataset(name, entry) for name, entry in datasets.BUILTIN.items()}
    _add(found_methods, _installed(METHOD_GROUP))
    _add(found_datasets, _installed(DATASET_GROUP))
    for file in plugins:
        module = load_plugin(str(Path(file).resolve()))
        offers = {group: getattr(module, name, None) for group, name in PLUGIN_NAMES.items()}
        if not any(offers.values()):
            raise UsageError(
                f"plugin {file} offers nothing: it needs METHODS = {{name: class}} or DATASETS = {{name: factory}}"
            )
        for group, into in ((METHOD_GROUP, found_methods), (DATASET_GROUP, found_datasets)):
            _add(into, _offered(offers[group] or {}, PLUGIN_NAMES[group], file))
    return Registry(found_methods, found_datasets)


def _builtin(name: str, entry: methods.Entry, load: Callable[[str], Any]) -> Item:
    return Item(name, entry.summary, entry.source, "built in", lambda: load(name))


def _builtin_dataset(name: str, entry: datasets.Entry) -> Item:
    def load() -> Any:
        module, factory = entry.target.split(":")
        return getattr(import_module(module), factory)

    return Item(
        name,
        entry.summary,
        entry.source,
        "built in",
        load,
        None,
        entry.latent_dim,
        entry.data_dim,
        entry.expected_log_prob,
    )


def _add(into: dict[str, Item], items: Iterable[Item]) -> None:
    for item in items:
        if item.name in into:
            taken = into[item.name].origin
            raise UsageError(f"{item.origin} offers {item.name!r}, which is taken ({taken}); rename it")
        into[item.name] = item


def _installed(group: str) -> Iterator[Item]:
    for point in metadata.entry_points(group=group):
        origin = f"package {point.dist.name}" if point.dist else point.value
        lacking = "" if util.find_spec(point.module.partition(".")[0]) else ", which is not there"
        yield Item(point.name, f"from {point.value}{lacking}", origin, origin, _importing(point, origin))


def _importing(point: metadata.EntryPoint, origin: str) -> Callable[[], Any]:
    def load() -> Any:
        try:
            with importing(origin):
                return point.load()
        except (Exception, SystemExit) as error:
            raise UsageError(f"{origin} cannot be imported: {describe(error)}") from error

    return load


def _offered(offers: Any, variable: str, file: str) -> Iterator[Item]:
    if not isinstance(offers, Mapping):
        raise UsageError(f"plugin {file}: {variable} must map names to classes, got {type(offers).__name__}")
    for name, target in offers.items():
        if not isinstance(name, str) or not callable(getattr(target, "fit", target)):
            raise UsageError(f"plugin {file}: {variable} must map names to callables, got {name!r}: {target!r}")
        if not NAME.fullmatch(name) or name in GROUPS:
            raise UsageError(
                f"plugin {file}: {variable} has the name {name!r}, which cannot be asked for: "
                f"use letters, digits and . _ + -, and none of {', '.join(GROUPS)}"
            )
        origin = f"plugin {Path(file).name}"
        yield Item(name, first_line(target), origin, origin, partial(_identity, target), file)


def _identity(target: Any) -> Any:
    return target


def first_line(target: object) -> str:
    """The claim that a docstring opens with, or nothing."""
    return (inspect.getdoc(target) or "").partition("\n")[0].rstrip(".")


@cache
def load_plugin(file: str) -> ModuleType:
    """The module of a plugin file, imported once per process.

    Raises UsageError if it cannot be read or fails on import.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"plugin {file} is not a file")
    spec = util.spec_from_file_location(f"mapa_bench_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"plugin {file} is not a Python file")
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with importing(f"plugin {path.name}"):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"plugin {file} cannot be imported: {describe(error)}") from error
    return module


HARNESS_CODE = ("store/records.py", "fit/*.py", "process/*.py", "metrics/*.py")


def code_version(plugins: Iterable[str] = ()) -> str:
    """A digest of all code that can change a value: methods, datasets, what runs and scores them, and plugins."""
    here = Path(__file__).parents[1]
    packages = [Path(str(package.__file__)).parent for package in (methods, datasets)]
    files = [path for package in packages for path in sorted(package.rglob("*.py"))]
    files += [path for pattern in HARNESS_CODE for path in sorted(here.glob(pattern))]
    digest = hashlib.sha256()
    for path in [*files, *(Path(file) for file in sorted(plugins))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
