"""Answers that are kept, as every draw and every density would else compute them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

SETS = 2

T = TypeVar("T")


class Kept(Generic[T]):
    """A function of points whose values for the last two sets of points are kept.

    Args:
        find: The function, of points (n, D). It must give the same for the same points.
    """

    def __init__(self, find: Callable[[Tensor], T]):
        self.find = find
        self._found: list[tuple[Tensor, T]] = []

    def __call__(self, x: Tensor) -> T:
        """The value at points (n, D), which must not be changed."""
        for points, value in self._found:
            alike = (points.shape, points.dtype, points.device) == (x.shape, x.dtype, x.device)
            if alike and torch.equal(points, x):
                return value
        value = self.find(x)
        self._found = [*self._found[1 - SETS :], (x.clone(), value)]
        return value
