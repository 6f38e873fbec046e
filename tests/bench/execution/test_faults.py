"""What befalls a study from outside: killed, out of disk, its clock set back; the results are the same."""

import errno
import json
import random
import signal
import subprocess
import sys
import time

import pytest

from bench.common.errors import InterruptedStudyError, UsageError
from bench.execution import scheduler
from bench.execution.scheduler import Execution
from bench.store import tables
from bench.study import execute

METHODS = ("vae", "mapa", "iterative", "untrained")
SETTINGS = execute.Settings(METHODS, ("circle", "figure8"), seeds=3, size=40, validation_size=40, test_size=50)
DRIVER = f"""
import sys
from pathlib import Path
from bench.execution import scheduler
from bench.study import execute
from bench.execution import worker
worker.PROGRAM, scheduler.environment = Path(sys.argv[1]).read_text(), lambda: ("code of the test",)
settings = execute.Settings(*map(tuple, ({METHODS}, ("circle", "figure8"))), 3, 40, 40, 50)
print("begun", flush=True)
execute.run(settings, Path(sys.argv[2]), scheduler.Execution(jobs=2), execute.Silent(), "a command")
"""
LATEST_S = 2.0
TWO = Execution(jobs=2)


@pytest.fixture
def run(instant, monkeypatch):
    """Run the study, or what is missing of it, with made-up results, in this process."""
    monkeypatch.setattr(scheduler, "environment", lambda: ("code of the test",))

    def resume(folder, how=TWO, settings=SETTINGS, progress=None):
        return execute.run(settings, folder, how, progress or execute.Silent(), "a command")

    return resume


@pytest.fixture
def driver(instant, tmp_path):
    """The study in a process of its own, once it has begun to run."""
    (tmp_path / "program").write_text(instant)
    begun = []

    def begin(folder):
        command = [sys.executable, "-c", DRIVER, tmp_path / "program", folder]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        assert begun[-1].stdout.readline() == "begun\n"
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


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


@pytest.mark.parametrize("seed", range(6))
def test_a_study_that_is_killed_again_and_again_is_resumed_to_the_same_tables(
    driver, run, whole, values, tmp_path, seed
):
    """Five times each, so at 30 random moments in all."""
    folder, moments, kept = tmp_path / "killed", random.Random(seed), {}
    for _ in range(5):
        process = driver(folder)
        time.sleep(moments.uniform(0, LATEST_S) ** 2 / LATEST_S)  # more often early, while runs are still missing
        process.kill()
        process.wait()
        assert kept.items() <= run_files(folder).items()
        kept = run_files(folder)
    run(folder)
    assert same(told(folder, values), whole)
    assert kept.items() <= run_files(folder).items()
    assert not (folder / "claims").exists()


def run_files(folder):
    return {path.name: path.read_bytes() for path in (folder / "runs").glob("*.json")}


