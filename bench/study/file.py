"""Study files: the grid of a study in TOML, read with errors that name file, line and key."""

from __future__ import annotations

import contextlib
import re
import reprlib
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.common.errors import UsageError, unknown
from bench.registry import labels
from bench.registry.registry import registry
from bench.study import execute, hyperparameters
from bench.study.folder import union
from bench.study.options import CHOICES, dataset_groups

if TYPE_CHECKING:
    from bench.registry.registry import Registry

WHOLE = ("seeds", "size", "test_size", "latent_dim")
BUDGET = ("max_flops", "max_seconds")
LEAST = {"first_seed": 0, **dict.fromkeys(WHOLE, 1)}
KEYS = ("name", "methods", "datasets", *LEAST, *CHOICES, "plugins", "tuned", "budget", "set")
NAME = re.compile(r"[\w+-][\w.+-]*")
PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)")


@dataclass(frozen=True)
class Source:
    """A study file: where it lies, its text, and what that says."""

    path: Path
    text: str
    content: Mapping[str, Any]

    def wrong(self, message: object, *keys: str) -> UsageError:
        """An error that names the file and the line on which a key is set."""
        line = line_of(self.text, keys) if keys else None
        return UsageError(f"{self.path}{f', line {line}' if line else ''}: {message}")

    @contextlib.contextmanager
    def at(self, *keys: str) -> Iterator[None]:
        """Within this, errors name the file and the line on which a key is set."""
        try:
            yield
        except UsageError as error:
            raise self.wrong(error, *keys) from None

    def expect(self, right: bool, wanted: str, value: object, *keys: str) -> None:
        """Raise UsageError, saying what was wanted and got, unless the value of a key is right."""
        if not right:
            raise self.wrong(f"{'.'.join(keys)!r} must be {wanted}, got {reprlib.repr(value)}", *keys)


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """The number of the line on which the statement begins that first sets a key of nested tables; None if none does.

    The lines up to the end of a statement are TOML, those up to its middle are not.
    """
    begins, lines = 1, text.split("\n")
    for end in range(1, len(lines) + 1):
        try:
            found: Any = tomllib.loads("\n".join(lines[:end]) + "\n")
        except ValueError:
            continue
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            return begins
        begins = end + 1
    return None


def read(path: Path, plugins: Sequence[str] = ()) -> tuple[execute.Settings, Registry, str]:
    """The study that a file asks for, what can be compared, and the study's name.

    plugins: paths of Python files beside those of the file. Raises UsageError, naming file, line and key.
    """
    source = _parsed(path)
    _check(source)
    content = source.content
    with source.at("plugins"):
        files = tuple(str((path.parent / each).resolve()) for each in content.get("plugins", ()))
        registry(files)
    files = union(files, plugins)
    known = registry(files)
    with source.at("tuned"):
        chosen = hyperparameters.read(path.parent / content["tuned"]) if "tuned" in content else None
    numbers: dict[str, Any] = {key: float(value) for key, value in content.get("budget", {}).items()}
    settings = execute.Settings(
        methods=_labels(source, "methods", {"all": tuple(known.methods)}, known.method_label),
        datasets=_labels(source, "datasets", dataset_groups(known), known.dataset_label),
        **{key: content[key] for key in (*LEAST, *CHOICES) if key in content},
        **numbers,
        plugins=files,
        parameters=content.get("set", {}),
        tuned=chosen,
    )
    _check_parameters(source, settings, known)
    with source.at():
        settings = execute.checked(replace(settings, validation_size=settings.size), known)
    return settings, known, content.get("name", path.stem)


def _parsed(path: Path) -> Source:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    try:
        return Source(path, text, tomllib.loads(text))
    except (ValueError, RecursionError) as error:
        place = PLACE.search(str(error))
        line = (place["line"] if place else None) or len(text.splitlines())
        raise UsageError(f"{path}, line {line}: this is not TOML: {PLACE.sub('', str(error))}") from None


