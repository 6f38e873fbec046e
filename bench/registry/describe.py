"""What `python -m bench list NAME` says of one method or dataset, read off its class or factory."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.common.errors import unknown
from bench.registry.labels import spell_value
from methods.contract.search_space import Choice, LogUniform, Range

if TYPE_CHECKING:
    from bench.registry.registry import Item, Registry

COMMON = {
    "size": ("number of training data", "--size"),
    "noise": ("variance of the true model's noise", "the dataset's own"),
    "activation": ("the decoder's", "tanh"),
}


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter of a method, or a parameter of a dataset, in words.

    searched: what `tune` tries. ablated: what `sweep` tries unless told.
    """

    name: str
    kind: str
    default: str
    meaning: str
    searched: str = ""
    ablated: str = ""


@dataclass(frozen=True)
class Details:
    """One method or dataset. about: its docstring, up to where it explains parameters."""

    name: str
    summary: str
    source: str
    origin: str
    about: str
    example: str
    parameters: tuple[Parameter, ...]


def details(known: Registry, name: str, kinds: Iterable[str]) -> Details:
    """What is known of a method or dataset; raises UsageError with the nearest name for one that there is not."""
    if name in known.methods:
        return _of_method(known, known.methods[name])
    if name in known.datasets:
        return _of_dataset(known.datasets[name])
    raise unknown("name", name, [*kinds, *known.methods, *known.datasets])


def _of_method(known: Registry, item: Item) -> Details:
    made = known.make_method(item.name)
    fields = [field for field in dataclasses.fields(made) if field.init]
    names = [field.name for field in fields]
    meanings: dict[str, str] = {}
    for base in reversed(type(made).__mro__):
        meanings |= explained(documented(base), names)[1]
    search, ablation = made.search, made.ablation
    parameters = tuple(
        Parameter(
            field.name,
            _spelled(field.type),
            spell_value(getattr(made, field.name)),
            meanings.get(field.name, ""),
            _span(search[field.name]) if field.name in search else "",
            ", ".join(map(spell_value, ablation.get(field.name, ()))),
        )
        for field in fields
    )
    return _details(item, type(made), names, parameters)


def _of_dataset(item: Item) -> Details:
    factory = item.load()
    own = list(inspect.signature(factory).parameters.values())
    names = [parameter.name for parameter in own]
    meanings = explained(documented(factory), names)[1]
    taken = [_taken(parameter, meanings) for parameter in (own if item.latent_dim is None else own[1:])]
    common = [Parameter(name, "", default, meaning) for name, (meaning, default) in COMMON.items() if name not in names]
    return _details(item, factory, names, (*taken, *common))


def _taken(parameter: inspect.Parameter, meanings: Mapping[str, str]) -> Parameter:
    """A parameter of a factory."""
    untyped = parameter.annotation is parameter.empty
    required = parameter.default is parameter.empty
    return Parameter(
        parameter.name,
        "" if untyped else _spelled(parameter.annotation),
        "" if required else spell_value(parameter.default),
        meanings.get(parameter.name, ""),
    )


def _spelled(annotation: Any) -> str:
    """A type as it is written in source code, whether its annotation was evaluated or not."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _details(item: Item, target: Any, names: Collection[str], parameters: tuple[Parameter, ...]) -> Details:
    about = explained(documented(target), names)[0]
    named = [parameter.name for parameter in parameters]
    example = f"{item.name}[{named[0]}=...]" if named else ""
    return Details(item.name, item.summary, item.source, item.origin, about, example, parameters)


def explained(text: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """A docstring up to its first 'name: meaning' of these names, and the meaning of each that it explains.

    Several names before one colon, 'a, b: meaning', share it, on one line or two; a symbol may follow a name, as in
    'noise s2: meaning'.
    """
    one = f"(?:{'|'.join(map(re.escape, names))})"
    found = list(re.finditer(rf"(?<![\w`])({one}(?:,\s+{one})*)(?: \w+)?:\s", text)) if names else []
    if not found:
        return text.strip(), {}
    ends = [match.start() for match in found[1:]] + [len(text)]
    meanings = {
        name: " ".join(text[match.end() : end].partition("\n\n")[0].split()).rstrip(".")
        for match, end in zip(found, ends, strict=True)
        for name in re.split(r",\s+", match[1])
    }
    return text[: found[0].start()].strip(), meanings


def documented(target: Any) -> str:
    """The docstring of a class or factory, but for that which dataclasses write by themselves."""
    text = inspect.getdoc(target) or ""
    return "" if text.startswith(f"{getattr(target, '__name__', '')}(") else text


def _span(values: Range) -> str:
    if isinstance(values, Choice):
        return ", ".join(map(spell_value, values.values))
    return f"{values.low:g} to {values.high:g}{', evenly in log' if isinstance(values, LogUniform) else ''}"
