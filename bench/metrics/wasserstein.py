"""Wasserstein distances between sets of equally weighted points."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def squared_w2(first: Tensor, second: Tensor) -> Tensor:
    """The squared 2-Wasserstein distance of each of n pairs of sets of m points, exactly.

    Between sets of equal size the best transport plan is an assignment (Peyré & Cuturi 2019, prop. 2.1).

    Args:
        first: The first set of each pair, (n, m, D).
        second: The second set of each pair, (n, m, D).

    Returns:
        Squared distances, (n,).
    """
    cost = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").square()  # exactly 0 between equals
    return torch.stack([_cheapest(each) for each in cost[:, _spread(cost.shape[1])]])


def _spread(count: int) -> list[int]:
    """0, ..., count - 1 with neighbours far from each other: in the order of their binary digits from the last one on.

    Neighbours on a curve compete for the same partners, and the search for an assignment is slow if it takes one after
    the other.
    """
    return sorted(range(count), key=lambda index: f"{index:032b}"[::-1])


def _cheapest(cost: Tensor) -> Tensor:
    rows, columns = linear_sum_assignment(cost.numpy())
    return cost[rows, columns].mean()
