"""Runs on this machine and on a Dask cluster, by one code path: what is run, left to others, and refused."""

import builtins
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import msgspec
import pytest

from bench.common.errors import InterruptedStudyError, UsageError
from bench.config.schema import Execution
from bench.execution import scheduler
from bench.execution.job import Job, RunCrashedError
from bench.execution.scheduler import blocks, run_all, threads_of, time_alone
from bench.store import run_files
from bench.store.locks import RunLocks
from bench.store.records import Cost, RunResult

CODE = ("code of the test",)


@pytest.fixture
def folder(tmp_path, monkeypatch, instant):
    """A study's folder; children answer at once."""
    monkeypatch.setattr(scheduler, "environment", lambda: CODE)
    monkeypatch.setattr(scheduler, "LOOK_S", 0.02)
    (tmp_path / "runs").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def cluster(instant_program, tmp_path_factory):
    """A Dask cluster of two processes, daemons, on this machine; a lost one counts against a run at once.

    Its workers, and what replaces a lost one, are told by a file what children run: they cannot import the tests.
    """
    import dask
    from distributed import LocalCluster

    preload = tmp_path_factory.mktemp("cluster") / "answer_at_once.py"
    preload.write_text(f"from bench.execution import pool\n\npool.PROGRAM = {instant_program!r}\n")
    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.comm.timeouts.connect": "20s"}
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
            preload=[str(preload)],
        ) as made,
    ):
        yield made


@pytest.fixture(params=["here", "cluster"])
def how(request, folder):
    """Two runs at a time, here and on a cluster."""
    if request.param == "here":
        return Execution(jobs=2)
    cluster = request.getfixturevalue("cluster")
    return Execution(jobs=2, scheduler=cluster.scheduler_address)


def runs(run_spec, *acts):
    return [run_spec(seed=seed, parameters=parameters) for seed, parameters in enumerate(acts)]


def test_every_run_is_run_and_what_dies_costs_itself_only(run_spec, how, folder, tmp_path):
    once = str(tmp_path / "died")
    specs = runs(run_spec, (), (("kill", ""),), (("exit", 3),), (("kill_once", once),), ())
    found = {result.spec: result for result in run_all(specs, how, folder)}
    assert [found[spec].status for spec in specs] == ["done", "failed", "failed", "done", "done"]
    assert found[specs[1]].message.startswith("the process died (signal 9)")
    assert found[specs[2]].message == "the process died (exit code 3), in each of 2 attempts"
    assert all(result.concurrent for result in found.values())
    assert not (folder / "locks").exists()


def test_a_run_that_dies_is_run_twice_and_no_more(run_spec, how, folder, tmp_path):
    count = tmp_path / "count"
    count.touch()
    (result,) = run_all(runs(run_spec, (("count", str(count)), ("kill", ""))), how, folder)
    assert count.read_text() == "ran ran "
    assert result.status == "failed"


def test_limits_hold(run_spec, how, folder):
    limited = msgspec.structs.replace(how, run_timeout=1.5, run_memory=200_000_000)
    specs = runs(run_spec, (("sleep", 60),), (("grow", None),), ())
    found = {result.spec: result for result in run_all(specs, limited, folder)}
    assert [found[spec].status for spec in specs] == ["timeout", "failed", "done"]
    assert "by --run-timeout 1.5, in each of 2 attempts" in found[specs[0]].message
    assert "used more than 200 MB" in found[specs[1]].message


def test_runs_of_one_block_are_one_job(run_spec):
    several = [run_spec(seed=seed, method=method, block=3) for seed in (0, 1, 2, 3, 5) for method in ("vae", "iwae")]
    single = [run_spec(seed=seed, method="mapa") for seed in (0, 1)]
    other = run_spec(seed=1, dataset="torus", block=3)
    assert [[(s.dataset, s.method, s.seed) for s in block] for block in blocks([*several, *single, other])] == [
        [("circle", "vae", 0), ("circle", "vae", 1), ("circle", "vae", 2)],
        [("circle", "iwae", 0), ("circle", "iwae", 1), ("circle", "iwae", 2)],
        [("circle", "vae", 3), ("circle", "vae", 5)],
        [("circle", "iwae", 3), ("circle", "iwae", 5)],
        [("circle", "mapa", 0)],
        [("circle", "mapa", 1)],
        [("torus", "vae", 1)],
    ]


def test_a_block_that_dies_is_run_twice_and_all_its_runs_say_so(run_spec, how, folder, tmp_path):
    count = tmp_path / "count"
    count.touch()
    acts = (("count", str(count)), ("kill", ""))
    lost = [run_spec(seed=seed, block=2, parameters=acts) for seed in (2, 3)]
    kept = [run_spec(seed=seed, block=2) for seed in (0, 1)]
    found = {result.spec: result for result in run_all([*lost, *kept], how, folder)}
    assert [found[spec].status for spec in (*lost, *kept)] == ["failed", "failed", "done", "done"]
    assert {found[spec].message for spec in lost} == {
        "the process died (signal 9), perhaps for lack of memory, in each of 2 attempts"
    }
    assert found[kept[0]].message == found[kept[1]].message  # which names their process
    assert count.read_text() == "ran ran "
    assert not (folder / "locks").exists()


