"""Carries out the runs of a study, here or on a Dask cluster, by one code path: each run in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from bench.common.errors import InterruptedStudyError, UsageError
from bench.config.schema import Execution
from bench.execution.job import Job, RunCrashedError, environment
from bench.execution.pool import RunServer, run_isolated
from bench.registry.fingerprints import plugin_file
from bench.registry.plugins import PluginFile
from bench.store import tables
from bench.store.locks import RunLocks
from bench.store.records import RunResult, RunSpec

if TYPE_CHECKING:
    from distributed import Client

ATTEMPTS = 2
LOOK_S = 0.5
LAST = 3  # runs a worker, of which the longest are begun first
CONNECT_S = 20.0
ANSWER_S = 2.0

Run = Callable[[Job], "Future[RunResult]"]


def run_all(specs: list[RunSpec], how: Execution, folder: Path) -> Generator[RunResult]:
    """Carry out runs, and yield the result of each as it comes. A crash costs its own run only.

    A run whose process dies or exceeds a limit is repeated once; after that its result says so. Runs that another
    process carries out in the same folder are left to it, and yielded once it has written them.

    Args:
        specs: The runs.
        how: How to execute them; `jobs` must be a number.
        folder: The folder of the study, for locks and results.

    Raises:
        UsageError: For workers that have other code or cannot be reached.
        InterruptedStudyError: For workers that cannot carry out any run.
    """
    with RunLocks(folder) as locks:
        if specs:
            with _executor(how, len(specs)) as submit:
                yield from _Round(specs, how, submit, locks, folder).results()


class _Round:
    """The runs that wait and those being made; each is locked before it is submitted."""

    def __init__(self, specs: list[RunSpec], how: Execution, submit: Run, locks: RunLocks, folder: Path):
        self.waiting, self.how, self.submit, self.locks, self.folder = list(specs), how, submit, locks, folder
        self.jobs, self.environment = how.jobs or 1, environment()
        self.plugins: dict[str, PluginFile] = {}
        self.running: dict[Future[RunResult], tuple[Job, int]] = {}
        self.seconds: dict[str, float] = {}

    def results(self) -> Iterator[RunResult]:
        """The results as they come; a lock is released once its result was taken, and so was written."""
        while self.waiting or self.running:
            for source in (self._begun(), self._ended()):
                for result in source:
                    yield result
                    self.locks.release(result.spec.key)

    def _begun(self) -> Iterator[RunResult]:
        """Submit runs while there is room; yields the results of those that another process has made meanwhile."""
        for spec in self._in_order():
            if len(self.running) == self.jobs:
                return
            with tables.writing(self.folder):
                if not self.locks.take(spec.key):
                    continue
            self.waiting.remove(spec)
            if (found := tables.read_run(self.folder, spec)) is not None:
                yield found
            else:
                self._submit(self._job(spec), 1)

    def _in_order(self) -> list[RunSpec]:
        """The runs that wait, in order; the last ones by the time that their method took, longest first.

        Longest processing time first (Graham 1969): the last runs then fill the gaps that the long ones leave.
        """
        if self.jobs == 1 or len(self.waiting) > LAST * self.jobs:
            return self.waiting.copy()
        return sorted(self.waiting, key=lambda spec: -self.seconds.get(spec.method, math.inf))

    def _job(self, spec: RunSpec) -> Job:
        how = self.how
        files = tuple(self.plugins.setdefault(path, plugin_file(path)) for path in spec.plugins)
        return Job(spec, self.jobs > 1, files, self.environment, how.run_timeout, how.run_memory)

    def _submit(self, job: Job, attempt: int) -> None:
        self.running[self.submit(job)] = job, attempt

    def _ended(self) -> Iterator[RunResult]:
        """Wait until a run ends, or another process may have released one; yields the results there are."""
        if not self.running:
            time.sleep(LOOK_S)
            return
        others = len(self.running) < self.jobs and self.waiting
        for future in wait(self.running, LOOK_S if others else None, FIRST_COMPLETED).done:
            result = self._outcome(future, *self.running.pop(future))
            yield from self._begun()  # so that the next run runs while this result is written
            if result is not None:
                yield result

    def _outcome(self, future: Future[RunResult], job: Job, attempt: int) -> RunResult | None:
        """The result of a job that has ended; None if it is repeated."""
        try:
            result = future.result()
            self.seconds[job.spec.method] = result.cost.wall_s + result.evaluation_s
            return result
        except Exception as error:
            death = _death(error)
            if attempt < ATTEMPTS:
                self._submit(job, attempt + 1)
                return None
            reason = f"{death.reason}, in each of {ATTEMPTS} attempts"
            return RunResult(job.spec, death.status, reason, concurrent=job.concurrent)


def _death(error: Exception) -> RunCrashedError:
    """Why a run crashed; raises UsageError or InterruptedStudyError for what would stop every other run too."""
    if isinstance(error, RunCrashedError):
        return error
    if isinstance(error, CancelledError) or type(error).__name__ == "KilledWorker":  # distributed may not be installed
        return RunCrashedError("failed", "the cluster lost the worker that ran it")
    if isinstance(error, UsageError):
        raise error
    raise InterruptedStudyError(f"runs cannot be run: {type(error).__name__}: {error}") from error


def _executor(how: Execution, runs: int) -> contextlib.AbstractContextManager[Run]:
    """A context that carries out jobs, each in a fresh process of this machine or of a worker of a cluster."""
    return _here(min(how.jobs or 1, runs)) if how.scheduler is None else _on_cluster(how.scheduler)


@contextlib.contextmanager
def _here(jobs: int) -> Iterator[Run]:
    server = RunServer()
    threads = ThreadPoolExecutor(jobs)
    try:
        yield lambda job: threads.submit(server.run, job)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        server.end()
        threads.shutdown()


@contextlib.contextmanager
def _on_cluster(address: str) -> Iterator[Run]:
    with connected(address) as client:
        executor = client.get_executor(pure=False)  # else a second attempt would be given the result of the first

        def submit(job: Job) -> Future[RunResult]:
            if client.status != "running":
                raise InterruptedStudyError(f"the Dask scheduler at {address} was lost")
            return executor.submit(run_isolated, job)

        try:
            yield submit
        finally:
            executor.shutdown(wait=False)


def threads_of(address: str) -> int:
    """How many threads the workers of a Dask cluster have.

    Raises:
        UsageError: If the cluster cannot be reached.
    """
    with connected(address) as client:
        return sum(client.ncores().values())


def connected(address: str) -> Client:
    """A client of a Dask cluster.

    Raises:
        UsageError: If the cluster cannot be reached, or distributed is not installed.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("--scheduler needs Dask: pip install 'mapa-bench[distributed]'") from None
    if address.startswith("tcp://"):  # distributed would go on trying, and log
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
        except (OSError, ValueError, OverflowError) as error:
            raise UsageError(f"--scheduler {address} cannot be reached: {error}") from None
    for name in ("distributed", "distributed.client"):  # they log tracebacks of what is reported here in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"--scheduler {address} cannot be reached: {error}") from None
