"""What results say of the code and the machine that made them."""

import platform
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.store import provenance


def test_now_is_the_time_in_utc():
    now = datetime.fromisoformat(provenance.now())
    assert now.utcoffset() == timedelta(0)
    assert timedelta(0) <= datetime.now(UTC) - now < timedelta(seconds=5)


def resolved(name):
    command = ["git", "-C", str(Path(provenance.__file__).parent), "rev-parse", name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_commit_is_that_of_the_sources_wherever_one_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commit = provenance.commit()
    if commit is None:
        pytest.skip("not a checkout")
    assert resolved(commit.removesuffix("-dirty")) == resolved("HEAD")


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.CalledProcessError(128, "git")])
def test_without_git_or_a_checkout_there_is_no_commit(monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(subprocess, "run", fails)
    assert provenance.commit() is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [("processor : 0\nmodel name\t: Fast: 3 GHz\nmodel name\t: Slow\n", "Fast: 3 GHz"), ("processor : 0\n", "arch")],
)
def test_the_processor_is_the_first_that_the_system_names(monkeypatch, told, expected):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: told)
    monkeypatch.setattr(platform, "machine", lambda: "arch")
    assert provenance.processor() == expected


def test_what_is_collected():
    found = provenance.collect()
    assert found["python"] == platform.python_version()
    assert (found["commit"], found["processor"]) == (provenance.commit(), provenance.processor())
    assert list(found) == ["version", "commit", "python", "torch", "platform", "processor", "cores", "threads"]
