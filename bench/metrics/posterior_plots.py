"""Posteriors to look at, under the true model and a method: which training datum's code gave x, and what signal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.metrics.posterior import signals, true_log_index
from datasets.base import Problem
from methods.common.latent_grid import GridPosterior, index_without_codes
from methods.contract.method import Fitted

RANKS = (0.125, 0.375, 0.625, 0.875)
LEAST = 1e-6
MOST_DATA = 2000
SIGNALS = 64
SEEN_DIMS = (2, 3)
TRUTH, FLOOR = "truth", "floor"

Row = tuple[str, int, int, float, list[float], float]
SignalRow = tuple[str, int, int, list[float], list[float]]


def index_posteriors(
    name: str, fitted: Fitted, problem: Problem, truth: GridPosterior, train: Tensor, codes: Tensor
) -> list[Row]:
    """Rows (name, n, i, z_i, x_i, probability that the code of datum i gave x_n) for four of the training data (N, D).

    They are those whose true codes (N, 1) have the ranks 1/8, 3/8, 5/8 and 7/8. Under `truth`, the true model with the
    true codes; under `floor`, the true model without them; and under the method's own name. Data whose probability is
    below 1e-6 under all three are left out, but for x_n itself. Empty for a method without an index posterior, and
    above 2,000 data, which are more than one can look at.
    """
    if fitted.log_index is None or len(train) > MOST_DATA:
        return []
    points = _spread(codes[:, 0])
    known: dict[str, Callable[[Tensor], Tensor]] = {
        TRUTH: lambda x: true_log_index(problem, x, codes),
        FLOOR: index_without_codes(truth, train.cpu()),
        name: fitted.log_index,
    }
    found = {each: log_index(train[points]).exp().double().cpu() for each, log_index in known.items()}
    kept = torch.stack(list(found.values())).amax(0) > LEAST
    kept[range(len(points)), points] = True
    which, index = kept.nonzero(as_tuple=True)
    asked = [points[k] for k in which.tolist()]
    shared = (asked, index.tolist(), codes[index, 0].tolist(), train.cpu()[index].tolist())
    rows = {each: zip(*shared, probability[kept].tolist(), strict=True) for each, probability in found.items()}
    return [(each, *row) for each in rows for row in rows[each]]


def signal_posteriors(
    name: str, fitted: Fitted, problem: Problem, truth: GridPosterior, test: Tensor, seed: int
) -> list[SignalRow]:
    """Rows (name, n, j, x_n, signal) for four of the test data (N, D): equally weighted points of the signal given x_n.

    The data are those whose first coordinates have the ranks 1/8, 3/8, 5/8 and 7/8, the same for every method. Under
    `truth`, 64 points f(z) of z ~ p(z | x_n) of the true model; under the method's name, 64 of z ~ q(z | x_n) put
    through the learned decoder. Both stand for their posteriors as in `signal_w2`. Empty unless D is 2 or 3, which one
    can look at.
    """
    if problem.data_dim not in SEEN_DIMS:
        return []
    points = _spread(test[:, 0])
    found = zip((TRUTH, name), signals(fitted, problem, truth, test[points], SIGNALS, seed), strict=True)
    asked = list(zip(points, test[points].tolist(), strict=True))
    return [
        (whose, point, j, x, signal)
        for whose, drawn in found
        for (point, x), of_x in zip(asked, drawn.tolist(), strict=True)
        for j, signal in enumerate(of_x)
    ]


def _spread(values: Tensor) -> list[int]:
    """Where the values (N,) of the ranks 1/8, 3/8, 5/8 and 7/8 are; each place once."""
    order = values.argsort(stable=True).tolist()
    return list(dict.fromkeys(order[int(rank * len(order))] for rank in RANKS))
