"""What it costs one method to match another that was fitted and scored on the same data at each of a few seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.stats.bootstrap import Array

if TYPE_CHECKING:
    import pandas as pd

SLACK = 0.01  # nats


@dataclass(frozen=True)
class Match:
    """The cost at which a method first reaches a target, divided by the other's cost to reach it.

    Args:
        seeds: The shared seeds.
        wall_ratios: The ratio of wall times at each seed; infinite where the method never reaches the target. Where
            neither does, it is infinite too, or not known (NaN) if the method reaches it at more than half of seeds.
        flops_ratios: The same of FLOPs.
        passages: At each seed the FLOPs at which the other first reaches the target, as a share of its total.
        reached: How many seeds reach the target.
        open: How many seeds neither method reaches it at.
    """

    seeds: tuple[int, ...]
    wall_ratios: tuple[float, ...]
    flops_ratios: tuple[float, ...]
    passages: tuple[float, ...]
    reached: int
    open: int

    @property
    def wall(self) -> float:
        """The median ratio of wall times over the seeds at which it is known."""
        return _median(self.wall_ratios)

    @property
    def flops(self) -> float:
        """The median ratio of FLOPs over the seeds at which it is known."""
        return _median(self.flops_ratios)

    @property
    def passage(self) -> float:
        """The median over seeds of the share of its total at which the other reaches the target."""
        return _median(self.passages)

    @property
    def neither(self) -> bool:
        """Whether neither reaches the target, at half of the seeds or more."""
        return 2 * self.open >= len(self.seeds)

    @property
    def usual(self) -> bool:
        """Whether more than half of the seeds reach the target."""
        return 2 * self.reached > len(self.seeds)


def _median(values: tuple[float, ...]) -> float:
    known = [value for value in values if value == value]
    return float(np.median(known)) if known else float("nan")


def cost_to_match(mine: pd.DataFrame, theirs: pd.DataFrame, seeds: Iterable[int]) -> Match:
    """The cost to first reach the other's final test_ll less .01 nats, even if it falls below it later.

    The slack keeps the target from resting on the last thousandths of a nat, for which a fit may spend most of its
    steps.

    Args:
        mine: Rows of test_ll on one dataset, with seed, checkpoint, value, wall_s and flops.
        theirs: The same of the other method.
        seeds: The seeds that both finished.
    """
    shared = tuple(seeds)
    others = _Looks(theirs, shared)
    return _match(_Looks(mine, shared), others, others.last()["value"] - SLACK)


def cost_to_come_near(
    mine: pd.DataFrame, theirs: pd.DataFrame, truth: pd.Series, distance: float, seeds: Iterable[int]
) -> Match:
    """The cost to first come within a distance of the true model.

    Args:
        mine: Rows of test_ll on one dataset, with seed, checkpoint, value, wall_s and flops.
        theirs: The same of the other method.
        truth: The true model's test_ll at each seed.
        distance: The distance, in nats.
        seeds: The seeds that both finished.
    """
    shared = tuple(seeds)
    goal = truth.reindex(shared).to_numpy(dtype=float) - distance
    return _match(_Looks(mine, shared), _Looks(theirs, shared), goal)


def _match(mine: _Looks, theirs: _Looks, goal: Array) -> Match:
    own, other, total = mine.reaching(goal), theirs.reaching(goal), theirs.last()["flops"]
    mine_does, theirs_does = ~np.isnan(own["value"]), ~np.isnan(other["value"])

    neither = np.nan if 2 * mine_does.sum() > len(mine_does) else np.inf

    def ratios(cost: str) -> tuple[float, ...]:
        spent = np.where(other[cost] > 0, other[cost], np.nan)
        found = np.where(mine_does, np.where(theirs_does, own[cost] / spent, 0.0), np.inf)
        found = np.where(mine_does | theirs_does, found, neither)
        if np.isnan(own[cost][mine_does]).any() or np.isnan(other[cost][theirs_does]).any():
            found[:] = np.nan  # else the seeds that miss the target, which need no cost, would decide alone
        return tuple(found.tolist())

    with np.errstate(divide="ignore", invalid="ignore"):
        passages = np.where(theirs_does, other["flops"] / total, np.inf)
    return Match(
        seeds=mine.seeds,
        wall_ratios=ratios("wall_s"),
        flops_ratios=ratios("flops"),
        passages=tuple(passages.tolist()),
        reached=int(mine_does.sum()),
        open=int((~mine_does & ~theirs_does).sum()),
    )


class _Looks:
    """What a method had at its checkpoints, in their order, at some seeds."""

    def __init__(self, rows: pd.DataFrame, seeds: tuple[int, ...]):
        places = {seed: place for place, seed in enumerate(seeds)}
        place = np.array([places.get(seed, -1) for seed in rows["seed"].tolist()])
        order = np.argsort(rows["checkpoint"].to_numpy(), kind="stable")
        order = order[place[order] >= 0]
        self.seeds, self.place = seeds, place[order]
        self.columns = {name: rows[name].to_numpy(dtype=float)[order] for name in ("value", "wall_s", "flops")}

    def reaching(self, goal: Array) -> dict[str, Array]:
        """What it had at the first checkpoint at which it reaches the goal of a seed; NaN where it never does."""
        return self._first(np.flatnonzero(self.columns["value"] >= goal[self.place]))

    def last(self) -> dict[str, Array]:
        """What it had at the last checkpoint of each seed."""
        return self._first(np.arange(len(self.place))[::-1])

    def _first(self, rows: NDArray[np.intp]) -> dict[str, Array]:
        """What it had at the first of some rows of each seed; NaN where there is none."""
        places, first = np.unique(self.place[rows], return_index=True)
        found = {name: np.full(len(self.seeds), np.nan) for name in self.columns}
        for name, values in self.columns.items():
            found[name][places] = values[rows[first]]
        return found