def test_of_a_block_the_runs_that_no_other_process_has_are_run(run_spec, folder):
    """Of the others, one is taken once it is there, and one that is given up is run."""
    specs = [run_spec(seed=seed, block=4) for seed in range(4)]
    with RunLocks(folder) as other:
        assert other.take(specs[1].key)
        assert other.take(specs[2].key)
        results = run_all(specs, Execution(jobs=2), folder)
        first = [next(results), next(results)]
        assert [result.spec for result in first] == [specs[0], specs[3]]
        run_files.write_run(folder, RunResult(specs[1], message="of another"))
        other.release(specs[1].key)
        other.release(specs[2].key)
        last = {result.spec: result.message for result in results}
    assert last.keys() == {specs[1], specs[2]}
    assert last[specs[1]] == "of another"
    assert last[specs[2]].startswith("process ")


def test_fits_are_timed_one_after_another_and_what_dies_is_left_out(run_spec, folder, monkeypatch):
    monkeypatch.setattr(scheduler, "_here", watched := Watched(scheduler._here))
    dies = run_spec(method="iwae", parameters=(("kill", ""),))
    found = list(time_alone([run_spec(), dies, run_spec(method="flow", block=3)]))
    assert [(result.spec.method, result.alone) for result in found] == [
        ("vae", [(10.0, 1.0, 1.0)]),
        ("flow", [(10.0, 1.0, 1.0)]),
    ]
    assert watched.jobs == [1]


def test_within_one_server_all_runs_are_forked_from_it(run_spec, folder, monkeypatch):
    """It outlives those that end, and ends with an interruption."""
    started = []
    start = scheduler.RunServer._start
    monkeypatch.setattr(scheduler.RunServer, "_start", lambda self: (started.append(self), start(self))[1])
    with scheduler.one_server() as server:
        assert len(list(run_all(runs(run_spec, ()), Execution(), folder))) == 1
        assert len(list(time_alone([run_spec()]))) == 1
        assert started == [server]
        interrupted = run_all(runs(run_spec, (), (("sleep", 60),)), Execution(), folder)
        next(interrupted)
        began = time.monotonic()
        interrupted.close()
        assert time.monotonic() - began < 20
        with pytest.raises(RunCrashedError):
            server.run(Job((run_spec(),)))
    assert len(list(run_all(runs(run_spec, ()), Execution(), folder))) == 1
    assert len(started) == 2


class Watched:
    """A function, and the numbers of jobs that it was called with."""

    def __init__(self, plain):
        self.plain, self.jobs = plain, []

    def __call__(self, jobs):
        self.jobs.append(jobs)
        return self.plain(jobs)


def test_one_at_a_time_is_not_contended(run_spec, folder):
    assert [result.concurrent for result in run_all(runs(run_spec, (), ()), Execution(), folder)] == [False, False]


def test_the_next_run_runs_while_a_result_is_written(run_spec, folder, tmp_path):
    count = tmp_path / "count"
    count.touch()
    results = run_all(runs(run_spec, (), (("count", str(count)),)), Execution(), folder)
    next(results)
    deadline = time.monotonic() + 20
    while not count.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count.read_text() == "ran "
    assert len(list(results)) == 1


@pytest.mark.parametrize(
    ("jobs", "last"), [(1, "long short long short long new"), (2, "new long long long short short")]
)
def test_the_last_runs_begin_with_those_that_take_longest(run_spec, folder, jobs, last):
    """So that all workers end soon; what has not run yet may take longest of all."""
    took = {"short": 1.0, "long": 9.0, "new": 2.0}
    known = [run_spec(method=method, seed=seed) for seed in range(6) for method in ("short", "long")]
    begun = []

    def submit(job):
        (spec,) = job.specs
        begun.append(spec.method)
        future = Future()
        future.set_result([RunResult(spec, cost=Cost(wall_s=took[spec.method]))])
        return future

    with RunLocks(folder) as locks:
        waiting = [*known, *(run_spec(method=method, seed=9) for method in took)]
        results = list(scheduler._Round(waiting, Execution(jobs=jobs), submit, locks, folder).results())
    assert len(results) == len(begun) == 15
    assert begun == [*(spec.method for spec in known[:9]), *last.split()]


def test_other_code_is_refused(run_spec, how, folder, monkeypatch):
    monkeypatch.setattr(scheduler, "environment", lambda: ("code of the client",))
    with pytest.raises(UsageError, match=r"a worker has code of the test\b.*\bcode of the client"):
        list(run_all(runs(run_spec, ()), how, folder))
    assert not (folder / "locks").exists()


