"""Which tensors can be reached from an object: whether a task leads to data that the method must not see."""

from __future__ import annotations

from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor

SAME = 1e-6


def tensors(root: object) -> Iterator[Tensor]:
    """Every tensor that can be reached from an object by attributes, containers, bound methods and closures."""
    pending, seen = [root], set()
    while pending:
        each = pending.pop()
        if id(each) in seen or isinstance(each, ModuleType | type | BuiltinFunctionType | str):
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            yield each
        else:
            pending += _parts(each)


def _parts(each: Any) -> list[Any]:
    if isinstance(each, dict):
        return list(each.values())
    if isinstance(each, list | tuple | set | frozenset):
        return list(each)
    if isinstance(each, FunctionType):
        return [cell.cell_contents for cell in each.__closure__ or ()]
    if isinstance(each, MethodType):
        return [each.__self__, each.__func__]
    return list(getattr(each, "__dict__", {}).values())


def holds(root: object, points: Tensor) -> bool:
    """Whether a tensor that can be reached from an object has one of the points (n, D) as a row."""
    found = [t.detach().double() for t in tensors(root) if t.dim() == 2 and t.shape[1] == points.shape[1]]
    return any(bool((torch.cdist(points, rows) < SAME).any()) for rows in found)
