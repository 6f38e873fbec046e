"""Rows for plots of posteriors: which training point's code generated x, and the noiseless signal at x."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.metrics.posterior import signals, true_log_index
from bench.store.schema import FLOOR, LEAST_INDEX_PROBABILITY, TRUTH
from datasets.base import Problem
from methods.common.latent_grid import GridPosterior, index_without_codes
from methods.contract.method import Fitted

RANKS = (0.125, 0.375, 0.625, 0.875)
MOST_POINTS = 2000
SIGNALS = 64
SEEN_DIMS = (2, 3)

Row = tuple[str, int, int, float, list[float], float]
SignalRow = tuple[str, int, int, list[float], list[float]]


def index_posteriors(
    name: str, fitted: Fitted, problem: Problem, truth: GridPosterior, train: Tensor, codes: Tensor
) -> list[Row]:
    """Index posteriors of four training points, those whose true codes have the ranks 1/8, 3/8, 5/8 and 7/8.

    A row has one of three names: `truth` is the true model with the true codes, `floor` is the true model without the
    codes, and the method's name is the method's own. Training points whose probability is below 1e-6 under all three
    are left out, except the point itself.

    Args:
        name: The name of the method.
        fitted: What the method has learned.
        problem: The data source.
        truth: The true p(z | x) on a grid.
        train: Training points, (N, D).
        codes: Their true codes, (N, 1).

    Returns:
        Rows (name, n, i, z_i, x_i, probability that code i generated x_n); none for a method without an index
        posterior, and none above 2,000 training points.
    """
    if fitted.log_index is None or len(train) > MOST_POINTS:
        return []
    points = _spread(codes[:, 0])
    known: dict[str, Callable[[Tensor], Tensor]] = {
        TRUTH: lambda x: true_log_index(problem, x, codes),
        FLOOR: index_without_codes(truth, train.cpu()),
        name: fitted.log_index,
    }
    found = {each: log_index(train[points]).exp().double().cpu() for each, log_index in known.items()}
    kept = torch.stack(list(found.values())).amax(0) > LEAST_INDEX_PROBABILITY
    kept[range(len(points)), points] = True
    which, index = kept.nonzero(as_tuple=True)
    asked = [points[k] for k in which.tolist()]
    shared = (asked, index.tolist(), codes[index, 0].tolist(), train.cpu()[index].tolist())
    rows = {each: zip(*shared, probability[kept].tolist(), strict=True) for each, probability in found.items()}
    return [(each, *row) for each in rows for row in rows[each]]


def signal_posteriors(
    name: str, fitted: Fitted, problem: Problem, truth: GridPosterior, test: Tensor, seed: int
) -> list[SignalRow]:
    """Signal posteriors of four test points, those whose first coordinates have the ranks 1/8, 3/8, 5/8 and 7/8.

    Each is represented by 64 equally weighted points, as in `signal_w2`. Under the name `truth` they are f(z) with z
    from the true p(z | x); under the method's name they are the learned decoder's values with z from q(z | x).

    Args:
        name: The name of the method.
        fitted: What the method has learned.
        problem: The data source.
        truth: The true p(z | x) on a grid.
        test: Test points, (T, D).
        seed: The seed of the draws.

    Returns:
        Rows (name, n, j, x_n, signal), j counting the points of a posterior; none unless D is 2 or 3.
    """
    if problem.data_dim not in SEEN_DIMS:
        return []
    points = _spread(test[:, 0])
    (both,) = signals(fitted, problem, truth, test[points], (SIGNALS,), seed)
    found = zip((TRUTH, name), both, strict=True)
    asked = list(zip(points, test[points].tolist(), strict=True))
    return [
        (whose, point, j, x, signal)
        for whose, drawn in found
        for (point, x), of_x in zip(asked, drawn.tolist(), strict=True)
        for j, signal in enumerate(of_x)
    ]


def _spread(values: Tensor) -> list[int]:
    """The indices of the values (N,) with the ranks 1/8, 3/8, 5/8 and 7/8, each index once."""
    order = values.argsort(stable=True).tolist()
    return list(dict.fromkeys(order[int(rank * len(order))] for rank in RANKS))
