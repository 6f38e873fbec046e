"""Index posteriors to look at: which training datum's code gave x, under the true model and under a method."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.metrics.posterior import true_log_index
from datasets.base import Problem
from methods.base import Fitted
from methods.cells import CellPosterior
from methods.references import index_without_codes

RANKS = (0.125, 0.375, 0.625, 0.875)
LEAST = 1e-6
MOST_DATA = 2000
TRUTH, FLOOR = "truth", "floor"

Row = tuple[str, int, int, float, list[float], float]


def index_posteriors(
    name: str, fitted: Fitted, problem: Problem, truth: CellPosterior, train: Tensor, codes: Tensor
) -> list[Row]:
    """Rows (name, n, i, z_i, x_i, probability that the code of datum i gave x_n) for four of the training data (N, D).

    They are those whose true codes (N, 1) have the ranks 1/8, 3/8, 5/8 and 7/8. Under `truth`, the true model with the
    true codes; under `floor`, the true model without them; and under the method's own name. Data whose probability is
    below 1e-6 under all three are left out, but for x_n itself. Empty for a method without an index posterior, and
    above 2,000 data, which are more than one can look at.
    """
    if fitted.log_index is None or len(train) > MOST_DATA:
        return []
    order = codes[:, 0].argsort(stable=True).tolist()
    points = list(dict.fromkeys(order[int(rank * len(order))] for rank in RANKS))
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
