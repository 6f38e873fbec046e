"""Runs in processes of their own: what is handed over, what becomes of a process, and what a limit does."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from bench.common.errors import UsageError
from bench.execution import server
from bench.execution.job import Job, Outcome, RunCrashedError, environment
from bench.execution.pool import RunServer
from bench.fit.runner import run_one
from bench.registry.plugins import PluginFile
from bench.store.records import RunResult

BEGIN = RunServer.begin  # which other tests are kept from


@pytest.fixture
def workers():
    made = RunServer()
    yield made
    made.end()


@pytest.fixture
def job(run_spec):
    """A job that acts as its parameters say."""

    def make(*acts, **fields):
        return Job((run_spec(parameters=acts),), **fields)

    return make


@pytest.fixture
def one(workers):
    """Carry out a job of one run."""

    def run(job):
        (result,) = workers.run(job)
        return result

    return run


def process_of(result):
    return int(result.message.split()[1])


def gone(process, within=5.0):
    deadline = time.monotonic() + within
    while Path(f"/proc/{process}/stat").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not Path(f"/proc/{process}/stat").exists()


@pytest.mark.usefixtures("full_evaluation")
def test_a_run_is_the_same_in_a_child(run_spec, one, tmp_path):
    """With plugins that are not on its machine: they travel with what they import, and the run keeps their path."""
    files = (("mine.py", b"from parts.own import Own\nMETHODS = {'mine': Own}\n"),
             ("parts/own.py", b"from methods.baselines import Untrained as Own\n"))  # fmt: skip
    plugin = PluginFile(str(tmp_path / "elsewhere" / "mine.py"), files)
    spec = run_spec(method="mine", plugins=(plugin.path,), n_train=20, n_test=20)
    here = run_one(run_spec(method="untrained", n_train=20, n_test=20))
    there = one(Job((spec,), plugins=(plugin,), concurrent=True, environment=environment()))
    assert [(r.checkpoint, r.metric, r.value, r.stderr) for r in there.rows] == [
        (r.checkpoint, r.metric, r.value, r.stderr) for r in here.rows
    ]
    assert (there.spec, there.status, there.concurrent) == (spec, "done", True)
    again = one(Job((spec,), plugins=(plugin,), timeout=600.0, memory=10**12))
    assert [row.value for row in again.rows] == [row.value for row in here.rows]
    assert not Path(plugin.path).exists()


def test_a_copied_plugin_is_not_written_again(workers, tmp_path):
    """A run that reads it meanwhile would find half of it."""
    plugin = PluginFile(str(tmp_path / "elsewhere" / "mine.py"), (("mine.py", b"x = 1"),))
    first, second = (Path(workers._at_hand(plugin)) for _ in range(2))
    assert first == second
    before = first.stat()
    workers._at_hand(plugin)
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert first.read_bytes() == b"x = 1"


def test_what_cannot_be_copied_is_told_as_it_is(workers, tmp_path, run_spec, monkeypatch):
    def full():
        raise OSError("No space left on device")

    monkeypatch.setattr(workers, "_own_folder", full)
    with pytest.raises(RunCrashedError, match="the run could not begin: OSError: No space left on device"):
        workers.run(Job((run_spec(),)))


OUTLIVED = """
import sys
from bench.execution import pool
from bench.execution.job import Job
from bench.store.records import RunSpec
pool.PROGRAM = sys.argv[1]
pool.RunServer().run(Job((RunSpec(dataset="circle", method="vae", seed=0, parameters=(("sleep", 60),)),)))
"""


def below(process, most):
    """All processes below one: those of a server and of the watcher and process of a run."""
    deadline, found = time.monotonic() + 20, []
    while len(found) < most and time.monotonic() < deadline:
        time.sleep(0.01)
        found = psutil.Process(process).children(recursive=True)
    return [each.pid for each in found]


def test_a_run_does_not_outlive_the_process_that_asked_for_it(instant_program):
    """Which may be killed at any time."""
    with subprocess.Popen([sys.executable, "-c", OUTLIVED, instant_program]) as parent:
        processes = below(parent.pid, 3)
        assert len(processes) == 3
        parent.kill()
    assert all(map(gone, processes))


def test_a_run_does_not_outlive_its_watcher(workers, job, instant):
    def kill():
        (watcher,) = psutil.Process(workers._process.pid).children()
        processes.extend([watcher.pid, *(each.pid for each in watcher.children())])
        watcher.kill()

    processes = []
    timer = threading.Timer(1.0, kill)
    timer.start()
    with pytest.raises(RunCrashedError, match="the watcher of the run ended"):
        workers.run(job(("sleep", 60)))
    assert len(processes) == 2
    assert all(map(gone, processes))


def test_each_run_has_a_process_of_its_own(one, job, instant):
    first, second = (one(job()) for _ in range(2))
    assert process_of(first) != process_of(second)
    assert all(gone(process_of(each)) for each in (first, second))


def test_a_server_that_was_killed_is_started_anew(workers, one, job, instant):
    one(job())
    workers._process.kill()
    workers._process.wait()
    assert one(job()).status == "done"


@pytest.mark.parametrize("act", ["fork", "daemon"])
def test_what_a_run_leaves_running_is_ended_and_named(one, job, instant, act):
    """A child, and a grandchild that has left the session and whose parent has ended."""
    result = one(job((act, 60)))
    assert result.status == "done"
    assert result.notes.startswith("ended after it: python")
    assert one(job()).notes == ""


def test_a_copy_of_the_run_sends_no_result(one, job, instant):
    """A method that forks: its copy goes through the rest of the run, and its result is not that of any run."""
    copied = one(job(("copy", None), ("sleep", 0.1)))
    assert copied.status == "done"
    assert one(job(("status", "skipped"))).status == "skipped"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"process": 8}, "sent the result of another run"),
        ({"keys": ["of another"]}, "sent the result of another run"),
        ({"results": []}, "sent the result of another run"),
        ({"results": [{"spec": 1}]}, "its result cannot be read"),
    ],
)
def test_a_reply_is_believed_only_from_its_own_run(job, changed, reason):
    asked = job()
    reply = {"process": 7, "keys": asked.keys, "results": [RunResult(spec) for spec in asked.specs]} | changed
    outcome = server._checked(msgspec.msgpack.encode(tuple(reply.values())), asked, 7)
    assert (outcome.results, outcome.status) == (None, "failed")
    assert reason in outcome.reason


def test_a_reply_of_the_run_itself_is_believed(job):
    asked = job()
    results = [RunResult(spec, message="its own", peak_memory_mb=1.0) for spec in asked.specs]
    content = msgspec.msgpack.encode((7, asked.keys, results))
    assert server._checked(content, asked, 7) == Outcome(results)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (("kill", ""), "the process died (signal 9), perhaps for lack of memory"),
        (("exit", 3), "the process died (exit code 3)"),
        (("exit", 0), "the process died (exit code 0)"),
    ],
)
def test_a_child_that_dies(workers, one, job, instant, act, reason):
    with pytest.raises(RunCrashedError) as death:
        workers.run(job(act))
    assert (death.value.status, death.value.reason) == ("failed", reason)
    assert one(job()).status == "done"


def test_a_child_that_dies_and_leaves_another_behind(workers, job, instant):
    """That one keeps the pipe open, so that nothing is heard of the death."""
    began = time.monotonic()
    with pytest.raises(RunCrashedError, match="signal 9"):
        workers.run(job(("fork", 60), ("kill", "")))
    assert time.monotonic() - began < 20


def test_a_run_that_takes_too_long(workers, one, job, instant):
    began = time.monotonic()
    with pytest.raises(RunCrashedError) as death:
        workers.run(job(("sleep", 60), timeout=0.5))
    assert 0.5 < time.monotonic() - began < 20
    assert death.value.status == "timeout"
    assert death.value.reason.startswith("stopped after 0.5")
    assert death.value.reason.endswith("by --run-timeout 0.5")
    assert one(job(("sleep", 0.1), timeout=20.0)).status == "done"


def test_the_runs_of_a_block_share_a_process_and_its_time(workers, run_spec, instant):
    """Each run may take the time."""
    block = tuple(run_spec(seed=seed, block=3, parameters=(("sleep", 0.8),)) for seed in range(3))
    found = workers.run(Job(block, timeout=0.6))
    assert [result.spec for result in found] == list(block)
    assert len({process_of(result) for result in found}) == 1
    with pytest.raises(RunCrashedError, match=r"by --run-timeout 0\.1\b"):
        workers.run(Job(block, timeout=0.1))
    (last,) = workers.run(Job(block[2:], timeout=0.6))  # the others of its block are fitted too
    assert last.status == "done"


def test_a_run_that_grows_without_bound(workers, job, instant):
    with pytest.raises(RunCrashedError) as death:
        workers.run(job(("grow", None), memory=200_000_000))
    assert (death.value.status, death.value.reason) == ("failed", "used more than 200 MB (--run-memory)")


def test_other_code_is_refused(workers, one, job, instant):
    assert one(job(environment=("code of the test",))).status == "done"
    with pytest.raises(UsageError, match=r"a worker has code of the test\b.*\bcode of the client"):
        workers.run(job(environment=("code of the client",)))


def test_a_server_may_begin_before_its_runs(workers, one, job, instant):
    for _ in range(2):
        BEGIN(workers)
    process = workers._process
    assert process.poll() is None
    assert one(job()).status == "done"
    assert workers._process is process


def test_the_end_ends_all_that_runs(job, instant):
    workers, ends = RunServer(), []

    def run():
        with pytest.raises(RunCrashedError):
            workers.run(job(("sleep", 60)))
        ends.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    while workers._process is None:
        time.sleep(0.01)
    children = below(workers._process.pid, 2)
    workers.end()
    thread.join(20)
    assert ends
    assert all(map(gone, children))
    with pytest.raises(RunCrashedError):
        workers.run(job())
