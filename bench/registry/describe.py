"""What `python -m bench list NAME` shows of one method or dataset, read from its class or factory."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.common.errors import unknown
from bench.config.fields import fields
from bench.config.labels import spell_value
from bench.config.schema import Conditions
from bench.registry.declared import ablation, search
from bench.registry.plugins import Entry
from bench.registry.registry import NOISE, Registry
from methods.contract.search_space import Choice, LogUniform, Range


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter of a method, or a parameter of a dataset, in words.

    Args:
        name: Its name.
        kind: Its type.
        default: Its default.
        meaning: What it means.
        searched: What `tune` tries.
        ablated: What `sweep` tries if no factor is named.
    """

    name: str
    kind: str
    default: str
    meaning: str
    searched: str = ""
    ablated: str = ""


@dataclass(frozen=True)
class Description:
    """One method or dataset.

    Args:
        name: Its name.
        summary: What it is, in a line.
        source: Where it comes from.
        origin: Who offers it.
        about: Its docstring, up to where arguments are explained.
        example: A label that sets a parameter; empty if it has none.
        parameters: Its parameters.
    """

    name: str
    summary: str
    source: str
    origin: str
    about: str
    example: str
    parameters: tuple[Parameter, ...]


def description(known: Registry, name: str, kinds: Iterable[str]) -> Description:
    """Describe a method or dataset.

    Args:
        known: What can be compared.
        name: The name of a method or dataset.
        kinds: What else the user could have asked for.

    Raises:
        UsageError: If there is none of that name; the message names the nearest one.
    """
    if name in known.methods:
        return _method(known, known.methods[name])
    if name in known.datasets:
        return _dataset(known.datasets[name])
    raise unknown("name", name, [*kinds, *known.methods, *known.datasets])


def _method(known: Registry, entry: Entry) -> Description:
    made: Any = known.make_method(entry.name)
    ranges, levels = search(known, entry.name), ablation(known, entry.name)
    meanings: dict[str, str] = {}
    for base in reversed(type(made).__mro__):
        meanings |= _documented(base)[1]
    parameters = tuple(
        Parameter(
            field.name,
            _spelled(field.type),
            spell_value(getattr(made, field.name)),
            meanings.get(field.name, ""),
            _span(ranges[field.name]) if field.name in ranges else "",
            ", ".join(map(spell_value, levels.get(field.name, ()))),
        )
        for field in dataclasses.fields(made)
        if field.init
    )
    return _described(entry, type(made), parameters)


def _dataset(entry: Entry) -> Description:
    factory = entry.load()
    own = list(inspect.signature(factory).parameters.values())
    meanings = _documented(factory)[1]
    taken = [
        Parameter(
            each.name,
            "" if each.annotation is each.empty else _spelled(each.annotation),
            "" if each.default is each.empty else spell_value(each.default),
            meanings.get(each.name, ""),
        )
        for each in (own if entry.latent_dim is None else own[1:])
    ]
    common = [
        Parameter(each.name, "", each.extra.get("default") or spell_value(each.default), each.help.rstrip("."))
        for each in fields(Conditions)
        if each.name in Conditions.IN_LABEL
    ]
    common.append(Parameter(NOISE, "", "the dataset's own", "Variance of the true model's noise"))
    names = {parameter.name for parameter in own}
    return _described(entry, factory, (*taken, *(each for each in common if each.name not in names)))


def _described(entry: Entry, target: Any, parameters: tuple[Parameter, ...]) -> Description:
    about = _documented(target)[0]
    example = f"{entry.name}[{parameters[0].name}=...]" if parameters else ""
    return Description(entry.name, entry.summary, entry.source, entry.origin, about, example, parameters)


def _documented(target: Any) -> tuple[str, dict[str, str]]:
    """A docstring without its sections, and the meanings in its `Args:` section."""
    from docstring_parser import parse

    text = inspect.getdoc(target) or ""
    if text.startswith(f"{getattr(target, '__name__', '')}("):  # which dataclasses write by themselves
        return "", {}
    found = parse(text)
    about = "\n\n".join(filter(None, (found.short_description, found.long_description)))
    meanings = {each.arg_name: " ".join((each.description or "").split()).rstrip(".") for each in found.params}
    return about, meanings


def _spelled(annotation: Any) -> str:
    """A type as source code spells it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _span(values: Range) -> str:
    if isinstance(values, Choice):
        return ", ".join(map(spell_value, values.values))
    return f"{values.low:g} to {values.high:g}{', evenly in log' if isinstance(values, LogUniform) else ''}"
