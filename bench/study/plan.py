"""Settings resolved once into a plan: the list of fully specified runs, with the registry's entries.

Everything after that takes what the plan holds; nothing asks for settings, names or defaults again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bench.common.errors import UsageError, unknown
from bench.config import labels
from bench.config.schema import CONDITIONS, Conditions, Settings
from bench.process.containment import contained
from bench.registry.declared import search
from bench.registry.fingerprints import Fingerprint, Fingerprints, data_digest
from bench.registry.own_data import checked, label_of
from bench.registry.plugins import Entry
from bench.registry.registry import DatasetLabel, Registry, registry
from bench.store.records import RunSpec
from bench.study import hyperparameters
from bench.study.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from datasets.base import DataSource

Pair = tuple[str, str]  # dataset and method, by their labels


class _Source(NamedTuple):
    """What a plan keeps of a dataset: the digest of its data, the family of its points, the size of its test set."""

    digest: str
    family: str
    test_points: int


@dataclass(frozen=True)
class Plan:
    """What a study runs.

    Args:
        settings: The settings, with groups expanded, labels spelled in one way and hyperparameters converted.
        registry: What can be compared.
        methods: The entries of the methods, by label.
        datasets: The entries of the datasets, by label.
        tuned: The hyperparameters of --tuned.
        pairs: The pairs of dataset and method to run; None for all.
    """

    settings: Settings
    registry: Registry
    methods: Mapping[str, Entry]
    datasets: Mapping[str, Entry]
    tuned: Hyperparameters | None
    pairs: tuple[Pair, ...] | None

    @cached_property
    def runs(self) -> tuple[RunSpec, ...]:
        """The runs: dataset by dataset, then seed by seed."""
        return tuple(self._runs(self._made, self.data))

    def runs_as_described(self, info: Mapping[str, Any]) -> tuple[RunSpec, ...]:
        """The runs with the roles and digests of data that study.json states, so that nothing heavy is imported.

        Args:
            info: The content of study.json.

        Raises:
            KeyError: If it states none.
        """
        return tuple(
            self._runs(
                lambda name: (info["methods"][name]["role"], info["methods"][name]["stacks"]),
                lambda name: info["datasets"][name]["data"],
            )
        )

    @cached_property
    def _sources(self) -> dict[str, _Source]:
        return {}

    def _source(self, dataset: str) -> _Source:
        if dataset not in self._sources:
            conditions = self.conditions(dataset)
            source = self.registry.make_problem(dataset, conditions["latent_dim"])
            count = conditions["n_test"]
            with contained():
                with suppress(ValueError):  # a dataset that is too small has runs that say so
                    count = size_of_test_set(source, conditions["n_train"], count)
                self._sources[dataset] = _Source(data_digest(source), source.family, count)
        return self._sources[dataset]

    def data(self, dataset: str) -> str:
        """The digest of a dataset's data."""
        return self._source(dataset).digest

    def family(self, dataset: str) -> str:
        """The family of p(x | z) that a dataset's points are of."""
        return self._source(dataset).family

    def test_points(self, dataset: str) -> int:
        """The size of a dataset's test set, which is less than asked where it has fewer points."""
        return self._source(dataset).test_points

    @property
    def size(self) -> int:
        """The number of runs, without making them."""
        pairs = len(self.datasets) * len(self.methods) if self.pairs is None else len(self.pairs)
        return pairs * self.settings.seeds

    def _made(self, method: str) -> tuple[str, bool]:
        """The role of a method, and whether it fits several seeds as one program."""
        made = self.registry.make_method(method)
        return made.role, made.stacks

    def _runs(self, declared: Callable[[str], tuple[str, bool]], digest: Callable[[str], str]) -> Iterator[RunSpec]:
        settings, fingerprints = self.settings, Fingerprints()
        for dataset, dataset_entry in self.datasets.items():
            chosen = [m for m in self.methods if self.pairs is None or (dataset, m) in self.pairs]
            conditions = self.conditions(dataset)
            of_methods = {
                method: self._of_method(
                    dataset, method, conditions, *declared(method), fingerprints.of(self.methods[method], dataset_entry)
                )
                for method in chosen
            }
            data = digest(dataset) if chosen else ""
            for seed in settings.every_seed:
                for method, choices in of_methods.items():
                    turn = seed // _in_a_row(conditions, choices) % len(choices)
                    yield RunSpec(
                        dataset=dataset,
                        method=method,
                        seed=seed,
                        scored_on=settings.scored_on,
                        data=data,
                        plugins=(*settings.plugins, *filter(None, [dataset_entry.data_file])),
                        columns=settings.columns if dataset_entry.data_file else (),
                        **conditions | choices[turn],
                    )

    def parameters_of(self, spec: RunSpec) -> dict[str, Any]:
        """All hyperparameters that a run takes, defaults included."""
        from bench.fit import task

        return task.hyperparameters(self.registry.make_method(spec.method, dict(spec.parameters)))

    def conditions(self, dataset: str) -> dict[str, Any]:
        """The conditions of a dataset: those of its label, else of the settings, else its own, else the defaults."""
        return _conditions(dataset, self.settings, self.registry)

    def _of_method(
        self, dataset: str, method: str, conditions: Mapping[str, Any], role: str, stacks: bool, found: Fingerprint
    ) -> list[dict[str, Any]]:
        """What a run takes from its method, for each choice of --tuned: hyperparameters, role, block, code, versions.

        The block is 1 if the method cannot fit several seeds as one program, and where seconds end a fit.
        """
        choices = ({},) if self.tuned is None else self.tuned.choices(dataset, method)
        given = self.settings.set.get(labels.name_of(method), {})
        return [
            {
                "parameters": tuple(self.registry.parameters(method, {**choice, **given}).items()),
                "role": role,
                "block": _in_a_row(conditions, choices) if stacks and conditions["max_seconds"] is None else 1,
                "code": found.code,
                "versions": found.versions,
            }
            for choice in choices
        ]

    def with_pairs(self, pairs: tuple[Pair, ...]) -> Plan:
        """The plan of certain pairs of dataset and method, whose labels may differ from those of this plan."""
        datasets, methods = (tuple(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
        names = {labels.name_of(method) for method in methods}
        given = {name: values for name, values in self.settings.set.items() if name in names}
        used = {labels.name_of(dataset) for dataset in datasets}
        data = tuple(file for file in self.settings.data if label_of(file) in used)
        changed = msgspec.structs.replace(self.settings, datasets=datasets, methods=methods, set=given, data=data)
        return dataclasses.replace(resolve(changed), pairs=pairs)


def _conditions(dataset: str, settings: Settings, known: Registry) -> dict[str, Any]:
    given = {name: value for name in CONDITIONS if (value := getattr(settings, name)) is not None}
    own = known.dataset(dataset).conditions
    return {**msgspec.structs.asdict(Conditions()), **own, **given, **DatasetLabel.parse(dataset).conditions}


def _in_a_row(conditions: Mapping[str, Any], choices: Sequence[Any]) -> int:
    """How many seeds in a row take the same choice, so that they are one program: a block is shared by all choices."""
    return max(1, conditions["block"] // len(choices))


def resolve(settings: Settings, pairs: tuple[Pair, ...] | None = None) -> Plan:
    """Resolve settings into a plan.

    Args:
        settings: What the user asked for.
        pairs: The pairs of dataset and method to run; None for all.

    Raises:
        UsageError: For unknown names and hyperparameters, for values and dimensions that do not fit, and for plugins
            that break the contract; its `key` is the setting.
    """
    with about("plugins"):
        known = registry(settings.plugins)
    if settings.data:
        with about("data"):
            known = registry((*settings.plugins, *map(checked, settings.data)), settings.columns)
    elif settings.columns:
        raise UsageError("--columns names columns of --data, which is not given", key=("columns",))
    elif settings.likelihood != Settings().likelihood:
        raise UsageError("--likelihood says what --data are, which is not given", key=("likelihood",))
    with about("methods"):
        methods = _labels(settings.methods, "methods", {"all": _every_method(settings, known)}, known.method_label)
    with about("datasets"):
        datasets = _labels(_datasets(settings), "datasets", groups(known), known.dataset_label)
    with about("baseline"):
        baseline = _baseline(settings.baseline, methods, known)
    given = _given(settings, methods, known)
    with about("methods"):
        for label in methods:
            under = given.get(labels.name_of(label))
            if under or "[" in label or known.method(label).origin != "built in":
                known.make_method(label, under)
    with about("datasets"):
        for label in datasets:
            _check_dataset(label, settings, known)
    if settings.device == "cuda":
        with about("device"):
            _require_cuda()
    resolved = msgspec.structs.replace(settings, methods=methods, datasets=datasets, baseline=baseline, set=given)
    with about("tuned"):
        tuned = None if settings.tuned is None else hyperparameters.read(settings.tuned)
        if tuned is not None:
            tuned.check(datasets, methods, known)
            tuned.check_seeds(settings.every_seed)
    entries = {label: known.method(label) for label in methods}
    return Plan(resolved, known, entries, {label: known.dataset(label) for label in datasets}, tuned, pairs)


@contextmanager
def about(*key: str) -> Iterator[None]:
    """Within, a UsageError says which setting it is about."""
    try:
        yield
    except UsageError as error:
        if error.key[:1] != key[:1]:  # a key within the setting is kept
            error.key = key
        raise


def groups(known: Registry) -> dict[str, tuple[str, ...]]:
    """The datasets that a group stands for."""
    from datasets import CURVES, DISCRETE, HELD_OUT, SURFACES

    return {
        "curves": CURVES,
        "surfaces": SURFACES,
        "discrete": DISCRETE,
        "all": tuple(name for name in known.datasets if name not in HELD_OUT),
    }


def _datasets(settings: Settings) -> tuple[str, ...]:
    """The datasets that are asked for, and those of --data that they do not name."""
    asked = settings.datasets
    if asked is None:
        asked = () if settings.data else ("curves",)
    named = set(map(labels.name_of, asked))
    own = {"likelihood": settings.likelihood} if settings.likelihood != Settings().likelihood else {}
    return (*asked, *(labels.spell(name, own) for name in map(label_of, settings.data) if name not in named))


def _every_method(settings: Settings, known: Registry) -> tuple[str, ...]:
    """What 'all' stands for: every method, or every tunable one."""
    if "all" in settings.methods and settings.KIND == "tune":
        return tuple(name for name in known.methods if search(known, name))
    return tuple(known.methods)


def _labels(
    asked: tuple[str, ...], what: str, by_group: Mapping[str, tuple[str, ...]], spelled: Callable[[str], str]
) -> tuple[str, ...]:
    """Each label once, groups expanded."""
    if not asked:
        raise UsageError(f"no {what} are named; see `python -m bench list {what}`")
    every = [label for each in asked for label in by_group.get(each, (each,))]
    return tuple(dict.fromkeys(map(spelled, every)))


def _baseline(asked: tuple[str, ...], methods: tuple[str, ...], known: Registry) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(map(known.method_label, asked)))
    for label in found:
        if label not in methods:
            raise unknown("baseline", label, methods)
    return found


def _given(settings: Settings, methods: tuple[str, ...], known: Registry) -> dict[str, dict[str, Any]]:
    """The hyperparameters of --set, converted."""
    used = tuple(dict.fromkeys(map(labels.name_of, methods)))
    for name, given in settings.set.items():
        with about("set", name):
            known.method(name)
            if name not in used:
                text = f"{name}.{', '.join(given)}"
                raise UsageError(f"--set {text}: {name!r} is not among the methods ({', '.join(used)})")
            if not isinstance(given, dict):
                raise UsageError(f"'set.{name}' must be a table of hyperparameters, got {given!r}")
        for key, value in given.items():
            with about("set", name, key):
                known.parameters(name, {key: labels.plain(key, value)})
    return {name: known.parameters(name, given) for name, given in settings.set.items() if given}


def _check_dataset(label: str, settings: Settings, known: Registry) -> None:
    entry, latent_dim = known.dataset(label), settings.latent_dim
    if entry.origin != "built in" or "[" in label:
        source = known.make_problem(label, latent_dim)
        if entry.data_file is not None:
            conditions = _conditions(label, settings, known)
            _check_size(label, source, conditions["n_train"], conditions["n_test"])
            if conditions["observation_noise"] == "known" and source.family == "gaussian":
                raise UsageError(
                    f"dataset {label!r} has no true noise variance, got --observation-noise known; leave it out, and "
                    "each dataset has its default",
                    key=("observation_noise",),
                )
    elif entry.latent_dim is not None and latent_dim not in (None, entry.latent_dim):
        raise UsageError(f"dataset {label!r} has latent dimension {entry.latent_dim}, got --latent-dim {latent_dim}")


def size_of_test_set(source: DataSource, n_train: int, n_test: int) -> int:
    """The size of a source's test set, which is less than asked where it has fewer points.

    Args:
        source: Where the points come from.
        n_train: Number of training points, and of validation points.
        n_test: Number of test points asked for.

    Raises:
        ValueError: If too few points are left for a test set.
    """
    from datasets.base import Observations, draw

    return len(draw(source, 0, n_train, n_train, n_test).test) if isinstance(source, Observations) else n_test


def _check_size(label: str, source: DataSource, n_train: int, n_test: int) -> None:
    try:
        left = size_of_test_set(source, n_train, n_test)
    except ValueError as error:
        raise UsageError(f"dataset {label!r}: {error}", key=("n_train",)) from None
    if left < n_test:
        raise UsageError(
            f"dataset {label!r}: {n_train} training points leave {left} for the test set, got --n-test {n_test}",
            key=("n_test",),
        )


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
