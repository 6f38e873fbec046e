"""The value of a metric with its error and diagnostics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

TAIL = 100  # one of so many points is in each tail


class NotFiniteError(Exception):
    """The score of a fitted model is not a finite number."""


@dataclass(frozen=True)
class Measurement:
    """One value of one metric.

    Args:
        metric: The name of the metric.
        value: The value, in `unit`.
        stderr: Its standard error, in `unit`.
        unit: The unit.
        diagnostics: Numbers that show whether the estimator worked, by name, such as an effective sample size.
    """

    metric: str
    value: float
    stderr: float
    unit: str = "nats"
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    def checked(self) -> Measurement:
        """The measurement itself.

        Raises:
            NotFiniteError: If its value is not a finite number.
        """
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
    """The mean of a metric over points. Its standard error combines sampling and numerical error in quadrature.

    Args:
        metric: The name of the metric.
        each: Its value at each point, (n,).
        numerical_error: The numerical error of each value, (n,); None if there is none.
        unit: The unit.
        diagnostics: Numbers that show whether the estimator worked, by name.
    """
    numerical = 0.0 if numerical_error is None else float(numerical_error.mean())
    return Measurement(metric, float(each.mean()), math.hypot(standard_error(each), numerical), unit, diagnostics or {})


def tails(metric: str, each: Tensor, numerical_error: Tensor) -> list[Measurement]:
    """How far the mean of a metric rests on its extreme points: `_trimmed` and `_worst`, for 100 points or more.

    With g = n // 100, `_trimmed` is the mean without the g lowest and the g highest values. Its standard error is that
    of the winsorised mean times n / (n - 2 g) (Tukey & McLaughlin 1963). `_worst` is the part of the mean that the g
    highest values contribute, their sum over n. With the order statistic q below them, its error to first order is that
    of the mean of max(value - q, 0).

    Args:
        metric: The name of the metric, to which the endings are added.
        each: Its value at each point in nats, (n,).
        numerical_error: The numerical error of each value, (n,).

    Returns:
        The two measurements; none below 100 points.
    """
    n, g = len(each), len(each) // TAIL
    if g == 0:
        return []
    order = each.argsort()
    kept, highest = order[g:-g], order[-g:]
    low, high = each[kept[0]], each[kept[-1]]
    trimmed = standard_error(each.clamp(low, high)) * n / len(kept)
    worst = standard_error((each - high).clamp(min=0))
    return [
        Measurement(
            f"{metric}_trimmed", float(each[kept].mean()), math.hypot(trimmed, float(numerical_error[kept].mean()))
        ),
        Measurement(
            f"{metric}_worst",
            float(each[highest].sum()) / n,
            math.hypot(worst, float(numerical_error[highest].sum()) / n),
        ),
    ]


def standard_error(each: Tensor) -> float:
    """The standard error of the mean of independent values (n,); NaN for a single value.

    Args:
        each: The values, (n,), floating-point.

    Returns:
        The error, in the unit of the values.
    """
    return float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else math.nan


def root_mean(metric: str, squares: Tensor, numerical_error: float, unit: str) -> Measurement:
    """The root of a mean of squares over points, with the change of the root when the mean rises by its standard error.

    Args:
        metric: The name of the metric.
        squares: Its squared value at each point, (n,).
        numerical_error: The numerical error of the mean of squares.
        unit: The unit of the root.
    """
    mean_square = max(float(squares.mean()), 0.0)
    error = math.hypot(standard_error(squares), numerical_error)
    return Measurement(metric, math.sqrt(mean_square), math.sqrt(mean_square + error) - math.sqrt(mean_square), unit)
