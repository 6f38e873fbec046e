"""Whether two results of one run agree in all values. Seconds and memory depend on the machine and do not count."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

# The values of a run, which are the same on every machine.
FOUND = (
    "formula_flops",
    "overrun_flops",
    "query_flops",
    "diagnostics",
    "work",
    "parameters",
    "densities",
    "posteriors",
    "signals",
    "images",
    "references",
)
OF_THE_MACHINE = ("wall_s", "cpu_s")


def difference(one: dict[str, Any], two: dict[str, Any]) -> tuple[str, object, object]:
    """The first difference between two results.

    Args:
        one: The content of one result file.
        two: The content of the other.

    Returns:
        What differs, and both values; an empty text if nothing does.
    """
    if one["status"] != two["status"]:
        return "its status", one["status"], two["status"]
    for here, there in zip_longest(one["rows"], two["rows"]):
        if here is None or there is None:
            return "the number of measurements", len(one["rows"]), len(two["rows"])
        for name in ("checkpoint", "metric", "value", "stderr", "unit"):
            if here[name] != there[name]:
                return f"{name} of {here['metric']} at checkpoint {here['checkpoint']}", here[name], there[name]
        if _counted(here) != _counted(there):
            return f"the cost at checkpoint {here['checkpoint']}", _counted(here), _counted(there)
    if _counted(one) != _counted(two):
        return "its cost", _counted(one), _counted(two)
    return next(
        ((f"its {name}", *_apart(*both)) for name in FOUND if (both := _both(name, one, two))[0] != both[1]), ("", 0, 0)
    )


def _both(name: str, one: dict[str, Any], two: dict[str, Any]) -> tuple[Any, Any]:
    """What both results hold under a name."""
    return one.get(name, []), two.get(name, [])


def _apart(one: Any, two: Any) -> tuple[object, object]:
    """Two values that differ; of lists, the first entries that do."""
    if isinstance(one, list) and isinstance(two, list):
        return next((here, there) for here, there in zip_longest(one, two) if here != there)
    return one, two


def _counted(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content["cost"].items() if name not in OF_THE_MACHINE}
