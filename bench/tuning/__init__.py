"""Hyperparameters chosen under an equal budget, on validation data of seeds that no comparison uses."""

from __future__ import annotations

from bench.tuning.design import FIRST_SEED, Trial, planned, trials
from bench.tuning.output import show, write
from bench.tuning.selection import choose, table

__all__ = ["FIRST_SEED", "Trial", "choose", "planned", "show", "table", "trials", "write"]
