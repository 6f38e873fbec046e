"""A run as it is sent to the process that carries it out, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import metadata

import msgspec

from bench.registry.fingerprints import project_digest
from bench.registry.plugins import PluginFile
from bench.store.records import RunResult, RunSpec

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Job:
    """Runs as they are sent to the machine that carries them out, in one process.

    Args:
        specs: The runs: one, or those of a block.
        concurrent: Whether other runs are carried out at the same time.
        plugins: The plugin files that it needs.
        environment: The code and packages that the machine must have.
        timeout: Seconds that each run may take, evaluation included; all of a block share the sum.
        memory: Bytes that its process may hold.
        shared: A folder for what all runs of a dataset and seed are scored with; none if it is empty.
        timed: Whether the fit is only timed, and nothing is scored.
    """

    specs: tuple[RunSpec, ...]
    concurrent: bool = False
    plugins: tuple[PluginFile, ...] = ()
    environment: tuple[str, ...] = ()
    timeout: float | None = None
    memory: int | None = None
    shared: str = ""
    timed: bool = False

    @property
    def keys(self) -> list[str]:
        """The keys of the runs."""
        return [spec.key for spec in self.specs]


class Outcome(msgspec.Struct, frozen=True):
    """How the process of a job ended.

    Args:
        results: The results of its runs; None if it crashed or was stopped.
        status: The status of runs without a result.
        reason: Why they have none.
        ended: The processes that it left running, which were then ended.
        environment: The code and packages that it had.
    """

    results: list[RunResult] | None = None
    status: str = "failed"
    reason: str = ""
    ended: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()


class RunCrashedError(Exception):
    """A run whose process died or was stopped.

    Args:
        status: The status of its row.
        reason: Why it ended.
    """

    def __init__(self, status: str, reason: str):
        super().__init__(status, reason)
        self.status, self.reason = status, reason


def environment() -> tuple[str, ...]:
    """The code and the packages that two processes must share for a run to have the same values in both."""
    return (f"mapa-bench code {project_digest()}", *_versions())


@cache
def _versions() -> tuple[str, ...]:
    return tuple(f"{name} {metadata.version(name)}" for name in PACKAGES)
