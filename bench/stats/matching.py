"""What it costs one method to match another that was fitted and scored on the same data at each of a few seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

SLACK = 0.01  # nats


@dataclass(frozen=True)
class Match:
    """The cost at which a method first reaches a target, divided by the other's cost to reach it.

    Args:
        seeds: The shared seeds.
        wall_ratios: The ratio of wall times at each seed; infinite where the method never reaches the target, NaN where
            neither does.
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
    return _match(mine, theirs, _last(theirs)["value"] - SLACK, seeds)


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
    return _match(mine, theirs, truth - distance, seeds)


def _match(mine: pd.DataFrame, theirs: pd.DataFrame, target: pd.Series, seeds: Iterable[int]) -> Match:
    shared = tuple(seeds)
    own, other = (_first_reaching(rows, target).reindex(shared) for rows in (mine, theirs))

    mine_does, theirs_does = own["value"].notna(), other["value"].notna()

    def ratios(cost: str) -> tuple[float, ...]:
        spent = other[cost].where(other[cost] > 0)
        found = (own[cost] / spent).where(theirs_does, 0.0).where(mine_does, float("inf"))
        return tuple(found.where(mine_does | theirs_does).astype(float))

    passages = (other["flops"] / _last(theirs)["flops"].reindex(shared)).where(theirs_does, float("inf"))
    return Match(
        seeds=shared,
        wall_ratios=ratios("wall_s"),
        flops_ratios=ratios("flops"),
        passages=tuple(passages.astype(float)),
        reached=int(mine_does.sum()),
        open=int((~mine_does & ~theirs_does).sum()),
    )


def _last(rows: pd.DataFrame) -> pd.DataFrame:
    """The last checkpoint of each seed."""
    return rows.sort_values("checkpoint").drop_duplicates("seed", keep="last").set_index("seed")


def _first_reaching(rows: pd.DataFrame, targets: pd.Series) -> pd.DataFrame:
    """The first checkpoint of each seed that reaches its target; without the seeds that never do."""
    reaching = rows[rows["value"] >= rows["seed"].map(targets)]
    return reaching.sort_values("checkpoint").drop_duplicates("seed").set_index("seed")
