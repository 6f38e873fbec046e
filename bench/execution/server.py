"""The server that runs are forked from, and the two processes of a run: one carries it out, the other watches it.

The server has torch loaded and does nothing but fork, so that a fresh process takes 0.1 s instead of the 3 s that
torch takes to import. For each run it forks a watcher, which forks the run:

    server -> watcher -> run

The watcher holds the run to its limits, and ends it when the process that asked for it is gone or says so. Whatever
the run leaves behind becomes a child of the watcher (PR_SET_CHILD_SUBREAPER, prctl(2)), which ends and names it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

import msgspec

from bench.common.errors import describe
from bench.common.units import in_words
from bench.execution.job import Job, Outcome
from bench.process.containment import children
from bench.store.records import RunResult

CarryOut = Callable[[Job], list[RunResult]]
Reply = tuple[int, list[str], list[RunResult]]

LOOK_S = 1.0
MEMORY_LOOK_S = 0.02
END_S = 5.0
A_COPY = 111  # the exit code of a copy that a method has forked of its run
ATOMIC = 4096  # bytes that a pipe takes in one piece, pipe(7)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
LIBRARIES = ("bench", "datasets", "methods", "numpy", "pyro", "scipy", "sklearn", "torch", "zuko")


def serve(control: int, carry_out: CarryOut, environment: Callable[[], tuple[str, ...]]) -> None:
    """Fork a run for each connection that is received, until the other end is closed.

    Args:
        control: Descriptor of the socket over which connections are received.
        carry_out: Carries out a job; called in the run's own process.
        environment: The code and packages here.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for watchers
    os.set_inheritable(control, False)
    environment()  # its digest of the code is then known to all that is forked
    imports = _Imports()
    gc.freeze()
    with socket.socket(fileno=control) as asked:
        while True:
            _, handles, *_ = socket.recv_fds(asked, 1, 1)
            if not handles:
                return
            imports.repeat()
            if os.fork() == 0:
                asked.detach()
                os.close(control)
                connection = Connection(handles[0])
                _never_returns(partial(_watch, connection, carry_out, environment, imports))
            os.close(handles[0])


def _never_returns(act: Callable[[], None]) -> None:
    """Act, and end this process without what Python or libraries do at exit."""
    code = 1
    try:
        act()
        code = 0
    finally:
        os._exit(code)


class _Imports:
    """Modules that runs import are imported by the server too, so that the next run has them already.

    Only modules of the project and of its libraries: other code is never imported here.
    """

    def __init__(self) -> None:
        self.before = set(sys.modules)
        self.told, self.tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def report(self) -> None:
        """Tell the server what this process has imported since it was forked."""
        new = [name for name in sys.modules if name.partition(".")[0] in LIBRARIES and name not in self.before]
        outer = [name for name in new if name.rpartition(".")[0] not in new]
        with contextlib.suppress(OSError):  # a full pipe: the next run tells it
            os.write(self.tell, "\n".join([*outer, ""]).encode()[:ATOMIC])

    def repeat(self) -> None:
        """Import what was told, and keep garbage collection from walking it in each run."""
        with contextlib.suppress(BlockingIOError):
            for name in os.read(self.told, 16 * ATOMIC).decode(errors="replace").split():
                if name.partition(".")[0] in LIBRARIES:
                    with contextlib.suppress(ImportError):
                        import_module(name)
        if self.before != set(sys.modules):
            gc.freeze()
            self.before = set(sys.modules)


def _watch(
    asked: Connection, carry_out: CarryOut, environment: Callable[[], tuple[str, ...]], imports: _Imports
) -> None:
    """Carry out one job in a process of its own, and reply how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        job: Job = asked.recv()
    except EOFError:
        return
    here = environment()
    if job.environment and here != job.environment:
        asked.send_bytes(msgspec.msgpack.encode(Outcome(environment=here)))
        return
    replies, reply = Pipe(duplex=False)
    watcher, process = os.getpid(), os.fork()
    if process == 0:
        asked.close()
        replies.close()
        _never_returns(partial(_run, job, reply, watcher, carry_out, imports))
    reply.close()
    outcome = _awaited(job, process, asked, replies)
    outcome = msgspec.structs.replace(outcome, ended=_end(process, outcome.results is None), environment=here)
    with contextlib.suppress(OSError):  # nobody may listen any more
        asked.send_bytes(msgspec.msgpack.encode(outcome))


def _run(job: Job, reply: Connection, watcher: int, carry_out: CarryOut, imports: _Imports) -> None:
    """The run's own process: carry it out, and send its identity and its result."""
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != watcher:
        return
    process, send, encode, end = os.getpid(), reply.send_bytes, msgspec.msgpack.encode, os._exit
    results = carry_out(job)
    if os.getpid() != process:  # a copy that the method has forked
        end(A_COPY)
    try:
        content = encode((process, job.keys, results))
    except Exception as error:
        reason = f"its result cannot be stored: {describe(error)}"
        failed = [RunResult(spec, "failed", reason, concurrent=job.concurrent) for spec in job.specs]
        content = encode((process, job.keys, failed))
    send(content)
    imports.report()


