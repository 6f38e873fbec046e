"""Runs in child processes: what is handed over, what becomes of a child, and what a limit does."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.common.errors import UsageError
from bench.execution import worker
from bench.execution.pool import Workers
from bench.execution.worker import Job, RunCrashedError, environment
from bench.fit.runner import run_one
from bench.registry.plugins import PluginFile


@pytest.fixture
def workers():
    made = Workers()
    yield made
    made.end()


@pytest.fixture
def job(run_spec):
    """A job that acts as its parameters say."""

    def make(*acts, **fields):
        return Job(run_spec(parameters=acts), **fields)

    return make


def process_of(result):
    return int(result.message.split()[1])


def gone(process, within=5.0):
    deadline = time.monotonic() + within
    while Path(f"/proc/{process}/stat").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not Path(f"/proc/{process}/stat").exists()


@pytest.mark.usefixtures("full_evaluation")
def test_a_run_is_the_same_in_a_child(run_spec, workers, tmp_path):
    """With plugins that are not on its machine: they travel with what they import, and the run keeps their path."""
    files = (("mine.py", b"from parts.own import Own\nMETHODS = {'mine': Own}\n"),
             ("parts/own.py", b"from methods.baselines import Untrained as Own\n"))  # fmt: skip
    plugin = PluginFile(str(tmp_path / "elsewhere" / "mine.py"), files)
    spec = run_spec(method="mine", plugins=(plugin.path,), n_train=20, n_test=20)
    here = run_one(run_spec(method="untrained", n_train=20, n_test=20))
    there = workers.run(Job(spec, plugins=(plugin,), concurrent=True, environment=environment()))
    assert [(r.checkpoint, r.metric, r.value, r.stderr) for r in there.rows] == [
        (r.checkpoint, r.metric, r.value, r.stderr) for r in here.rows
    ]
    assert (there.spec, there.status, there.concurrent) == (spec, "done", True)
    again = workers.run(Job(spec, plugins=(plugin,), timeout=600.0, memory=10**12))
    assert [row.value for row in again.rows] == [row.value for row in here.rows]
    assert not Path(plugin.path).exists()


def test_a_child_does_not_outlive_its_parent():
    """Which may be killed, while a run is being made."""
    main = "from bench.execution.worker import Worker\nprint(Worker().process.pid, flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", main], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        time.sleep(1.0)  # until the child has begun to watch its parent
        assert not gone(child, 0)
        parent.kill()
    assert gone(child, 30.0)


def test_a_child_serves_run_after_run(workers, job, instant):
    first, second = (workers.run(job()) for _ in range(2))
    assert process_of(first) == process_of(second)


def test_a_child_is_started_anew_for_other_plugins(workers, job, instant, tmp_path):
    (tmp_path / "mine.py").write_bytes(b"old")
    files = [PluginFile(str(tmp_path / "mine.py"), (("mine.py", text),)) for text in (b"old", b"new")]
    first, second = (workers.run(job(plugins=(each,))) for each in files)
    assert process_of(first) != process_of(second)
    assert gone(process_of(first))


def test_a_child_that_is_not_clean_is_not_used_again(workers, job, instant):
    workers.run(job())
    (before,) = workers._idle
    workers.run(job(("process_is_clean", False)))
    assert gone(before.process.pid)
    assert workers._idle == []


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (("kill", ""), "the process died (signal 9), perhaps for lack of memory"),
        (("exit", 3), "the process died (exit code 3)"),
        (("exit", 0), "the process died (exit code 0)"),
    ],
)
def test_a_child_that_dies(workers, job, instant, act, reason):
    with pytest.raises(RunCrashedError) as death:
        workers.run(job(act))
    assert (death.value.status, death.value.reason) == ("failed", reason)
    assert workers.run(job()).status == "done"


def test_a_child_that_dies_and_leaves_another_behind(workers, job, instant, monkeypatch):
    """That one keeps the pipe open, so that nothing is heard of the death."""
    monkeypatch.setattr(worker, "LOOK_S", 0.1)
    began = time.monotonic()
    with pytest.raises(RunCrashedError, match="signal 9"):
        workers.run(job(("fork", 60), ("kill", "")))
    assert time.monotonic() - began < 20


def test_a_run_that_takes_too_long(workers, job, instant, monkeypatch):
    monkeypatch.setattr(worker, "LOOK_S", 0.05)
    began = time.monotonic()
    with pytest.raises(RunCrashedError) as death:
        workers.run(job(("sleep", 60), timeout=0.5))
    assert 0.5 < time.monotonic() - began < 20
    assert death.value.status == "timeout"
    assert death.value.reason.startswith("stopped after 0.5")
    assert death.value.reason.endswith("by --run-timeout 0.5")
    assert workers.run(job(("sleep", 0.1), timeout=20.0)).status == "done"


def test_a_run_that_grows_without_bound(workers, job, instant):
    with pytest.raises(RunCrashedError) as death:
        workers.run(job(("grow", None), memory=200_000_000))
    assert (death.value.status, death.value.reason) == ("failed", "used more than 200 MB (--run-memory)")


def test_other_code_is_refused(workers, job, instant):
    assert workers.run(job(environment=("code of the test",))).status == "done"
    with pytest.raises(UsageError, match=r"a worker has code of the test\b.*\bcode of the client"):
        workers.run(job(environment=("code of the client",)))


def test_the_end_ends_all_that_runs(job, instant):
    workers, ends = Workers(), []

    def run():
        with pytest.raises(RunCrashedError):
            workers.run(job(("sleep", 60)))
        ends.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    while not workers._busy or not workers._busy[0].environment:
        time.sleep(0.01)
    children = [each.process.pid for each in workers._busy]
    workers.end()
    thread.join(20)
    assert ends
    assert all(map(gone, children))
    with pytest.raises(RunCrashedError):
        workers.run(job())
