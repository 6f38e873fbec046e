"""Where good hyperparameters are looked for: what a method may declare of its fields, as a ClassVar `search`.

Each range maps the unit interval to values, so that points spread evenly over the unit cube, such as a Sobol set, are
spread evenly over the ranges (quasi-random search, Bousquet et al. 2017, arXiv 1706.03200). Importable without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DIGITS = 3


@dataclass(frozen=True)
class Uniform:
    """Numbers from low to high, spread evenly; given to three significant digits."""

    low: float
    high: float

    def at(self, u: float) -> float:
        """The value at the share u of the way, for u in [0, 1)."""
        return _rounded(self.low + u * (self.high - self.low))


@dataclass(frozen=True)
class LogUniform:
    """Positive numbers from low to high, whose logarithms are spread evenly; given to three significant digits."""

    low: float
    high: float

    def at(self, u: float) -> float:
        """The value at the share u of the way, for u in [0, 1)."""
        return _rounded(self.low * (self.high / self.low) ** u)


@dataclass(frozen=True)
class Choice:
    """Certain values, each as likely as the others."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value at the share u of the way, for u in [0, 1)."""
        return self.values[int(u * len(self.values))]


Range = Uniform | LogUniform | Choice


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