def _awaited(job: Job, process: int, asked: Connection, replies: Connection) -> Outcome:
    """The outcome of a run: its result, or why there is none."""
    limits, sentinel = _Limits(job, process), os.pidfd_open(process)
    while True:
        ready = wait([asked, replies, sentinel], limits.look_s)
        if asked in ready:
            return Outcome(reason="it was stopped")
        if replies in ready:
            with contextlib.suppress(EOFError, OSError):
                return _checked(replies.recv_bytes(), job, process)
            select.select([sentinel], [], [], LOOK_S)
        if replies in ready or sentinel in ready:
            return Outcome(reason=_how_it_died(process))
        if (crash := limits.exceeded()) is not None:
            return crash


def _checked(content: bytes, job: Job, process: int) -> Outcome:
    """A result, if it comes from the run's own process and is that of its run."""
    try:
        sender, keys, results = msgspec.msgpack.decode(content, type=Reply)
    except msgspec.MsgspecError as error:
        return Outcome(reason=f"its result cannot be read: {describe(error)}")
    if (sender, keys, [result.spec.key for result in results]) != (process, job.keys, job.keys):
        return Outcome(reason="its process sent the result of another run")
    return Outcome(results)


def _how_it_died(process: int) -> str:
    found = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return "the process closed its pipe"
    if found.si_code == os.CLD_EXITED:
        return f"the process died (exit code {found.si_status})"
    hint = ", perhaps for lack of memory" if found.si_status == signal.SIGKILL else ""
    return f"the process died (signal {found.si_status}){hint}"


def _end(process: int, at_once: bool) -> tuple[str, ...]:
    """End the run and all that it left running.

    Args:
        process: The run's process.
        at_once: Whether it is killed now, or only if it does not end by itself.

    Returns:
        The names of what it left running.
    """
    names, ends = dict[str, None](), time.monotonic() + END_S
    if at_once or not select.select([os.pidfd_open(process)], [], [], LOOK_S)[0]:
        os.kill(process, signal.SIGKILL)
    while time.monotonic() < ends:
        for number, name in children().items():
            names |= {name: None} if number != process else {}
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        try:
            ended, status = os.waitpid(-1, 0)
        except ChildProcessError:
            break
        if ended != process and os.waitstatus_to_exitcode(status) == A_COPY:
            names["a copy of itself"] = None
    return tuple(names)


class _Limits:
    """The limits of a run that begins now."""

    def __init__(self, job: Job, process: int):
        self.job, self.process, self.began = job, process, time.monotonic()
        self.ends = math.inf if job.timeout is None else self.began + job.timeout * job.specs[0].block

    @property
    def look_s(self) -> float:
        """Seconds after which to look again."""
        return min(LOOK_S if self.job.memory is None else MEMORY_LOOK_S, max(0.0, self.ends - time.monotonic()))

    def exceeded(self) -> Outcome | None:
        """The outcome of a run that exceeds one; None if it keeps to them."""
        timeout, memory = self.job.timeout, self.job.memory
        spent = time.monotonic() - self.began
        if time.monotonic() >= self.ends:
            return Outcome(status="timeout", reason=f"stopped after {spent:.3g} s by --run-timeout {timeout:g}")
        if memory is not None and _resident(self.process) > memory:
            return Outcome(reason=f"used more than {in_words(memory)} (--run-memory)")
        return None


def _resident(process: int) -> int:
    """Bytes of a process that are resident; 0 if it is gone (proc(5))."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
