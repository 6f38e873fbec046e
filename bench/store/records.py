"""One run of a study: one method on one dataset at one seed, and what became of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunSpec:
    """Everything that can change the values of a run, and the plugin files that it needs.

    dataset, method: labels. latent_dim None is the dataset's own. noise: 'known' or 'learned'. code: a digest of the
    code that runs it, and versions those of packages, which a run that is kept must have. parameters: the method's
    hyperparameters that are given, rather than its defaults. scored_on: 'test' or, to choose hyperparameters by,
    'validation'.
    """

    dataset: str
    method: str
    seed: int
    size: int
    validation_size: int
    test_size: int
    latent_dim: int | None = None
    noise: str = "known"
    device: str = "cpu"
    max_flops: float | None = None
    max_seconds: float | None = None
    density: bool = False
    code: str = ""
    versions: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()
    scored_on: str = "test"

    @property
    def key(self) -> str:
        """A hash of the run, whatever the order in which or the machine on which it runs."""
        fields = dataclasses.asdict(self)
        del fields["plugins"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """How people are told of the run."""
        return f"{self.dataset} / {self.method} / seed {self.seed}"


@dataclass(frozen=True)
class Cost:
    """What fitting has cost so far: seconds, FLOPs, and rows passed forward through decoder and encoder."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    flops: float = 0.0
    decoder_passes: int = 0
    encoder_passes: int = 0


@dataclass(frozen=True)
class Row:
    """A measurement at a checkpoint, with the cost up to it."""

    checkpoint: int
    metric: str
    value: float
    stderr: float
    unit: str
    cost: Cost


@dataclass(frozen=True)
class Diagnostic:
    """What tells whether the estimator of a metric worked at a checkpoint."""

    checkpoint: int
    metric: str
    diagnostic: str
    value: float


@dataclass(frozen=True)
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
    """What became of a run.

    status: done, failed or skipped. concurrent: whether other runs ran beside it, so that its seconds are contended.
    formula_flops: the part of its FLOPs that is charged by formula, not counted. peak_memory_mb: the most memory that
    fitting held at once beyond what it began with, in 1e6 bytes. overrun_flops, overrun_s: what was spent beyond the
    budget that ended the fit. work: the FLOPs by kind of work. densities: rows (method, x1, x2, log density).
    posteriors: rows (method, training point x, index, its code, its position, probability that its code gave x), as in
    `bench.metrics.posterior_plots`. signals: rows (method, test point x, draw, its position, noiseless signal), as in the same.
    references: draws of the true posterior that the run was scored with, as rows (test point,
    R-hat, effective sample size, z).
    """

    spec: RunSpec
    status: str = "done"
    message: str = ""
    cost: Cost = field(default_factory=Cost)
    formula_flops: float = 0.0
    peak_memory_mb: float = math.nan
    overrun_flops: float = 0.0
    overrun_s: float = 0.0
    evaluation_s: float = 0.0
    concurrent: bool = False
    rows: list[Row] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    densities: list[tuple[str, float, float, float]] = field(default_factory=list)
    posteriors: list[tuple[str, int, int, float, list[float], float]] = field(default_factory=list)
    signals: list[tuple[str, int, int, list[float], list[float]]] = field(default_factory=list)
    references: list[tuple[int, float, float, list[float]]] = field(default_factory=list)
