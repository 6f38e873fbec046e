"""What befalls a study from outside: killed, out of disk, its clock set back; the results are the same."""

import contextlib
import errno
import json
import multiprocessing
import os
import random
import shlex
import signal
import sys
import time

import psutil
import pytest

from bench.cli import app
from bench.common.errors import InterruptedStudyError, UsageError
from bench.config.schema import Execution, Settings
from bench.execution import pool, scheduler
from bench.store import files, run_files, tables
from bench.study.execute import execute
from bench.study.log import Silent
from bench.study.plan import resolve

METHODS = ("vae", "mapa", "iterative", "untrained")
SETTINGS = {"methods": METHODS, "datasets": ("circle", "figure8"), "seeds": 3, "n_train": 20, "n_test": 20}
LATEST_S = 0.7
TWO = Execution(jobs=2)
FORK = multiprocessing.get_context("fork")  # torch is loaded already
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def run(instant, monkeypatch):
    """Run the study, or what is missing of it, with made-up results, in this process."""
    monkeypatch.setattr(scheduler, "environment", lambda: ("code of the test",))

    def resume(folder, how=TWO, log=None, **changed):
        return execute(resolve(Settings(**SETTINGS | changed)), folder, how, log or Silent(), "a command")

    return resume


@pytest.fixture
def start():
    """Start a process; all are killed at the end."""
    begun = []

    def begin(target):
        begun.append(FORK.Process(target=target))
        begun[-1].start()
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.join()


@pytest.fixture
def driver(run, start):
    """The study in a process of its own."""
    plan = resolve(Settings(**SETTINGS))
    assert plan.runs
    return lambda folder: start(lambda: execute(plan, folder, TWO, Silent(), "a command"))


def told(folder, values):
    """All values but times and the process that made them up."""
    runs, rows = values(folder)
    return runs.drop(columns="message"), rows


def same(first, second):
    return all(one.equals(other) for one, other in zip(first, second, strict=True))


@pytest.fixture
def whole(run, tmp_path, values):
    """The values of the study that nothing befell."""
    assert len(run(tmp_path / "whole")) == 24
    return told(tmp_path / "whole", values)


def test_a_study_that_is_killed_again_and_again_is_resumed_to_the_same_tables(driver, run, whole, values, tmp_path):
    """At random moments, more often early, while runs are still missing."""
    folder, moments, kept = tmp_path / "killed", random.Random(0), {}
    for _ in range(20):
        process = driver(folder)
        time.sleep(moments.uniform(0, LATEST_S) ** 2 / LATEST_S)
        process.kill()
        process.join()
        assert kept.items() <= contents_of_runs(folder).items()
        kept = contents_of_runs(folder)
    run(folder)
    assert same(told(folder, values), whole)
    assert kept.items() <= contents_of_runs(folder).items()
    assert not (folder / "locks").exists()


def contents_of_runs(folder):
    """What the files of runs hold, but for the seconds of fits alone, which are added when all are there."""
    found = {path.name: json.loads(path.read_bytes()) for path in (folder / "runs").glob("*.json")}
    return {name: {**content, "alone": None, "digest": None} for name, content in found.items()}


