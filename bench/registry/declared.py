"""What a method declares of its hyperparameters for `tune` and `sweep`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.common.errors import UsageError
from bench.registry.registry import Registry
from methods.contract.search_space import Range


def search(known: Registry, name: str) -> Mapping[str, Range]:
    """The ranges that `tune` searches, by hyperparameter; empty if the method declares none.

    Args:
        known: What can be compared.
        name: The method's name.

    Raises:
        UsageError: If they are no mapping of names to ranges.
    """
    found = known.make_method(name).search
    if not isinstance(found, Mapping) or not all(isinstance(each, Range) for each in found.values()):
        raise UsageError(
            f"search of method {name!r} must map names of hyperparameters to ranges of methods.contract.search_space, "
            f"such as LogUniform(1e-4, 1e-2), got {found!r}"
        )
    return found


def ablation(known: Registry, name: str) -> Mapping[str, tuple[Any, ...]]:
    """The levels that `sweep` tries, by hyperparameter; empty if the method declares none.

    Args:
        known: What can be compared.
        name: The method's name or label.

    Raises:
        UsageError: If they are no mapping of names to tuples of levels.
    """
    found = known.make_method(name).ablation
    if not isinstance(found, Mapping) or not all(isinstance(each, tuple | list) for each in found.values()):
        raise UsageError(
            f"ablation of method {name!r} must map names of hyperparameters to tuples of levels, got {found!r}"
        )
    return found
