"""Runs in processes of their own: each is forked from a server, and whatever it does to its process ends with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from bench.common.errors import UsageError, describe
from bench.execution.job import Job, Outcome, RunCrashedError
from bench.registry.plugins import PluginFile
from bench.store.files import atomic_write
from bench.store.records import RunResult

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
STARTS = 2
PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from bench.execution.job import environment
from bench.execution.server import serve
from bench.fit.runner import run_block, time_alone

def carry_out(job):
    return time_alone(job.specs[0]) if job.timed else run_block(job.specs, job.concurrent, job.shared)

serve(int(sys.argv[1]), carry_out, environment)
"""


def run_isolated(job: Job) -> list[RunResult]:
    """Carry out a job by the server of this process, whichever that is; raises what `RunServer.run` does."""
    return _of_this_process().run(job)


class RunServer:
    """A server that runs are forked from, for all threads of this process. It is started with the first run, or before.

    It and all its runs end with its context.

    `python -c` starts it, not a fork of this process, which may have threads, be a daemon or a Dask worker, and have a
    `__main__` that must not be imported again. It has a session of its own, which the terminal's signals do not reach.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Connection] = []
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> RunServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """Start the server before the first run: its imports take seconds, in which this process can work."""
        with self._lock:
            self._control = self._control or self._start()

    def run(self, job: Job) -> list[RunResult]:
        """Carry out a job in a fresh process.

        Raises:
            RunCrashedError: If its process dies or exceeds a limit.
            UsageError: If the code or the packages are not those of the job.
        """
        try:
            here = tuple(map(self._at_hand, job.plugins))
            specs = tuple(msgspec.structs.replace(spec, plugins=here) for spec in job.specs)
            prepared = replace(job, specs=specs, plugins=(), shared=self._own_folder())
        except OSError as error:
            raise RunCrashedError("failed", f"the run could not begin: {describe(error)}") from None
        with self._connection() as connection:
            try:
                connection.send(prepared)
                outcome = msgspec.msgpack.decode(connection.recv_bytes(), type=Outcome)
            except (EOFError, OSError):
                raise RunCrashedError("failed", "the watcher of the run ended") from None
        _check(outcome.environment, job.environment)
        if outcome.results is None:
            raise RunCrashedError(outcome.status, outcome.reason)
        return [
            replace(result, spec=spec, notes=_notes(result.notes, outcome.ended))
            for spec, result in zip(job.specs, outcome.results, strict=True)
        ]

    def end(self) -> None:
        """End all runs, which raise RunCrashedError, as do further ones."""
        with self._lock:
            self._ended = True
            for connection in self._running:
                with contextlib.suppress(OSError):
                    connection.send(None)  # its watcher ends the run
            self._close()
            if self._folder is not None:
                self._folder.cleanup()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection to the watcher of a new run."""
        ours, theirs = Pipe()
        with ours, theirs:
            with self._lock:
                if self._ended:
                    raise RunCrashedError("failed", "the study was ended")
                self._hand_over(theirs)
                self._running.append(ours)
            theirs.close()
            try:
                yield ours
            finally:
                with self._lock:
                    self._running.remove(ours)

    def _hand_over(self, connection: Connection) -> None:
        """Send a connection to the server, which is started if there is none any more."""
        for _ in range(STARTS):
            self._control = self._control or self._start()
            try:
                socket.send_fds(self._control, [b"r"], [connection.fileno()])
                return
            except OSError:
                self._close()
        raise RunCrashedError("failed", "the server that runs are forked from ended")

    def _start(self) -> socket.socket:
        """Start a server; the socket to it."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return ours

    def _close(self) -> None:
        """End the server. Runs outlive it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _at_hand(self, plugin: PluginFile) -> str:
        """The path of a plugin file on this machine: its own, if all is there unchanged, or that of a copy."""
        home = Path(plugin.path).parent
        if all((home / name).is_file() and (home / name).read_bytes() == content for name, content in plugin.files):
            return plugin.path
        digest = hashlib.sha256(repr(plugin).encode()).hexdigest()
        folder = Path(self._own_folder(), digest)
        with self._lock:
            for name, content in plugin.files:
                copy = folder / name
                if not copy.exists():  # other runs may be reading it
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    atomic_write(copy, content)
        return str(folder / Path(plugin.path).name)

    def _own_folder(self) -> str:
        with self._lock:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="mapa-bench-", ignore_cleanup_errors=True)
            return self._folder.name


def _check(there: tuple[str, ...], here: tuple[str, ...]) -> None:
    """Raise UsageError if an environment is not the required one."""
    differing = [(a, b) for a, b in zip(there, here, strict=True) if a != b] if here else []
    if differing:
        found, expected = (", ".join(each) for each in zip(*differing, strict=True))
        raise UsageError(f"a worker has {found}; the study was started with {expected}")


def _notes(notes: str, ended: tuple[str, ...]) -> str:
    """The notes of a result, with the processes that were ended after it."""
    return "; ".join(filter(None, (notes, f"ended after it: {', '.join(ended)}" if ended else "")))


@cache
def _of_this_process() -> RunServer:
    return RunServer()
