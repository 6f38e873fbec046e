"""A value of a metric, its error, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


class NotFiniteError(Exception):
    """A fitted model whose score is not a finite number."""


@dataclass(frozen=True)
class Measurement:
    """One value of one metric, with its standard error, both in `unit`.

    diagnostics: what tells whether the estimator worked, by name, such as an effective sample size.
    """

    metric: str
    value: float
    stderr: float
    unit: str = "nats"
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    def checked(self) -> Measurement:
        """Itself; raises NotFiniteError if the value is not a finite number."""
        if not math.isfinite(self.value):
            raise NotFiniteError(f"{self.metric} is {self.value}")
        return self


def mean(
    metric: str,
    each: Tensor,
    numerical_error: Tensor | None = None,
    unit: str = "nats",
    diagnostics: Mapping[str, float] | None = None,
) -> Measurement:
    """The mean of `each` (n,); its standard error adds, in quadrature, sampling and the mean numerical error."""
    numerical = 0.0 if numerical_error is None else float(numerical_error.mean())
    return Measurement(metric, float(each.mean()), math.hypot(standard_error(each), numerical), unit, diagnostics or {})


def standard_error(each: Tensor) -> float:
    """The standard error of the mean of independent values (n,); NaN for a single one."""
    return float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else math.nan


def root_mean(metric: str, squares: Tensor, numerical_error: float, unit: str) -> Measurement:
    """The root of the mean of squares (n,), with the distance to the root of what is one standard error more."""
    mean_square = max(float(squares.mean()), 0.0)
    error = math.hypot(standard_error(squares), numerical_error)
    return Measurement(metric, math.sqrt(mean_square), math.sqrt(mean_square + error) - math.sqrt(mean_square), unit)
