"""One method, one factor at a time: what each hyperparameter, the size of the data or their noise does to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.common.errors import UsageError
from bench.registry import labels
from bench.registry.registry import Registry, dataset_parameters
from bench.store import tables
from bench.study import execute

if TYPE_CHECKING:
    import pandas as pd

    from bench.store.records import RunResult

OF_DATASETS = ("size", "noise", "activation")
CONDITIONS = {
    "size": ("250", "500", "1000", "2000"),
    "noise": ("0.25x", "1x", "4x"),
    "activation": ("tanh", "silu", "relu"),
}
MULTIPLE = re.compile(r"[^x]+x")


@dataclass(frozen=True)
class Point:
    """One level of a factor on a dataset, and the labels of the dataset and the method that it makes of them."""

    factor: str
    level: str
    dataset: str
    varied: str
    method: str


def planned(settings: execute.Settings, varied: Iterable[str], known: Registry) -> tuple[execute.Settings, list[Point]]:
    """The study that varies FACTOR=LEVEL,... of the one method of other settings, one factor at a time, and its points.

    Raises UsageError for more than one method, and for factors and levels that there are not.
    """
    settings = execute.checked(settings, known)
    if len(settings.methods) != 1:
        raise UsageError(f"--method takes exactly one, got {', '.join(settings.methods)}")
    factors = _factors(varied) or _ablation(settings.methods[0], known)
    points = [
        _point(factor, level, dataset, settings, known)
        for factor, levels in factors.items()
        for dataset in settings.datasets
        for level in levels
    ]
    pairs = tuple(dict.fromkeys((point.varied, point.method) for point in points))
    datasets, methods = (tuple(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    settings = execute.checked(replace(settings, methods=methods, datasets=datasets), known)
    return replace(settings, pairs=pairs, kind="sweep"), points


def _factors(varied: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The levels of each factor; raises UsageError for text of another form and for a repetition."""
    found: dict[str, tuple[str, ...]] = {}
    for text in varied:
        factor, _, listed = text.partition("=")
        levels = tuple(dict.fromkeys(level.strip() for level in listed.split(",") if level.strip()))
        if not factor.strip() or not levels or factor.strip() in found:
            raise UsageError(f"--vary takes FACTOR=LEVEL,LEVEL,..., each factor once, got {text!r}")
        found[factor.strip()] = levels
    multiples = [bool(MULTIPLE.fullmatch(level)) for level in found.get("noise", ())]
    if any(multiples) and not all(multiples):
        raise UsageError("--vary noise takes variances, or multiples of the dataset's own such as 2x, but not both")
    return found


def _ablation(label: str, known: Registry) -> dict[str, tuple[str, ...]]:
    """What the method itself declares of interest, and then the size, noise and decoder; where nothing is to be varied.

    Raises UsageError for a method that declares nothing.
    """
    declared = known.make_method(label).ablation
    if not declared:
        raise UsageError(f"method {label!r} declares no ablation; give --vary FACTOR=LEVEL,LEVEL,...")
    return {
        name: tuple(labels.spell_value(level) for level in levels) for name, levels in declared.items()
    } | CONDITIONS


def _point(factor: str, level: str, dataset: str, settings: execute.Settings, known: Registry) -> Point:
    (method,) = settings.methods
    if factor in OF_DATASETS:
        name, stated = dataset_parameters(dataset)
        value = _noise(level, dataset, settings.latent_dim, known) if factor == "noise" else level
        return Point(factor, level, dataset, known.dataset_label(labels.spell(name, {**stated, factor: value})), method)
    name, parameters = labels.parse(method)
    return Point(factor, level, dataset, dataset, known.method_label(labels.spell(name, {**parameters, factor: level})))


def _noise(level: str, dataset: str, latent_dim: int | None, known: Registry) -> str | float:
    """A noise variance, which '2x' gives as a multiple of the dataset's own."""
    if not MULTIPLE.fullmatch(level):
        return level
    multiple = labels.convert(f"the multiple in noise={level}", level.removesuffix("x"), float)
    own = getattr(known.make_problem(dataset, latent_dim), "noise", None)
    if own is None:
        raise UsageError(f"dataset {dataset!r} has no true noise to be varied")
    return float(f"{multiple * own:.12g}")


def table(points: Iterable[Point], results: Iterable[RunResult]) -> pd.DataFrame:
    """One row per point and seed: factor, level, dataset, method, seed, quality, cost and status.

    value: the level as a number, NaN where it is none.
    """
    import pandas as pd

    by_pair: dict[tuple[str, str], list[RunResult]] = {}
    for result in results:
        by_pair.setdefault((result.spec.dataset, result.spec.method), []).append(result)
    return pd.DataFrame([_row(p, r) for p in points for r in by_pair.get((p.varied, p.method), [])])


def _row(point: Point, result: RunResult) -> dict[str, Any]:
    final = {row.metric: row.value for row in result.rows} if result.status == "done" else {}
    number = labels.literal(point.level.removesuffix("x"))
    return {
        "factor": point.factor,
        "level": point.level,
        "value": float("nan") if isinstance(number, str) else float(number),
        "dataset": point.dataset,
        "method": point.method,
        "seed": result.spec.seed,
        "test_ll": final.get("test_ll", float("nan")),
        "oracle_gap": final.get("oracle_gap", float("nan")),
        "wall_s": result.cost.wall_s,
        "flops": result.cost.flops,
        "peak_memory_mb": result.peak_memory_mb,
        "concurrent": result.concurrent,
        "status": result.status,
        "message": result.message,
    }


def write(folder: Path, rows: pd.DataFrame) -> None:
    """Write sweep.parquet and sweep.csv."""
    for suffix in ("parquet", "csv"):
        tables.write_table(folder / f"sweep.{suffix}", rows)
