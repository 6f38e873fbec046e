"""Seconds that can be quoted: those of one fit with nothing beside it, for all seeds that are fitted alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from bench.store.records import Cost, RunResult, RunSpec

Alone = Sequence[tuple[float, float, float]]
Alike = tuple[str, str, tuple[tuple[str, Any], ...]]


def untimed(results: Iterable[RunResult]) -> list[RunSpec]:
    """The first run of those fitted alike whose seconds cannot be quoted: others ran beside it, none was timed.

    Borrowed runs are left out, as their fits are not made here.
    """
    found: dict[Alike, RunSpec] = {}
    timed = set[Alike]()
    for result in results:
        kind = _alike(result)
        if result.alone:
            timed.add(kind)
        own = not result.source and result.spec.max_seconds is None
        if result.status == "done" and result.concurrent and own:
            found[kind] = min(found.get(kind, result.spec), result.spec, key=lambda spec: spec.seed)
    return [spec for kind, spec in found.items() if kind not in timed]


def _alike(result: RunResult) -> Alike:
    """What runs share whose fits differ in the seed alone: dataset, method and hyperparameters that are given."""
    return result.spec.dataset, result.spec.method, result.spec.parameters


def quoted(results: Iterable[RunResult]) -> list[RunResult]:
    """The results with seconds that can be quoted, where one of those fitted alike was timed alone.

    A run of another seed is given the seconds that the timed fit took for as many FLOPs.
    """
    results = list(results)
    timed = {_alike(each): each for each in results if each.alone}
    return [_of(result, timed.get(_alike(result))) for result in results]


def _of(result: RunResult, timed: RunResult | None) -> RunResult:
    if timed is None or not result.concurrent or result.spec.max_seconds is not None:
        return result
    costs = [row.cost for row in result.rows] + [result.cost]
    wall, cpu = at(timed.alone, [cost.flops for cost in costs])
    *of_rows, total = (_with(cost, w, c) for cost, w, c in zip(costs, wall, cpu, strict=True))
    rows = [replace(row, cost=cost) for row, cost in zip(result.rows, of_rows, strict=True)]
    return replace(result, rows=rows, cost=total, concurrent=False, timed_seed=timed.spec.seed)


def _with(cost: Cost, wall_s: float, cpu_s: float) -> Cost:
    return replace(cost, wall_s=wall_s, cpu_s=cpu_s)


def at(alone: Alone, flops: Sequence[float]) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of a fit alone at some FLOPs.

    Between the points that were timed they grow in proportion to FLOPs; beyond the last one as in the last half of the
    time.

    Args:
        alone: FLOPs, wall seconds and CPU seconds along the fit.
        flops: Where they are wanted.
    """
    import numpy as np

    points = np.array([(0.0, 0.0, 0.0), *alone])
    last = points[-1]
    middle = points[np.searchsorted(points[:, 1], last[1] / 2, side="right") - 1]
    slope = (last - middle) / max(last[0] - middle[0], 1.0)
    wanted = np.asarray(flops, dtype=float)
    beyond = np.maximum(wanted - last[0], 0.0)
    found: list[Any] = [np.interp(wanted, points[:, 0], points[:, i]) + slope[i] * beyond for i in (1, 2)]
    return found[0].tolist(), found[1].tolist()
