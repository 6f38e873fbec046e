"""Wasserstein distances between sets of equally weighted points."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MANY = 200  # points of a set
SINKHORN_STEPS = 20
SMOOTHING = 0.05  # of the mean cost
LEAST = 1e-15


def squared_w2(first: Tensor, second: Tensor) -> Tensor:
    """The squared 2-Wasserstein distance of each of n pairs of sets of m points, exactly.

    Between sets of equal size the best transport plan is an assignment (Peyré & Cuturi 2019, prop. 2.1).

    Args:
        first: The first set of each pair, (n, m, D).
        second: The second set of each pair, (n, m, D).

    Returns:
        Squared distances, (n,).
    """
    first = first[:, _spread(first.shape[1])]
    return torch.stack([_cheapest(*pair) for pair in zip(first, second, strict=True)])


def _spread(count: int) -> list[int]:
    """0, ..., count - 1 with neighbours far from each other: in the order of their binary digits from the last one on.

    Neighbours on a curve compete for the same partners, and the search for an assignment is slow if it takes one after
    the other.
    """
    return sorted(range(count), key=lambda index: f"{index:032b}"[::-1])


def _cheapest(first: Tensor, second: Tensor) -> Tensor:
    """The squared distance of two sets, (m, D) each."""
    cost = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").square_()  # 0 between equals
    known = cost.numpy()
    rows, columns = linear_sum_assignment(known - _prices(known) if len(cost) >= MANY else known)
    return cost[rows, columns].mean()


def _prices(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """A number for each column (m,) of costs (m, m) that may be subtracted, as every assignment has each column once.

    The search for the cheapest assignment is two to three times shorter if they are near the solution of its dual. They
    are that of the smoothed problem, by a few steps of Sinkhorn's algorithm (Cuturi 2013, algorithm 1).
    """
    smoothing = SMOOTHING * float(cost.mean()) or 1.0
    kernel = np.exp((cost / -smoothing).astype(np.float32)) + np.float32(LEAST)
    of_rows = np.ones(len(cost), np.float32)
    for _ in range(SINKHORN_STEPS):
        of_columns = np.reciprocal(of_rows @ kernel)
        of_rows = np.reciprocal(kernel @ of_columns)
    return smoothing * np.log(of_columns.astype(np.float64))