def test_a_result_is_taken_before_its_lock_is_released(run_spec, folder):
    (spec,) = runs(run_spec, ())
    with RunLocks(folder) as other:
        for result in run_all([spec], Execution(), folder):
            assert not other.take(result.spec.key)
        assert other.take(spec.key)


def test_what_another_process_runs_is_left_to_it(run_spec, folder):
    """Its result is taken once it is there; a run that it gives up without one is run."""
    kept, given_up = runs(run_spec, (), ())
    with RunLocks(folder) as other:
        assert other.take(kept.key)
        assert other.take(given_up.key)
        results = run_all([kept, given_up], Execution(jobs=2), folder)
        found = []
        thread = threading.Thread(target=lambda: found.extend(results))
        thread.start()
        time.sleep(0.2)
        assert found == []
        run_files.write_run(folder, RunResult(kept, message="of another"))
        other.release(kept.key)
        other.release(given_up.key)
        thread.join(20)
    messages = {result.spec: result.message for result in found}
    assert messages[kept] == "of another"
    assert messages[given_up].startswith("process ")


def test_two_that_share_a_folder_run_each_run_once(run_spec, folder, tmp_path, monkeypatch):
    class Listed(scheduler.RunServer):
        def run(self, job):
            servers.append(self)
            return super().run(job)

    servers = []
    monkeypatch.setattr(scheduler, "RunServer", Listed)
    count = tmp_path / "count"
    count.touch()
    specs = runs(run_spec, *[(("count", str(count)), ("sleep", 0.05))] * 8)
    found = [[], []]

    def run(results):
        for result in run_all(specs, Execution(), folder):
            run_files.write_run(folder, result)
            results.append(result)

    threads = [threading.Thread(target=run, args=(each,)) for each in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [len(each) for each in found] == [8, 8]
    assert count.read_text() == 8 * "ran "
    assert len(set(servers)) == 2


def test_no_more_at_a_time_than_there_may_be(run_spec, folder, monkeypatch):
    most = []

    class Counting(scheduler._Round):
        def _ended(self):
            most.append(len(self.running))
            yield from super()._ended()

    monkeypatch.setattr(scheduler, "_Round", Counting)
    assert len(list(run_all(runs(run_spec, *[()] * 6), Execution(jobs=2), folder))) == 6
    assert max(most) == 2


def test_a_worker_of_the_cluster_that_is_lost(run_spec, folder, cluster, tmp_path):
    """The run is run again, once; with it, or for another reason, its worker may be lost again."""
    count = tmp_path / "count"
    count.touch()
    how = Execution(jobs=2, scheduler=cluster.scheduler_address)
    specs = runs(run_spec, (("count", str(count)), ("sleep", 3.0)), ())
    with scheduler.connected(how.scheduler) as client:
        results = run_all(specs, how, folder)
        assert next(results).spec == specs[1]
        while not count.read_text():
            time.sleep(0.01)
        (busy,) = (address for address, keys in client.processing().items() if keys)
        os.kill(client.run(os.getpid, workers=[busy])[busy], signal.SIGKILL)
        (lost,) = results
    assert (lost.spec, lost.status) == (specs[0], "done")
    assert count.read_text() == "ran ran "


def test_a_scheduler_that_is_lost_ends_the_study_and_fails_no_run(run_spec, folder):
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as scheduler:
        address = next(found[0] for line in scheduler.stderr if (found := re.search(r"tcp://[\d.]+:\d+", line)))
        threading.Timer(1.0, scheduler.kill).start()
        with pytest.raises(InterruptedStudyError, match=f"the Dask scheduler at {address} was lost"):
            list(run_all(runs(run_spec, (), ()), Execution(jobs=1, scheduler=address), folder))
    assert not list((folder / "runs").iterdir())
    assert not (folder / "locks").exists()


def test_the_threads_of_a_cluster(cluster):
    assert threads_of(cluster.scheduler_address) == 2


def test_a_cluster_that_is_not_there(monkeypatch):
    monkeypatch.setattr(scheduler, "CONNECT_S", 0.3)
    with pytest.raises(UsageError, match=r"--scheduler tcp://127\.0\.0\.1:1 cannot be reached"):
        threads_of("tcp://127.0.0.1:1")


def test_a_cluster_without_dask(monkeypatch):
    plain = builtins.__import__

    def without(name, *rest):
        if name == "distributed":
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install -c constraints.txt -e '\.\[distributed\]'"):
        threads_of("tcp://127.0.0.1:1")


def test_an_executor_that_cannot_run_ones_ends_the_study(run_spec, folder, monkeypatch):
    class Broken(scheduler.RunServer):
        def run(self, job):
            raise ModuleNotFoundError("No module named 'bench'")

    monkeypatch.setattr(scheduler, "RunServer", Broken)
    with pytest.raises(InterruptedStudyError, match="ModuleNotFoundError: No module named 'bench'"):
        list(run_all(runs(run_spec, ()), Execution(), folder))
