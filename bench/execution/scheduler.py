"""Carries out the runs of a study, here or on a Dask cluster, by one code path: each run in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from bench.common.errors import InterruptedStudyError, UsageError
from bench.config.schema import Execution
from bench.execution.job import Job, RunCrashedError, environment
from bench.execution.pool import RunServer, run_isolated
from bench.registry.fingerprints import plugin_file
from bench.registry.plugins import PluginFile
from bench.store import run_files
from bench.store.locks import RunLocks
from bench.store.records import RunResult, RunSpec

if TYPE_CHECKING:
    from distributed import Client

ATTEMPTS = 2
LOOK_S = 0.5
EARLY = 2  # seeds
LAST = 3  # runs a worker, of which the longest are begun first
CONNECT_S = 20.0
ANSWER_S = 2.0

Block = tuple[RunSpec, ...]
Run = Callable[[Job], "Future[list[RunResult]]"]

_SERVER: ContextVar[RunServer] = ContextVar("server")


@contextlib.contextmanager
def one_server() -> Iterator[RunServer]:
    """Within, all runs of this machine are forked from the server that is yielded, which imports torch once."""
    with RunServer() as server:
        before = _SERVER.set(server)
        try:
            yield server
        finally:
            _SERVER.reset(before)


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


def blocks(specs: Iterable[RunSpec]) -> list[Block]:
    """Runs that are carried out in one process: those of one block of seeds, and every other one by itself."""
    found: dict[RunSpec, list[RunSpec]] = {}
    for spec in specs:
        found.setdefault(spec.program, []).append(spec)
    return [tuple(block) for block in found.values()]


def early_first(waiting: Sequence[Block]) -> list[Block]:
    """The same, those with one of the two lowest seeds first, so that every dataset soon has a first answer."""
    early = sorted({spec.seed for block in waiting for spec in block})[:EARLY]
    return sorted(waiting, key=lambda block: block[0].seed not in early)


def time_alone(specs: list[RunSpec]) -> Generator[RunResult]:
    """Time one fit after another with nothing beside it; what cannot be timed is left out.

    Args:
        specs: A run of each pair of dataset and method.
    """
    plugins: dict[str, PluginFile] = {}
    with _here(1) as submit:
        for spec in specs:
            files = tuple(plugins.setdefault(path, plugin_file(path)) for path in spec.plugins)
            with contextlib.suppress(RunCrashedError):
                yield from submit(Job((spec,), False, files, environment(), timed=True)).result()


class _Round:
    """The runs that wait and those being made; each is locked before it is submitted."""

    def __init__(self, specs: list[RunSpec], how: Execution, submit: Run, locks: RunLocks, folder: Path):
        self.waiting, self.how, self.submit = early_first(blocks(specs)), how, submit
        self.locks, self.folder = locks, folder
        self.jobs, self.environment = how.jobs or 1, environment()
        self.plugins: dict[str, PluginFile] = {}
        self.running: dict[Future[list[RunResult]], tuple[Job, int]] = {}
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
        for block in self._in_order():
            if len(self.running) == self.jobs:
                return
            with run_files.writing(self.folder):
                taken = [spec for spec in block if self.locks.take(spec.key)]
            if not taken:
                continue
            self.waiting.remove(block)
            if len(taken) < len(block):
                self.waiting.append(tuple(spec for spec in block if spec not in taken))
            found = {spec: run_files.read_run(self.folder, spec) for spec in taken}
            yield from (result for result in found.values() if result is not None)
            if missing := tuple(spec for spec, result in found.items() if result is None):
                self._submit(self._job(missing), 1)

    def _in_order(self) -> list[Block]:
        """The runs that wait, in order; the last ones by the time that their method took, longest first.

        Longest processing time first (Graham 1969): the last runs then fill the gaps that the long ones leave.
        """
        if self.jobs == 1 or len(self.waiting) > LAST * self.jobs:
            return self.waiting.copy()
        return sorted(self.waiting, key=lambda block: -len(block) * self.seconds.get(block[0].method, math.inf))

    def _job(self, specs: Block) -> Job:
        how = self.how
        files = tuple(self.plugins.setdefault(path, plugin_file(path)) for path in specs[0].plugins)
        return Job(specs, self.jobs > 1, files, self.environment, how.run_timeout, how.run_memory)

    def _submit(self, job: Job, attempt: int) -> None:
        self.running[self.submit(job)] = job, attempt

    def _ended(self) -> Iterator[RunResult]:
        """Wait until a run ends, or another process may have released one; yields the results there are."""
        if not self.running:
            time.sleep(LOOK_S)
            return
        others = len(self.running) < self.jobs and self.waiting
        for future in wait(self.running, LOOK_S if others else None, FIRST_COMPLETED).done:
            results = self._outcome(future, *self.running.pop(future))
            yield from self._begun()  # so that the next run runs while these results are written
            yield from results

    def _outcome(self, future: Future[list[RunResult]], job: Job, attempt: int) -> list[RunResult]:
        """The results of a job that has ended; none if it is repeated."""
        try:
            results = future.result()
            self.seconds[job.specs[0].method] = results[-1].cost.wall_s + results[-1].evaluation_s
            return results
        except Exception as error:
            death = _death(error)
            if attempt < ATTEMPTS:
                self._submit(job, attempt + 1)
                return []
            reason = f"{death.reason}, in each of {ATTEMPTS} attempts"
            return [RunResult(spec, death.status, reason, concurrent=job.concurrent) for spec in job.specs]


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
    kept = _SERVER.get(None)
    with contextlib.nullcontext(kept) if kept else RunServer() as server, ThreadPoolExecutor(jobs) as threads:
        try:
            yield lambda job: threads.submit(server.run, job)
        except BaseException:  # what runs, and what waits for a thread, ends too
            server.end()
            raise


@contextlib.contextmanager
def _on_cluster(address: str) -> Iterator[Run]:
    with connected(address) as client:
        executor = client.get_executor(pure=False)  # else a second attempt would be given the result of the first

        def submit(job: Job) -> Future[list[RunResult]]:
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
        raise UsageError("--scheduler needs Dask: pip install -c constraints.txt -e '.[distributed]'") from None
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
