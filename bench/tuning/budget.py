"""How many trials a budget in FLOPs allows, given what the first of them cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def affordable(costs: Sequence[float], budget: float, limit: int) -> int:
    """How many trials of a method on a dataset count, once the first len(costs) > 0 of them have been run.

    Trials are taken in order, as long as the next one fits into the budget at the mean cost so far. A trial that costs
    more than is left does not count, so that the trials that count never cost more than the budget. The first trial,
    the defaults, always counts. What counts does not depend on how many trials were run beyond it.

    Args:
        costs: FLOPs of each trial so far.
        budget: FLOPs for all trials.
        limit: The most trials.

    Returns:
        The number of trials that count. More than len(costs) means that so many must be run before it is known: as
        many as fit at the mean cost, at most twice as many as there are.
    """
    for count, spent in enumerate(accumulate(costs), 1):
        if spent > budget:
            return max(count - 1, 1)
        if count >= limit or spent * (count + 1) > budget * count:
            return count
    room = int(min(limit, budget * count / spent)) if spent else limit
    return min(limit, 2 * count, max(count + 1, room))
