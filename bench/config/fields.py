"""Reads values into the typed settings, and says in one line what is wrong with them."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from bench.common.errors import UsageError, unknown
from bench.common.units import in_bytes
from bench.config import labels

S = TypeVar("S", bound=msgspec.Struct)
UNIONS = (Union, UnionType)  # `int | None`, with and without annotations


@dataclass(frozen=True)
class Field:
    """One field of a schema.

    Args:
        name: Its name, as in TOML and Python.
        kind: Its type, with limits.
        default: Its default.
        help: What it means.
        flag: How the command line spells it.
        extra: metavar, short, default (in words), multiple, parse, filled (text must name something) and report (the
            words for a value), where given.
    """

    name: str
    kind: Any
    default: Any
    help: str
    flag: str
    extra: Mapping[str, Any]


def fields(schema: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The fields of a schema in the order of their definition; a field without help is not offered."""
    found = []
    for each in msgspec.structs.fields(schema):
        metas = [meta for meta in get_args(each.type)[1:] if isinstance(meta, Meta)]
        about = next((meta for meta in metas if meta.description), None)
        if about is not None:
            default = each.default_factory() if each.default is msgspec.NODEFAULT else each.default
            extra = dict(about.extra or {})
            flag = extra.get("flag", f"--{each.name.replace('_', '-')}")
            found.append(Field(each.name, each.type, default, about.description or "", flag, extra))
    return tuple(found)


def flag(name: str) -> str:
    """A setting as the command line spells it."""
    return f"--{name.replace('_', '-')}"


def read(
    schema: type[S], given: Mapping[str, Any], spelled: Callable[[Field], str], text: bool = False, **fixed: Any
) -> S:
    """Typed settings from raw values.

    Args:
        schema: The schema.
        given: Raw values by name; what is absent has its default.
        spelled: How the user spells a field, for messages.
        text: Whether values are text, as on the command line.
        **fixed: Values that the user cannot give.

    Raises:
        UsageError: For a name that the schema lacks, and for a value of another type or beyond a limit; its `key` is
            the name.
    """
    known = {field.name: field for field in fields(schema)}
    for name in given:
        if name not in known:
            raise UsageError(str(unknown("setting", name, known)), key=(name,))
    return schema(**{name: _read(known[name], value, spelled, text) for name, value in given.items()}, **fixed)


def _read(field: Field, raw: Any, spelled: Callable[[Field], str], text: bool) -> Any:
    try:
        in_words = isinstance(raw, str) and field.extra.get("parse") == "bytes"
        value = _from_text(field, raw) if text or in_words else raw
        found = msgspec.convert(value, field.kind)
        if text and field.extra.get("filled") and not found:
            raise ValueError
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError
        if any("\0" in text for text in (found if isinstance(found, tuple) else (found,)) if isinstance(text, str)):
            raise ValueError
        return found
    except (ValueError, OverflowError):
        shown = raw if text and isinstance(raw, str) and raw.strip() else reprlib.repr(raw)
        raise UsageError(f"{spelled(field)} must be {expected(field)}, got {shown}", key=(field.name,)) from None


def _from_text(field: Field, value: Any) -> Any:
    """Text of the command line as what a schema converts: lists are split, sizes are bytes."""
    parse = field.extra.get("parse")
    if parse == "assignments":
        return labels.assignments(value)
    if parse == "bytes":
        return in_bytes(value)
    if field.extra.get("multiple"):
        return tuple(value)
    plain = _plain(field.kind)
    if get_origin(plain) is tuple:
        of_numbers = get_args(plain)[0] is not str
        parts = value.replace("x", ",").split(",")
        return tuple(labels.number(part, int) for part in parts) if of_numbers else labels.split(value)
    if plain in (int, float):
        return labels.number(value, plain)
    return value


def _plain(kind: Any) -> Any:
    """A type without its annotations and without None."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in UNIONS:
        return _plain(next(each for each in get_args(kind) if each is not NoneType))
    return kind


def _limits(kind: Any) -> list[Meta]:
    """All Meta of a type, those within a union included."""
    args = get_args(kind)
    if get_origin(kind) is Annotated:
        return [*(each for each in args[1:] if isinstance(each, Meta)), *_limits(args[0])]
    return [meta for each in args for meta in _limits(each)] if get_origin(kind) in UNIONS else []


def _range(metas: list[Meta]) -> str:
    """The limits of a number, in words."""
    least = next((meta.ge for meta in metas if meta.ge is not None), 0)
    most = next((f" and at most {meta.le:,}" for meta in metas if meta.le is not None), "")
    return f"of at least {least}{most}"


def choices(field: Field) -> tuple[str, ...]:
    """The values that a field can have, if there are only a few."""
    kind = _plain(field.kind)
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def expected(field: Field) -> str:  # noqa: PLR0911 - one line for each kind
    """The values that a field takes, in words."""
    kind, metas = _plain(field.kind), _limits(field.kind)
    if field.extra.get("parse") == "bytes":
        return "a number of bytes such as 512MB or 2GB"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(choices(field))}"
    if get_origin(kind) is tuple and get_args(kind)[0] is str:
        return "a list of names"
    if get_origin(kind) is tuple:
        return f"1 to 100 whole numbers, such as 64,64, each {_range(_limits(get_args(kind)[0]))}"
    if kind is int:
        return f"a whole number {_range(metas)}"
    if kind is float:
        return f"a number {_range(metas)}" if any(meta.ge is not None for meta in metas) else "a positive number"
    if kind is bool:
        return "true or false"
    if kind is str:
        return field.extra["metavar"] if any(meta.pattern for meta in metas) else "text"
    return "a table of methods, each with its hyperparameters"
