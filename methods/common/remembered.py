"""Answers that are remembered for the last sets of points, as every draw and every density would else need the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor

SETS = 2

Answer = TypeVar("Answer")


class Remembered(Generic[Answer]):
    """A function of points whose answers for the last two sets of points are kept.

    Args:
        compute: The function, which always gives the same answer for the same points.
    """

    def __init__(self, compute: Callable[[Tensor], Answer]):
        self.compute = compute
        self._kept: list[tuple[Tensor, Answer]] = []

    def __call__(self, x: Tensor) -> Answer:
        """The answer for points x, (n, D)."""
        for points, answer in self._kept:
            if points.shape == x.shape and points.dtype == x.dtype and bool((points == x).all()):
                return answer
        answer = self.compute(x)
        self._kept = [*self._kept[1 - SETS :], (x.clone(), answer)]
        return answer
