"""How many trials a budget in FLOPs allows, by what the first of them cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def affordable(costs: Sequence[float], budget: float, limit: int) -> int:
    """How many trials of a method on a dataset count, once the first len(costs) > 0 of them have been run.

    They are taken in order. The next one is tried for as long as it fits into the budget at the mean cost so far; where
    it then costs more than is left, it does not count, so that those that count never cost more than the budget. The
    first one, the defaults, always counts. costs, budget: FLOPs. limit: the most trials there may be.

    More than len(costs) means that so many are to be run before it can be told: as many as fit at the mean cost, but at
    most twice as many as there are. What counts in the end does not depend on how many were run beyond it.
    """
    for count, spent in enumerate(accumulate(costs), 1):
        if spent > budget:
            return max(count - 1, 1)
        if count >= limit or spent * (count + 1) > budget * count:
            return count
    room = int(min(limit, budget * count / spent)) if spent else limit
    return min(limit, 2 * count, max(count + 1, room))
