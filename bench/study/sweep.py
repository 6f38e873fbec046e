"""One method, one factor at a time: the effect of each hyperparameter and of each condition."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.common.errors import UsageError
from bench.config import labels
from bench.config.schema import Conditions, SweepSettings
from bench.registry.declared import ablation
from bench.registry.registry import NOISE, DatasetLabel, Registry
from bench.store import tables
from bench.study.plan import Plan, resolve, size_of_test_set

if TYPE_CHECKING:
    import pandas as pd

    from bench.store.records import RunResult

# The levels of conditions in an ablation.
LEVELS = {
    "n_train": ("250", "500", "1000", "2000"),
    NOISE: ("0.25x", "1x", "4x"),
    "activation": ("tanh", "silu", "relu"),
}
MULTIPLE = re.compile(r"[^x]+x")


@dataclass(frozen=True)
class Point:
    """One level of a factor on a dataset.

    Args:
        factor: The factor.
        level: Its level.
        dataset: The dataset, as it was asked for.
        varied: The label of the dataset at this level.
        method: The label of the method at this level.
    """

    factor: str
    level: str
    dataset: str
    varied: str
    method: str


class Design(NamedTuple):
    """A sweep: the plan, its points, and what an ablation leaves out, as a dataset cannot have it."""

    plan: Plan
    points: list[Point]
    left_out: list[str]


def planned(settings: SweepSettings) -> Design:
    """The plan that varies one factor at a time, with its points.

    Args:
        settings: What to vary; without `vary`, the method's ablation and then the conditions in LEVELS.

    Raises:
        UsageError: For more than one method, and for factors and levels that do not exist.
    """
    plan = resolve(settings)
    if len(plan.methods) != 1:
        raise UsageError(f"--method takes exactly one method, got {', '.join(plan.methods)}")
    (method,) = plan.methods
    factors = _factors(settings.vary)
    wanted = [
        (factor, level, dataset)
        for factor, levels in (factors or _ablation(method, plan.registry)).items()
        for dataset in plan.datasets
        for level in levels
    ]
    lacking = [] if factors else [each for each in wanted if not _has(*each, plan)]
    points = [_point(*each, method, plan) for each in wanted if each not in lacking]
    pairs = tuple(dict.fromkeys((point.varied, point.method) for point in points))
    return Design(plan.with_pairs(pairs), points, [f"{factor}={level} on {of}" for factor, level, of in lacking])


def _factors(varied: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The levels of each factor; raises UsageError for text of another form and for a repetition."""
    found: dict[str, tuple[str, ...]] = {}
    for text in varied:
        factor, _, listed = text.partition("=")
        levels = tuple(dict.fromkeys(level.strip() for level in listed.split(",") if level.strip()))
        if not factor.strip() or not levels or factor.strip() in found:
            raise UsageError(f"--vary takes FACTOR=LEVEL,LEVEL,..., each factor once, got {text!r}")
        found[factor.strip()] = levels
    multiples = [bool(MULTIPLE.fullmatch(level)) for level in found.get(NOISE, ())]
    if any(multiples) and not all(multiples):
        raise UsageError(f"--vary {NOISE} takes variances, or multiples of the dataset's own such as 2x, but not both")
    return found


def _ablation(label: str, known: Registry) -> dict[str, tuple[str, ...]]:
    """The levels that the method declares, and then those of the conditions; raises UsageError if it declares none."""
    declared = ablation(known, label)
    if not declared:
        raise UsageError(f"method {label!r} declares no ablation; give --vary FACTOR=LEVEL,LEVEL,...")
    return {name: tuple(map(labels.spell_value, levels)) for name, levels in declared.items()} | LEVELS


def _has(factor: str, level: str, dataset: str, plan: Plan) -> bool:
    """Whether a dataset can have a level of LEVELS: only a true model has noise to vary, and files have few points."""
    if factor not in (NOISE, "n_train"):
        return True
    source = plan.registry.make_problem(dataset, plan.conditions(dataset)["latent_dim"])
    if factor == NOISE:
        return source.noise_variance is not None
    try:
        return size_of_test_set(source, int(level), 1) > 0
    except ValueError:
        return False


def _point(factor: str, level: str, dataset: str, method: str, plan: Plan) -> Point:
    if factor in (*Conditions.IN_LABEL, NOISE):
        asked = DatasetLabel.parse(dataset)
        value = _noise(level, dataset, plan) if factor == NOISE else level
        stated: Mapping[str, Any] = {**asked.conditions, **asked.parameters, factor: value}
        varied = plan.registry.dataset_label(labels.spell(asked.name, stated))
        return Point(factor, level, dataset, varied, method)
    name, parameters = labels.parse(method)
    changed = plan.registry.method_label(labels.spell(name, {**parameters, factor: level}))
    return Point(factor, level, dataset, dataset, changed)


def _noise(level: str, dataset: str, plan: Plan) -> str | float:
    """A noise variance, which '2x' gives as a multiple of the dataset's own."""
    if not MULTIPLE.fullmatch(level):
        return level
    multiple = labels.convert(f"the multiple in {NOISE}={level}", level.removesuffix("x"), float)
    own = plan.registry.make_problem(dataset, plan.settings.latent_dim).noise_variance
    if own is None:
        raise UsageError(f"dataset {dataset!r} has no true noise to vary; leave {NOISE} out")
    return float(f"{multiple * own:.12g}")


def table(points: Iterable[Point], results: Iterable[RunResult]) -> pd.DataFrame:
    """One row per point and seed: factor, level, dataset, method, seed, quality, cost and status.

    The column `value` is the level as a number, NaN if it is none.

    Args:
        points: The points of the sweep.
        results: The results of its runs.
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
