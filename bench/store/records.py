"""One run of a study, one method on one dataset at one seed: what it is, and what it gave."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bench.config.schema import Conditions

KEY = re.compile(r"[0-9a-f]{16}")  # the form of a run's key, which names its files
NOT_IN_KEY = ("plugins", "columns", "role")
STATUSES = ("done", "failed", "skipped", "timeout")
OLD_ENDING = re.compile(r"stopped by --max-(flops|seconds) ")


class RunSpec(Conditions, frozen=True, kw_only=True):
    """A fully specified run.

    Args:
        dataset: The dataset's label.
        method: The method's label.
        seed: The seed of data, initial weights and draws.
        parameters: The hyperparameters that are given, by name; the others are the method's defaults.
        block: Seeds that are fitted as one program, of which this is one: block k holds those from k * block on.
        scored_on: 'test', or 'validation' to choose hyperparameters by.
        code: A digest of the code that the values depend on.
        versions: The packages that this code uses, with versions.
        data: A digest of the data drawn.
        role: The method's role; not part of the key.
        plugins: Paths of the plugin files and of the file of data that the run needs; not part of the key.
        columns: The columns to take from the file of data, which `data` tells apart; not part of the key.
    """

    dataset: str
    method: str
    seed: int
    parameters: tuple[tuple[str, Any], ...] = ()
    block: int = 1
    scored_on: str = "test"
    code: str = ""
    versions: tuple[str, ...] = ()
    data: str = ""
    role: str = "method"
    plugins: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A hash of all that can change the run's values. Paths, machines and order do not."""
        content = {name: value for name, value in msgspec.to_builtins(self).items() if name not in NOT_IN_KEY}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The run as messages name it."""
        return f"{self.dataset} / {self.method} / seed {self.seed}"

    @property
    def program(self) -> RunSpec:
        """The run of the first seed of its block, which all runs share that are carried out as one program."""
        return msgspec.structs.replace(self, seed=self.seed - self.seed % self.block)

    @property
    def records_plots(self) -> bool:
        """Whether densities and posteriors are recorded, to look at: at seed 0 alone."""
        return self.seed == 0


@dataclass(frozen=True, slots=True)
class Cost:
    """What fitting has cost so far: seconds, FLOPs, and rows passed forward through decoder and encoder."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    flops: float = 0.0
    decoder_passes: int = 0
    encoder_passes: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement at a checkpoint, with the cost up to it."""

    checkpoint: int
    metric: str
    value: float
    stderr: float
    unit: str
    cost: Cost


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """What tells whether the estimator of a metric worked at a checkpoint."""

    checkpoint: int
    metric: str
    diagnostic: str
    value: float


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of work: how often it was done, and its FLOPs.

    by: 'operators', if every operator of torch in it was counted; 'formula', if it was charged by a stated formula.
    """

    name: str
    calls: int
    flops: float
    by: str


@dataclass
class RunResult:
    """The result of a run.

    Args:
        spec: The run.
        status: done, failed, skipped or timeout.
        message: Why it did not finish, or which budget ended it.
        stopped_by: The limit that ended the fit, `max_flops` or `max_seconds`; empty if none did.
        notes: What the method changed in its process, and what it left running.
        cost: The total cost of fitting.
        formula_flops: The part of its FLOPs that is charged by formula, not counted.
        peak_memory_mb: The most memory that fitting held beyond what it began with, in 1e6 bytes.
        overrun_flops: FLOPs spent beyond the budget that ended the fit.
        overrun_s: Seconds spent beyond the budget that ended the fit.
        query_flops: FLOPs of a draw of q(z | x) for one x and of its decoding, the most over the checkpoints.
        query_s: Seconds of the same.
        evaluation_s: Seconds of evaluation.
        concurrent: Whether other runs were carried out beside it, or within the same program, so that its seconds are
            not those of a fit alone.
        timed_seed: The seed whose fit alone gave the seconds; None if they are the run's own.
        source: The study that the run was borrowed from, and what was checked; empty if it was made for its own study.
        alone: The cost along a fit of the same run with nothing beside it: FLOPs, wall seconds and CPU seconds so far.
        rows: The measurements.
        diagnostics: What shows whether their estimators worked.
        work: The FLOPs by kind of work.
        parameters: All hyperparameters of the method.
        densities: Rows (model, x1, x2, log density).
        posteriors: Rows (model, training point, index, its code, its position, probability that its code gave x).
        signals: Rows (model, test point, draw, its position, noiseless signal).
        images: Rows (model, kind of image, its place, width, pixels).
        references: Draws of the true posterior that the run was scored with: rows (test point, R-hat, effective
            sample size, z).
    """

    spec: RunSpec
    status: str = "done"
    message: str = ""
    stopped_by: str = ""
    notes: str = ""
    cost: Cost = field(default_factory=Cost)
    formula_flops: float = 0.0
    peak_memory_mb: float = math.nan
    overrun_flops: float = 0.0
    overrun_s: float = 0.0
    query_flops: float = 0.0
    query_s: float = 0.0
    evaluation_s: float = 0.0
    concurrent: bool = False
    timed_seed: int | None = None
    source: str = ""
    alone: list[tuple[float, float, float]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    densities: list[tuple[str, float, float, float]] = field(default_factory=list)
    posteriors: list[tuple[str, int, int, float, list[float], float]] = field(default_factory=list)
    signals: list[tuple[str, int, int, list[float], list[float]]] = field(default_factory=list)
    images: list[tuple[str, str, int, int, list[float]]] = field(default_factory=list)
    references: list[tuple[int, float, float, list[float]]] = field(default_factory=list)


def stopped_by(message: str) -> str:
    """What `stopped_by` is of a result that was stored before it was a field, by the result's message."""
    found = OLD_ENDING.match(message)
    return f"max_{found[1]}" if found else ""
