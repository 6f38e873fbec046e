"""Work in a copy of this process: its result, errors in it, and its end."""

import multiprocessing
import os
import threading
import time

import pytest

from bench.common.beside import Beside

HERE = os.getpid()


def test_the_result_is_that_of_the_work():
    assert Beside(lambda: [1, {"a": b"2"}]).result() == [1, {"a": b"2"}]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_it_is_done_by_another_process_meanwhile(monkeypatch):
    """Other tests may have left threads, beside which it is not."""
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    start = time.perf_counter()
    beside = Beside(lambda: (time.sleep(1), os.getpid())[1])
    time.sleep(1)
    assert beside.result() != HERE
    assert time.perf_counter() - start < 1.9


def test_on_one_core_this_process_does_it(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert Beside(os.getpid).result() == HERE


def test_with_other_threads_this_process_does_it():
    go = threading.Event()
    other = threading.Thread(target=go.wait)
    other.start()
    try:
        assert Beside(os.getpid).result() == HERE
    finally:
        go.set()
        other.join()


def test_a_daemonic_process_does_it_by_itself():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(done_here)


def done_here():
    return Beside(os.getpid).result() == os.getpid()


def test_an_error_is_raised_here_and_printed_nowhere(capfd):
    beside = Beside(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        beside.result()
    assert capfd.readouterr() == ("", "")


def test_what_a_killed_copy_did_not_do_is_done_here():
    assert Beside(lambda: os._exit(9) if os.getpid() != HERE else "done").result() == "done"


def test_what_cannot_be_sent_is_done_here():
    assert callable(Beside(lambda: lambda: None).result())
