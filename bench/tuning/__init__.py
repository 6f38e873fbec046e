"""Hyperparameters chosen under an equal budget in FLOPs, on validation data of seeds that no comparison uses."""

from __future__ import annotations

from bench.tuning.budget import affordable
from bench.tuning.design import FIRST_SEED, Trial, planned, trials
from bench.tuning.output import write
from bench.tuning.search import run
from bench.tuning.selection import choose, table

__all__ = ["FIRST_SEED", "Trial", "affordable", "choose", "planned", "run", "table", "trials", "write"]
