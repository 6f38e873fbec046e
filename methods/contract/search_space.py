"""Ranges of hyperparameters that `tune` searches. A method declares them in its class attribute `search`.

Each range maps the unit interval to values. Points that are spread evenly over the unit cube, such as a Sobol set, are
then spread evenly over the ranges (quasi-random search, Bousquet et al. 2017, arXiv 1706.03200). Importable without
torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DIGITS = 3


@dataclass(frozen=True)
class Uniform:
    """Numbers spread evenly over a range, rounded to three significant digits.

    Args:
        low: The lowest value.
        high: The highest value.
    """

    low: float
    high: float

    def at(self, u: float) -> float:
        """The value at the fraction u of the range, u in [0, 1)."""
        return _rounded(self.low + u * (self.high - self.low))


@dataclass(frozen=True)
class LogUniform:
    """Positive numbers whose logarithms are spread evenly over a range, rounded to three significant digits.

    Args:
        low: The lowest value.
        high: The highest value.
    """

    low: float
    high: float

    def at(self, u: float) -> float:
        """The value at the fraction u of the range, u in [0, 1)."""
        return _rounded(self.low * (self.high / self.low) ** u)


@dataclass(frozen=True)
class Choice:
    """One of several values, all equally probable.

    Args:
        values: The values.
    """

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value at the fraction u of the range, u in [0, 1)."""
        return self.values[int(u * len(self.values))]


Range = Uniform | LogUniform | Choice


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