def _check(source: Source) -> None:
    """Raise UsageError for keys that there are not, and for values of the wrong type."""
    content = source.content
    _check_keys(source, content, KEYS)
    name = content.get("name", source.path.stem)
    right = isinstance(name, str) and NAME.fullmatch(name) is not None
    source.expect(right, "letters, digits and . _ + -, and begin with none of .", name, "name")
    for key, least in LEAST.items():
        value = content.get(key, least)
        source.expect(_is_number(value, int) and value >= least, f"a whole number of at least {least}", value, key)
    for key in (key for key in CHOICES if key in content):
        source.expect(content[key] in CHOICES[key], f"one of {', '.join(CHOICES[key])}", content[key], key)
    if "tuned" in content:
        source.expect(isinstance(content["tuned"], str), "the path of a tuned.json", content["tuned"], "tuned")
    files = content.get("plugins", [])
    right = isinstance(files, list) and all(isinstance(file, str) for file in files)
    source.expect(right, "a list of paths of Python files", files, "plugins")
    _check_budget(source, content.get("budget", {}))
    given = content.get("set", {})
    source.expect(isinstance(given, dict), "a table of methods", given, "set")
    for method, parameters in given.items():
        source.expect(isinstance(parameters, dict), "a table of parameters", parameters, "set", method)


def _check_budget(source: Source, budget: Any) -> None:
    source.expect(isinstance(budget, dict), "a table", budget, "budget")
    _check_keys(source, budget, BUDGET, "budget")
    for key, value in budget.items():
        right = _is_number(value, int | float) and 0 < value < float("inf")
        source.expect(right, "a positive number", value, "budget", key)


def _check_keys(source: Source, table: Mapping[str, Any], available: Collection[str], *within: str) -> None:
    for key in table:
        if key not in available:
            raise source.wrong(unknown("key", key, available), *within, key)


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _labels(
    source: Source, key: str, groups: Mapping[str, tuple[str, ...]], spelled: Callable[[str], str]
) -> tuple[str, ...]:
    """The labels that a list gives as text, as names of groups, or as tables of a name and parameters."""
    listed = source.content.get(key)
    if listed is None:
        raise source.wrong(f'{key!r} is missing; it lists what to compare, as {key} = ["all"]')
    source.expect(isinstance(listed, list) and len(listed) > 0, "a list of names or tables, not empty", listed, key)
    with source.at(key):
        every = [label for entry in listed for label in _expanded(entry, key, groups)]
        return union((), map(spelled, every))


def _expanded(entry: object, key: str, groups: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The labels of an entry of a list; raises UsageError for one that is neither text nor a table with a name."""
    if isinstance(entry, str):
        return groups.get(entry, (entry,))
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise UsageError(f"{key!r} lists names and tables with a name, got {reprlib.repr(entry)}")
    parameters = {key: _plain(key, value) for key, value in entry.items() if key != "name"}
    label = labels.spell(entry["name"], parameters)
    if labels.parse(label) != (entry["name"], {key: labels.spell_value(each) for key, each in parameters.items()}):
        raise UsageError(f"{reprlib.repr(entry)} holds text that cannot stand in a label, NAME[parameter=value,...]")
    return (label,)


def _plain(key: str, value: object) -> bool | int | float | str:
    """A value that a parameter may have; raises UsageError for a list, a table or a date."""
    if not isinstance(value, bool | int | float | str):
        raise UsageError(f"{key!r} must be a number, text, true or false, got {reprlib.repr(value)}")
    return value


def _check_parameters(source: Source, settings: execute.Settings, known: Registry) -> None:
    """Raise UsageError for [set.METHOD] of a method that is not compared, and for parameters that do not fit."""
    used = union((), map(labels.name_of, settings.methods))
    for name, parameters in settings.parameters.items():
        with source.at("set", name):
            if name not in used:
                raise unknown("method in 'set'", name, used)
        for key, value in parameters.items():
            with source.at("set", name, key):
                known.parameters(name, {key: _plain(key, value)})
