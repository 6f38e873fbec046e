"""Runs in child processes, so that whatever a run does to its process costs that run alone.

A child imports torch once and then runs run after run, for as long as each ends well: it is replaced when it dies, is
killed, or is left with threads or processes of a method that cannot be ended.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

from bench.execution.worker import Files, Job, RunCrashedError, Worker
from bench.process.containment import LEFT_BEHIND
from bench.store.records import RunResult


def run_isolated(job: Job) -> RunResult:
    """Run a run in a child of this process, whichever that is; raises what `Workers.run` does."""
    return _of_this_process().run(job)


class Workers:
    """Child processes for threads to share: each runs one run at a time, and has one set of plugin files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: list[Worker] = []
        self._ended = False
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    def run(self, job: Job) -> RunResult:
        """Run a run in a child process.

        Raises RunCrashedError if that dies or exceeds a limit, and UsageError if code or packages are not those of the job.
        """
        worker, fit = self._take(job.plugins), False
        try:
            spec = replace(job.spec, plugins=tuple(self._at_hand(*file) for file in job.plugins))
            result = worker.run(replace(job, spec=spec, plugins=()))
            fit = LEFT_BEHIND not in result.message
            return replace(result, spec=job.spec)
        finally:
            self._put_back(worker, fit)

    def end(self) -> None:
        """End all children; runs that they are at raise RunCrashedError, as do further ones."""
        with self._lock:
            self._ended = True
            for worker in self._busy:
                worker.kill()  # the thread that waits for it closes it
            self._close_idle()
            if self._copies is not None:
                self._copies.cleanup()

    def _take(self, plugins: Files) -> Worker:
        """A child that has these plugin files or none so far; others are ended."""
        with self._lock:
            if self._ended:
                raise RunCrashedError("failed", "the workers were ended")
            fit = [worker for worker in self._idle if worker.plugins == plugins and worker.alive()]
            if fit:
                self._idle.remove(fit[0])
            else:
                self._close_idle()
            self._busy.append(fit[0] if fit else Worker(plugins))
            return self._busy[-1]

    def _put_back(self, worker: Worker, fit: bool) -> None:
        with self._lock:
            self._busy.remove(worker)
            if fit and not self._ended:
                self._idle.append(worker)
            else:
                worker.close()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _at_hand(self, path: str, content: bytes) -> str:
        """Where a plugin file is on this machine: at its path, if it is there as it was, or in a copy."""
        if Path(path).is_file() and Path(path).read_bytes() == content:
            return path
        with self._lock:
            self._copies = self._copies or tempfile.TemporaryDirectory(prefix="mapa-bench-")
            digest = hashlib.sha256(path.encode() + content).hexdigest()
            copy = Path(self._copies.name) / digest / Path(path).name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(content)
            return str(copy)


@cache
def _of_this_process() -> Workers:
    return Workers()
