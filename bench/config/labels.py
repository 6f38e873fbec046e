"""Labels: NAME or NAME[parameter=value,...], by which methods and datasets are asked for and told apart."""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from functools import cache
from types import NoneType
from typing import Any, get_args, get_type_hints

from bench.common.errors import UsageError, unknown

NAME = re.compile(r"[\w.+-]+")
TOGETHER = re.compile(r'"[^"]*"|\[[^\]]*\]')
FORM = re.compile(r"(?P<name>[^\[\]]*)(?:\[(?P<parameters>[^\[\]]+)\])?")
DIGITS = 400
WORDS = {"true": True, "false": False, "none": None}
EXPECTED = {bool: "true or false", int: "a whole number", float: "a finite number", NoneType: "none", str: "text"}


def split(text: str) -> tuple[str, ...]:
    """The labels of a list with commas between them; commas within brackets or double quotes belong to a label.

    Raises:
        UsageError: If a name is missing between commas.
    """
    marked = TOGETHER.sub(lambda found: found[0].replace(",", "\0"), text)
    parts = [part.replace("\0", ",").strip() for part in marked.split(",")]
    parts = [part[1:-1] if part[:1] == part[-1:] == '"' and len(part) > 1 else part for part in parts]
    if any(parts) and not all(parts):
        raise UsageError(f"a name is missing between the commas of {text!r}")
    return tuple(filter(None, parts))


def number(text: str, kind: type[int] | type[float]) -> int | float:
    """A number in plain digits; raises ValueError for any other text, and for a whole number beyond 64 bits."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    if len(text) > DIGITS:
        raise ValueError(text)
    value = kind(text)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(text)
    return value


def parse(label: str) -> tuple[str, dict[str, str]]:
    """The name in a label, and its parameters as text; raises UsageError for a label of another form."""
    match = FORM.fullmatch(label.strip())
    pairs = [pair.partition("=") for pair in (match["parameters"] or "").split(",") if pair] if match else []
    parameters = {key.strip(): value.strip() for key, _, value in pairs}
    if match is None or len(parameters) < len(pairs) or not all(key and value for key, value in parameters.items()):
        raise UsageError(f"{label!r} is not of the form NAME or NAME[parameter=value,...], each parameter once")
    return match["name"].strip(), parameters


def name_of(label: str) -> str:
    """The name in a label."""
    return parse(label)[0]


def spell(name: str, parameters: Mapping[str, Any]) -> str:
    """The label of a name with parameters, in their order and without spaces."""
    inner = ",".join(f"{key}={spell_value(value)}" for key, value in parameters.items())
    return f"{name}[{inner}]" if inner else name


def spell_value(value: object) -> str:
    """A value as it stands in a label: '2' for 2.0, 'true' for True."""
    if isinstance(value, tuple | list):
        return "x".join(map(str, value))
    if isinstance(value, float):
        return repr(float(value)).removesuffix(".0")
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def plain(key: str, value: object) -> bool | int | float | str:
    """A value that a hyperparameter may have in a study file.

    Raises:
        UsageError: For a list, a table or a date.
    """
    if not isinstance(value, bool | int | float | str) and value is not None:
        raise UsageError(f"{key!r} must be a number, text, true or false, got {reprlib.repr(value)}")
    return value  # type: ignore[return-value]


def literal(text: str) -> int | float | str:
    """Text as a whole number, else as a finite number, else as it is."""
    for kind in (int, float):
        try:
            return _converted(text, kind)
        except ValueError:
            continue
    return text


def convert(what: str, value: object, declared: Any) -> Any:
    """A value, perhaps given as text, as the type that a field declares; raises UsageError, naming `what`."""
    kinds = get_args(declared) or (declared,)
    known = [kind for kind in EXPECTED if kind in kinds]
    for kind in known:
        try:
            return _converted(spell_value(value), kind)
        except ValueError:
            continue
    if not known:
        raise UsageError(f"{what} cannot be set: it is {declared}, not a number, text, true or false")
    raise UsageError(f"{what} must be {' or '.join(EXPECTED[kind] for kind in known)}, got {spell_value(value)!r}")


def _converted(text: str, kind: Any) -> Any:
    """Text as a value of the type; raises ValueError if it is none."""
    if kind in (bool, NoneType):
        if not isinstance(WORDS.get(text.lower(), text), kind):
            raise ValueError(text)
        return WORDS[text.lower()]
    value = number(text, kind) if kind in (int, float) else kind(text)
    if kind is float and not math.isfinite(value):
        raise ValueError(text)
    return value


def converted(name: str, method: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a method, a dataclass called `name`, as its fields declare them and in their order.

    Raises UsageError for a parameter that there is not and for a value that does not convert.
    """
    fields = [field.name for field in dataclasses.fields(method) if field.init]
    for key in parameters:
        if key not in fields:
            raise unknown(f"parameter of {name!r}", key, fields)
    types = _declared(method.__class__) if parameters else {}
    return {
        key: convert(f"{name}.{key}", parameters[key], types.get(key, type(getattr(method, key))))
        for key in fields
        if key in parameters
    }


@cache
def _declared(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; none where they cannot be resolved."""
    try:
        return get_type_hints(kind)
    except Exception:
        return {}


def assignments(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """METHOD.PARAM=VALUE, each, as parameters by method; raises UsageError for another form or a repetition."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        target, _, value = text.partition("=")
        method, _, parameter = (part.strip() for part in target.rpartition("."))
        if not (method and parameter and value.strip()) or parameter in found.get(method, {}):
            raise UsageError(f"--set takes METHOD.PARAM=VALUE, each parameter once, got {text!r}")
        found.setdefault(method, {})[parameter] = value.strip()
    return found