def test_two_processes_on_one_folder_find_what_one_does(driver, run, whole, values, tmp_path):
    folder = tmp_path / "shared"
    processes = [driver(folder), driver(folder)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert same(told(folder, values), whole)
    assert json.loads((folder / "study.json").read_text())["provenance"]["finished"]


def test_two_processes_that_ask_for_other_runs_lose_none(run, tmp_path):
    class Meanwhile(execute.Silent):
        def begin(self, total, waiting, jobs):
            run(tmp_path, settings=execute.replace(SETTINGS, methods=("oracle",)))

    run(tmp_path, progress=Meanwhile())
    assert set(tables.read_table(tmp_path, "runs")["method"]) == {*METHODS, "oracle"}
    assert set(json.loads((tmp_path / "study.json").read_text())["settings"]["methods"]) == {*METHODS, "oracle"}


class KillsAWorker(execute.Silent):
    """Kills the children of the study once, while they are at runs."""

    def __init__(self):
        self.killed = []

    def finish(self, result):
        process = int(result.message.split()[1])
        if not self.killed:
            self.killed.append(process)
            subprocess.run(["kill", "-9", str(process)], check=True)


def test_a_killed_worker_costs_nothing(run, whole, values, tmp_path):
    progress = KillsAWorker()
    run(tmp_path / "out", Execution(), progress=progress)
    assert progress.killed
    assert same(told(tmp_path / "out", values), whole)


def test_a_full_disk_ends_the_study_in_a_line_and_harms_nothing(run, whole, values, tmp_path, monkeypatch):
    plain, written = tables.write_run, []

    def full(folder, result):
        if len(written) == 3:
            with tables.replacing(tables.run_path(folder, result.spec)) as temporary:
                temporary.write_text('{"schema": ')
                raise OSError(errno.ENOSPC, "No space left on device")
        written.append(result)
        plain(folder, result)

    monkeypatch.setattr(tables, "write_run", full)
    with pytest.raises(InterruptedStudyError, match="cannot be written to: No space left on device"):
        run(tmp_path / "out")
    monkeypatch.setattr(tables, "write_run", plain)
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 3
    assert len(tables.read_table(tmp_path / "out", "runs")) >= 3
    assert not (tmp_path / "out" / "claims").exists()
    run(tmp_path / "out")
    assert same(told(tmp_path / "out", values), whole)


@pytest.mark.parametrize("call", ["replacing", "write_tables"])
def test_a_full_disk_at_the_end(run, tmp_path, monkeypatch, call):
    plain = getattr(tables, call)

    def full(path, *rest):
        if "study.json" in str(path) or call == "write_tables":
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(path, *rest)

    class Fills(execute.Silent):
        def begin(self, total, waiting, jobs):
            monkeypatch.setattr(tables, call, full)

    with pytest.raises(InterruptedStudyError, match="cannot be written to: No space left on device"):
        run(tmp_path, settings=execute.replace(SETTINGS, seeds=1), progress=Fills())


@pytest.mark.parametrize("content", [b"", b'{"schema": 2, "rows": [', b"\0" * 100])
def test_a_run_that_was_cut_short_is_run_again(run, whole, values, tmp_path, content):
    path = next((tmp_path / "whole" / "runs").iterdir())
    path.write_bytes(content)
    run(tmp_path / "whole")
    assert same(told(tmp_path / "whole", values), whole)
    assert path.read_bytes() != content


def test_a_folder_that_cannot_be_written_to_is_refused(run, tmp_path, monkeypatch, unchanged):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tables.tempfile, "mkstemp", refuse)
    with unchanged(tmp_path), pytest.raises(UsageError, match="cannot be written to: Read-only file system"):
        run(tmp_path)


def test_a_clock_that_is_set_back(driver, run, whole, values, tmp_path, monkeypatch):
    """Claims and runs of the future are what they are otherwise."""
    folder, process = tmp_path / "killed", driver(tmp_path / "killed")
    while not list((folder / "claims").glob("*")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1e6)
    run(folder)
    assert same(told(folder, values), whole)


def test_an_older_schema_is_refused_by_name(run, tmp_path, unchanged):
    run(tmp_path, settings=execute.replace(SETTINGS, seeds=1))
    info = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({**info, "schema": tables.SCHEMA - 1}))
    with unchanged(tmp_path), pytest.raises(UsageError, match="holds results of another schema"):
        run(tmp_path)


STATES = ("done", "failed", "timeout", "skipped")


@pytest.mark.parametrize("retry", [False, True])
def test_what_failed_is_a_row_until_it_is_to_be_run_again(run, tmp_path, retry):
    settings = execute.replace(SETTINGS, datasets=("circle",), seeds=1)
    for state, result in zip(STATES, run(tmp_path, settings=settings), strict=True):
        result.status, result.message = state, "before"
        tables.write_run(tmp_path, result)
    after = run(tmp_path, Execution(jobs=2, retry_failed=retry), settings)
    kept = {state for state, result in zip(STATES, after, strict=True) if result.message == "before"}
    assert kept == ({"done", "skipped"} if retry else set(STATES))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_study_that_is_told_to_end_writes_its_tables(tmp_path, instant, number, code):
    """The tables of what is finished, and how to resume."""
    program = tmp_path / "program"
    program.write_text(instant.replace("pipe.send(result)", "time.sleep(0.3); pipe.send(result)"))
    main = f"""
import sys
from pathlib import Path
from bench.cli import app
from bench.execution import scheduler
from bench.execution import worker
worker.PROGRAM, scheduler.environment = Path({str(program)!r}).read_text(), lambda: ("code of the test",)
sys.argv = ["bench", "compare", "-d", "circle", "--seeds", "9", "--out", {str(tmp_path / "out")!r}, "-j", "1"]
app.main()
"""
    with subprocess.Popen([sys.executable, "-c", main], stderr=subprocess.PIPE, text=True) as process:
        while len(list((tmp_path / "out" / "runs").glob("*.json"))) < 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Resume with:\n" in err
    assert "Traceback" not in err
    assert len(tables.read_table(tmp_path / "out", "runs")) >= 2
    assert not (tmp_path / "out" / "claims").exists()