def test_two_processes_on_one_folder_find_what_one_does(driver, run, whole, values, tmp_path):
    folder = tmp_path / "shared"
    processes = [driver(folder), driver(folder)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert same(told(folder, values), whole)
    assert json.loads((folder / "study.json").read_text())["provenance"]["finished"]


def test_two_processes_that_ask_for_other_runs_lose_none(run, tmp_path):
    class Meanwhile(Silent):
        def begin(self, total, waiting, jobs):
            run(tmp_path, methods=("oracle",))

    run(tmp_path, log=Meanwhile())
    assert set(tables.read_table(tmp_path, "runs")["method"]) == {*METHODS, "oracle"}
    assert set(json.loads((tmp_path / "study.json").read_text())["settings"]["methods"]) == {*METHODS, "oracle"}


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_servers_watchers_and_runs_cost_nothing(run, whole, values, tmp_path, jobs):
    """One of the processes under the study is killed after each result; a run is repeated if it was hit."""
    moments, killed = random.Random(0), []

    class Kills(Silent):
        def finish(self, result):
            below = psutil.Process().children(recursive=True)
            if below and len(killed) < 10:
                killed.append(moments.choice(below))
                with contextlib.suppress(psutil.NoSuchProcess):
                    killed[-1].kill()

    results = run(tmp_path / "out", Execution(jobs=jobs), Kills())
    assert len(killed) == 10
    lost = [result for result in results if result.status != "done"]
    assert all("in each of 2 attempts" in result.message for result in lost)
    run(tmp_path / "out", Execution(jobs=jobs, retry_failed=True))
    assert same(told(tmp_path / "out", values), whole)


def test_a_full_disk_ends_the_study_in_a_line_and_harms_nothing(run, whole, values, tmp_path, monkeypatch):
    plain, written = run_files.write_run, []

    def full(folder, result):
        if len(written) == 3:
            with files.replacing(run_files.run_path(folder, result.spec)) as temporary:
                temporary.write_text('{"schema": ')
                raise OSError(errno.ENOSPC, "No space left on device")
        written.append(result)
        plain(folder, result)

    monkeypatch.setattr(run_files, "write_run", full)
    with pytest.raises(InterruptedStudyError, match="cannot be written to: No space left on device"):
        run(tmp_path / "out")
    monkeypatch.setattr(run_files, "write_run", plain)
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 3
    assert len(tables.read_table(tmp_path / "out", "runs")) >= 3
    assert not (tmp_path / "out" / "locks").exists()
    run(tmp_path / "out")
    assert same(told(tmp_path / "out", values), whole)


@pytest.mark.parametrize("call", ["bench.study.execute.write_json", "bench.store.tables.write_tables"])
def test_a_full_disk_at_the_end(run, tmp_path, monkeypatch, call):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Fills(Silent):
        def begin(self, total, waiting, jobs):
            monkeypatch.setattr(call, full)

    with pytest.raises(InterruptedStudyError, match="cannot be written to: No space left on device"):
        run(tmp_path, log=Fills(), seeds=1)


def test_a_folder_that_cannot_be_written_to_is_refused(run, tmp_path, monkeypatch, unchanged):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with unchanged(tmp_path), pytest.raises(UsageError, match="cannot be written to: Read-only file system"):
        run(tmp_path)


def test_a_clock_that_is_set_back(driver, run, whole, values, tmp_path, monkeypatch):
    """Locks and runs of the future count as all others do."""
    folder, process = tmp_path / "killed", driver(tmp_path / "killed")
    while not list((folder / "locks").glob("*")) and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1e6)
    run(folder)
    assert same(told(folder, values), whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_study_that_is_told_to_end_writes_its_tables_and_is_resumed(
    tmp_path, instant, start, cli, request, monkeypatch, number, code
):
    """By the command that it says."""
    slow = instant.replace("return [made_up", "time.sleep(0.2); return [made_up")
    monkeypatch.setattr(pool, "PROGRAM", slow)
    monkeypatch.setattr(scheduler, "environment", lambda: ("code of the test",))
    out, said = tmp_path / "out", tmp_path / "said"
    small = ("--seeds", "9", "--block", "2", "--n-train", "40", "--n-test", "50")
    asked = ("compare", "-m", "vae", "-d", "circle", *small)

    def command():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        sys.argv = ["bench", *asked, "--out", str(out), "-j", "1"]
        with said.open("w") as sys.stderr:
            app.main()

    process = start(command)
    while len(list((out / "runs").glob("*.json"))) < 2 and process.is_alive():
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join(60)
    err = said.read_text()
    assert process.exitcode == code, err
    assert "Traceback" not in err
    done = len(contents_of_runs(out))
    assert 2 <= done < 9
    assert done <= len(tables.read_table(out, "runs")) <= done + 1
    assert (out / "measurements.csv").exists()
    assert not (out / "locks").exists()
    assert not list(out.rglob("*.tmp"))
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder)
    before, resume = contents_of_runs(out), shlex.split(err.strip().splitlines()[-1])
    assert resume[:4] == ["python", "-m", "bench", "compare"]
    invented = request.getfixturevalue("invented")  # which takes the place of the scheduler
    assert cli(*resume[3:]).code == 0
    assert len(invented) == 9 - done
    assert before.items() <= contents_of_runs(out).items()
    assert len(tables.read_table(out, "runs")) == 9
