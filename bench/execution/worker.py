"""A child process that carries out runs, one at a time, while its parent watches it.

It is started by `subprocess` and has a pipe to its parent. The parent may be a daemon, may have
threads, or may be a Dask worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from bench.common.errors import UsageError
from bench.common.units import in_words
from bench.registry.fingerprints import project_digest
from bench.registry.plugins import PluginFile
from bench.store.records import RunResult, RunSpec

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn")
PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[3])
from bench.execution.worker import serve
serve(*sys.argv[1:3])
"""
LOOK_S = 1.0
MEMORY_LOOK_S = 0.02
IDLE_S = 60.0


@dataclass(frozen=True)
class Job:
    """A run as it is sent to the machine that carries it out.

    Args:
        spec: The run.
        concurrent: Whether other runs are carried out at the same time.
        plugins: The plugin files that it needs.
        environment: The code and packages that the machine must have.
        timeout: Seconds that the run may take in all, evaluation included.
        memory: Bytes that its process may hold.
    """

    spec: RunSpec
    concurrent: bool = False
    plugins: tuple[PluginFile, ...] = ()
    environment: tuple[str, ...] = ()
    timeout: float | None = None
    memory: int | None = None


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
    versions = tuple(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (f"mapa-bench code {project_digest()}", *versions)


class Worker:
    """The parent's side of a child. The child has a session of its own, so that the terminal's signals do not reach it.

    Args:
        plugins: The plugin files that its runs need. Once imported, they are never imported again.
    """

    def __init__(self, plugins: tuple[PluginFile, ...] = ()):
        self.plugins = plugins
        self.environment: tuple[str, ...] = ()
        self.pipe, theirs = Pipe()
        arguments = [str(theirs.fileno()), str(os.getpid()), json.dumps(sys.path)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()

    def run(self, job: Job) -> RunResult:
        """Carry out a run. After any error the child cannot be used again.

        Raises:
            RunCrashedError: If the child dies or exceeds a limit.
            UsageError: If its code or packages are not those of the job.
        """
        try:
            if not self.environment:
                self._wait(lambda: None)
                self.environment = self.pipe.recv()
            _check(self.environment, job.environment)
            self.pipe.send(job)
            self._wait(_Limits(job, self.process.pid).check, LOOK_S if job.memory is None else MEMORY_LOOK_S)
            return self.pipe.recv()
        except (EOFError, OSError):
            raise RunCrashedError("failed", self._last_words()) from None

    def _wait(self, check: Callable[[], None], look_s: float = LOOK_S) -> None:
        """Wait until the child sends something; raises EOFError if it dies, and whatever `check` raises meanwhile."""
        while not self.pipe.poll(look_s):
            check()
            if not self.alive():  # something that it left running may hold the pipe open
                raise EOFError

    def _last_words(self) -> str:
        """How the child ended."""
        try:
            code = self.process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            return "the process closed its pipe"
        hint = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
        return f"the process died ({f'signal {-code}' if code < 0 else f'exit code {code}'}){hint}"

    def alive(self) -> bool:
        """Whether the child is still running."""
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill the child and everything in its session. Any thread may call this."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the child and release its resources. Only the thread that uses it may call this."""
        self.kill()
        self.process.wait()
        self.pipe.close()


def _check(there: tuple[str, ...], here: tuple[str, ...]) -> None:
    """Raise UsageError if an environment is not the required one."""
    differing = [(a, b) for a, b in zip(there, here, strict=True) if a != b] if here else []
    if differing:
        found, expected = (", ".join(each) for each in zip(*differing, strict=True))
        raise UsageError(f"a worker has {found}; the study was started with {expected}")


class _Limits:
    """The limits of a run that begins now."""

    def __init__(self, job: Job, process: int):
        self.job, self.process, self.began = job, process, time.monotonic()

    def check(self) -> None:
        """Raise RunCrashedError if one is exceeded."""
        timeout, memory = self.job.timeout, self.job.memory
        spent = time.monotonic() - self.began
        if timeout is not None and spent > timeout:
            raise RunCrashedError("timeout", f"stopped after {spent:.3g} s by --run-timeout {timeout:g}")
        if memory is not None and _resident(self.process) > memory:
            raise RunCrashedError("failed", f"used more than {in_words(memory)} (--run-memory)")


def _resident(process: int) -> int:
    """Bytes of a process that are resident; 0 if it is gone."""
    import psutil

    try:
        return psutil.Process(process).memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def serve(handle: str, parent: str) -> None:
    """The child's side: carry out runs until the parent is gone or sends none for a minute."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(int(handle), False)
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    from bench.fit.runner import run_one  # which imports torch, so that no run's time counts it

    pipe: Connection = Connection(int(handle))
    with contextlib.suppress(EOFError, BrokenPipeError):
        pipe.send(environment())
        while pipe.poll(IDLE_S):
            job = pipe.recv()
            pipe.send(run_one(job.spec, job.concurrent))


def _end_with(parent: int) -> None:
    """End this process and its children once the parent is gone, even if the parent was killed."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.killpg(0, signal.SIGKILL)
