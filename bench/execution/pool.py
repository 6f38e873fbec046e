"""Runs in child processes, so that whatever a run does to its process costs that run alone.

A child imports torch once and then carries out run after run, for as long as each leaves its process clean. It is
replaced when it dies, is killed, or is left with threads or processes of a method that cannot be ended.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec

from bench.execution.worker import Job, RunCrashedError, Worker
from bench.registry.plugins import PluginFile
from bench.store.records import RunResult


def run_isolated(job: Job) -> RunResult:
    """Carry out a run in a child of this process, whichever that is; raises what `Workers.run` does."""
    return _of_this_process().run(job)


class Workers:
    """Child processes that threads share: each carries out one run at a time, with one set of plugin files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: list[Worker] = []
        self._ended = False
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    def run(self, job: Job) -> RunResult:
        """Carry out a run in a child process.

        Raises:
            RunCrashedError: If the child dies or exceeds a limit.
            UsageError: If the code or the packages are not those of the job.
        """
        worker, reusable = self._take(job.plugins), False
        try:
            spec = msgspec.structs.replace(job.spec, plugins=tuple(map(self._at_hand, job.plugins)))
            result = worker.run(replace(job, spec=spec, plugins=()))
            reusable = result.process_is_clean
            return replace(result, spec=job.spec)
        finally:
            self._put_back(worker, reusable)

    def end(self) -> None:
        """End all children. Their runs raise RunCrashedError, as do further ones."""
        with self._lock:
            self._ended = True
            for worker in self._busy:
                worker.kill()  # the thread that waits for it closes it
            self._close_idle()
            if self._copies is not None:
                self._copies.cleanup()

    def _take(self, plugins: tuple[PluginFile, ...]) -> Worker:
        """A child that has these plugin files or none so far; others are ended."""
        with self._lock:
            if self._ended:
                raise RunCrashedError("failed", "the workers were ended")
            suitable = [worker for worker in self._idle if worker.plugins == plugins and worker.alive()]
            if suitable:
                self._idle.remove(suitable[0])
            else:
                self._close_idle()
            self._busy.append(suitable[0] if suitable else Worker(plugins))
            return self._busy[-1]

    def _put_back(self, worker: Worker, reusable: bool) -> None:
        with self._lock:
            self._busy.remove(worker)
            if reusable and not self._ended:
                self._idle.append(worker)
            else:
                worker.close()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _at_hand(self, plugin: PluginFile) -> str:
        """The path of a plugin file on this machine: its own, if all is there unchanged, or that of a copy."""
        home = Path(plugin.path).parent
        if all((home / name).is_file() and (home / name).read_bytes() == content for name, content in plugin.files):
            return plugin.path
        with self._lock:
            self._copies = self._copies or tempfile.TemporaryDirectory(prefix="mapa-bench-")
            digest = hashlib.sha256(repr(plugin).encode()).hexdigest()
            for name, content in plugin.files:
                copy = Path(self._copies.name) / digest / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)
            return str(Path(self._copies.name) / digest / Path(plugin.path).name)


@cache
def _of_this_process() -> Workers:
    return Workers()
