"""Study files: the settings of a study in TOML, read with errors that name file, line and key."""

from __future__ import annotations

import contextlib
import re
import reprlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.common.errors import UsageError, unknown
from bench.config import labels
from bench.config.fields import fields, read
from bench.config.schema import Settings
from bench.store.files import replacing
from bench.study.folder import stated_settings
from bench.study.plan import Plan, resolve

NAME = re.compile(r"[\w+-][\w.+-]*")
FIRST = ("methods", "datasets", "data", "columns", "baseline", "margin", "seeds", "first_seed")
PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)")


@dataclass(frozen=True)
class Source:
    """A study file.

    Args:
        path: Where it is.
        text: Its text.
        content: What the text says.
    """

    path: Path
    text: str
    content: Mapping[str, Any]

    @contextlib.contextmanager
    def naming_lines(self) -> Iterator[None]:
        """Within, errors name the file and the line on which their key is set."""
        try:
            yield
        except UsageError as error:
            line = line_of(self.text, error.key) if error.key else None
            raise UsageError(f"{self.path}{f', line {line}' if line else ''}: {error}") from None


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """The line on which the statement begins that first sets a key of nested tables; None if none does.

    The lines up to the end of a statement are valid TOML; those up to its middle are not.

    Args:
        text: TOML.
        keys: The path of the key.
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


def read_plan(path: Path, plugins: Sequence[str] = ()) -> tuple[Plan, str]:
    """The plan of a study file, and the study's name.

    Args:
        path: The file. Files that it names are looked for from its folder.
        plugins: Paths of further plugin files.

    Raises:
        UsageError: If the file cannot be read, is not TOML, or asks for what cannot be run; names file, line and key.
    """
    source = _parsed(path)
    with source.naming_lines():
        given = dict(source.content)
        name = given.pop("name", path.stem)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            wanted = "'name' must be letters, digits and . _ + -, and not begin with ."
            raise UsageError(f"{wanted}, got {reprlib.repr(name)}", key=("name",))
        known = [field.name for field in fields(Settings)]
        for key in given:
            if key not in known:
                raise UsageError(str(unknown("key", key, ["name", *known])), key=(key,))
        for key in ("methods", "datasets"):
            if key in given:
                given[key] = _listed(key, given[key])
            elif key == "methods" or "data" not in given:
                raise UsageError(f'{key!r} is missing; it lists what to compare, as {key} = ["all"]')
        settings = read(Settings, given, lambda field: repr(field.name))
        own, data = (
            tuple(str((path.parent / each).resolve()) for each in files) for files in (settings.plugins, settings.data)
        )
        tuned = None if settings.tuned is None else str(path.parent / settings.tuned)
        every = tuple(dict.fromkeys([*own, *plugins]))
        return resolve(msgspec.structs.replace(settings, plugins=every, data=data, tuned=tuned)), name


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


def _listed(key: str, listed: object) -> list[str]:
    """The labels of a list, given as text or as tables of a name and parameters."""
    if not isinstance(listed, list) or not listed:
        wanted = f"{key!r} must be a list of names or tables, not empty"
        raise UsageError(f"{wanted}, got {reprlib.repr(listed)}", key=(key,))
    return [_label(key, entry) for entry in listed]


def _label(key: str, entry: object) -> str:
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise UsageError(f"{key!r} lists names and tables with a name, got {reprlib.repr(entry)}", key=(key,))
    try:
        parameters = {name: labels.plain(name, value) for name, value in entry.items() if name != "name"}
    except UsageError as error:
        raise UsageError(str(error), key=(key,)) from None
    label = labels.spell(entry["name"], parameters)
    if labels.parse(label) != (entry["name"], {name: labels.spell_value(each) for name, each in parameters.items()}):
        raise UsageError(
            f"{reprlib.repr(entry)} holds text that cannot stand in a label, NAME[parameter=value,...]", key=(key,)
        )
    return label


def write(plan: Plan, folder: Path, name: str = "") -> None:
    """Write study.toml, from which `python -m bench run` makes the same runs, and the tuned.json that they took.

    Args:
        plan: What the folder holds.
        folder: The study's folder.
        name: The study's name; by default the folder's.
    """
    import tomli_w

    settings = stated_settings(plan, folder)
    if plan.tuned is not None:
        (folder / "tuned").mkdir(exist_ok=True)
        with replacing(folder / "tuned" / plan.tuned.file) as temporary:
            temporary.write_bytes(plan.tuned.content)
    name = name or re.sub(r"[^\w.+-]+", "-", folder.resolve().name).lstrip(".") or "study"
    stated = {key: value for key, value in settings.items() if value is not None and value not in ([], (), {})}
    stated["set"] = {
        method: {key: "none" if value is None else value for key, value in given.items()}
        for method, given in stated.get("set", {}).items()
    }
    order = sorted(stated, key=lambda key: (key not in FIRST, key in ("set", "tuned", "plugins")))
    text = tomli_w.dumps({"name": name, **{key: stated[key] for key in order if stated[key] != {}}})
    with replacing(folder / "study.toml") as temporary:
        header = "# Run it again: python -m bench run study.toml --out DIR\n"
        temporary.write_text(header + text, encoding="utf-8", errors="surrogateescape")
