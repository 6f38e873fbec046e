"""A lock has one process at a time, ends with it however it ends, and trusts no clock."""

import fcntl
import json
import os
import subprocess
import sys
import time
from multiprocessing import Pipe

import pytest

from bench.store import locks
from bench.store.locks import RunLocks, alone, held

HOLD = """
import sys, time
from pathlib import Path
from bench.store.locks import RunLocks
with RunLocks(Path(sys.argv[1])) as mine:
    print(mine.take(sys.argv[2]), flush=True)
    time.sleep(60)
"""

A, B = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"


@pytest.fixture
def another(tmp_path):
    """Another process that locks a run; the process, once it has."""
    begun = []

    def begin(key):
        process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path, key], stdout=subprocess.PIPE, text=True)
        begun.append(process)
        assert process.stdout.readline() == "True\n"
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def test_a_run_is_locked_once(tmp_path):
    with RunLocks(tmp_path) as first, RunLocks(tmp_path) as second:
        assert first.take(A)
        assert not second.take(A)
        assert second.take(B)
        first.release(A)
        assert second.take(A)
        assert not first.take(A)


def test_nothing_is_left_of_locks(tmp_path):
    with RunLocks(tmp_path) as first:
        with RunLocks(tmp_path) as second:
            assert first.take(A)
            assert second.take(B)
        assert held(tmp_path) == {A}
    assert list(tmp_path.iterdir()) == []


def test_a_lock_says_whose_it_is(tmp_path):
    with RunLocks(tmp_path) as mine:
        mine.take(A)
        content = json.loads((tmp_path / "locks" / f"{A}.json").read_text())
    assert content["process"] == os.getpid()
    assert set(content) == {"host", "process", "since"}


def test_a_lock_ends_with_its_process_and_not_before(tmp_path, another):
    process = another(A)
    with RunLocks(tmp_path) as mine:
        assert not mine.take(A)
        assert held(tmp_path) == {A}
        process.kill()
        process.wait()
        assert (tmp_path / "locks" / f"{A}.json").exists()
        assert held(tmp_path) == set()
        assert mine.take(A)


@pytest.mark.parametrize("shift", [-1e9, 1e9])
def test_clocks_do_not_matter(tmp_path, another, shift, monkeypatch):
    process, path = another(A), tmp_path / "locks" / f"{A}.json"
    os.utime(path, (time.time() + shift, time.time() + shift))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + shift)
    with RunLocks(tmp_path) as mine:
        assert not mine.take(A)
        process.kill()
        process.wait()
        assert mine.take(A)


def test_a_child_does_not_keep_a_lock(tmp_path):
    """What its holder started may live on, and must not hold what the holder held."""
    ours, theirs = Pipe()
    with RunLocks(tmp_path) as mine:
        mine.take(A)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[theirs.fileno()])
    with RunLocks(tmp_path) as again:
        assert again.take(A)
    child.communicate(b"\n")
    ours.close()
    theirs.close()


def test_a_lock_on_a_file_that_was_removed_is_none(tmp_path, monkeypatch):
    """The last holder may remove the file after we opened it and before we lock it."""
    plain, path = fcntl.flock, tmp_path / "locks" / f"{A}.json"

    def late(handle, kind):
        monkeypatch.setattr(fcntl, "flock", plain)
        path.unlink()
        plain(handle, kind)

    with RunLocks(tmp_path) as mine, RunLocks(tmp_path) as other:
        monkeypatch.setattr(fcntl, "flock", late)
        assert mine.take(A)
        assert not other.take(A)


def test_a_file_system_without_locks_is_accepted(tmp_path, monkeypatch):
    def refuse(handle, kind):
        raise OSError(locks.NO_LOCKS[0], "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunLocks(tmp_path) as mine:
        assert mine.take(A)


def test_alone_is_alone(tmp_path):
    code = """
import sys
from pathlib import Path
from bench.store.locks import alone
count = Path(sys.argv[1]) / "count"
for _ in range(20):
    with alone(count.parent):
        count.write_text(str(int(count.read_text()) + 1))
"""
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", code, tmp_path]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "60"
    with alone(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["count"]
