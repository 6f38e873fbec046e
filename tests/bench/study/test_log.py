"""The log of a study, what its folder says of it, and how it ends."""

import json
import re
from datetime import datetime

import pytest

import bench
from bench.common.errors import InterruptedStudyError, UsageError
from bench.config.schema import Settings
from bench.store import provenance
from bench.study.folder import held
from bench.study.log import outcome
from bench.study.plan import resolve

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"


def test_the_log(compare, invented, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "now", lambda: "2026-01-02T03:04:05+00:00")
    for _ in range(2):
        assert compare(tmp_path / "out", "vae,untrained", "circle", 1).code == 0
    lines = (tmp_path / "out" / "log.txt").read_text().splitlines()
    assert all(line.startswith("2026-01-02T03:04:05+00:00 ") for line in lines)
    told = [line.partition(" ")[2] for line in lines]
    command = f"started: python -m bench compare -m vae,untrained -d circle .*--out {tmp_path}/out --quiet"
    assert re.fullmatch(rf"{command} \(2 runs .*\)", told[0])
    assert re.fullmatch(r"circle / vae / seed 0: test_ll -?\d\.\d{3} in 1 s, 10 FLOP", told[1])
    assert re.fullmatch(r"circle / untrained / seed 0: test_ll -?\d\.\d{3} in 1 s, 10 FLOP", told[2])
    assert told[3] == "finished"
    assert re.search(r"\(all 2 runs are done\b.*\)$", told[4])
    assert told[5:] == ["finished"]


def test_the_time_in_the_log_is_utc(compare, invented, tmp_path):
    assert compare(tmp_path / "out", "vae", "circle", 1).code == 0
    for line in (tmp_path / "out" / "log.txt").read_text().splitlines():
        assert re.match(TIME, line)
        assert abs(datetime.fromisoformat(line.split()[0]).timestamp() - datetime.now().timestamp()) < 60


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("one\ntwo")])
def test_the_log_of_a_study_that_ends_early(tmp_path, monkeypatch, error):
    def stop(*args):
        raise error
        yield

    monkeypatch.setattr("bench.execution.scheduler.run_all", stop)
    with pytest.raises((InterruptedStudyError, RuntimeError)):
        bench.compare(methods="vae", datasets="circle", seeds=1, n_train=40, n_test=50, out=tmp_path, report=False)
    last = (tmp_path / "log.txt").read_text().splitlines()[-1]
    assert re.fullmatch(rf"{TIME} stopped: (interrupted|one two)", last)


def test_what_is_refused_is_not_logged(compare, invented, tmp_path, unchanged):
    with unchanged(tmp_path):
        assert compare(tmp_path / "out", "vea", "circle", 1).code == 2
        assert compare(tmp_path / "out", "vae", "circle", 1, "--latent-dim", 2).code == 2


def test_what_befell_a_run_is_one_line(run_spec):
    from bench.store.records import RunResult

    failed = RunResult(run_spec(), status="failed", message="ValueError: one\n two")
    assert outcome(failed) == "circle / vae / seed 0: failed - ValueError: one two"
    done = RunResult(run_spec(), message="stopped by --max-flops", notes="undone: it seeded numpy")
    assert outcome(done).endswith("(stopped by --max-flops; undone: it seeded numpy)")


def test_settings_are_read_back(compare, invented, tmp_path):
    asked = ("vae[steps=5],untrained", "circle", 2, "--set", "vae.batch_size=3", "--baseline", "untrained")
    assert compare(tmp_path, *asked, "--hidden", "8,9").code == 0
    settings = Settings(
        methods=("vae[steps=5]", "untrained"), datasets=("circle",), seeds=2, n_train=40, n_test=50,
        max_flops=1e7, hidden=(8, 9), set={"vae": {"batch_size": 3}}, baseline=("untrained",),
    )  # fmt: skip
    assert held(tmp_path).settings == settings == resolve(settings).settings


def test_no_study_is_read_where_there_is_none(tmp_path):
    with pytest.raises(UsageError, match="holds no study"):
        held(tmp_path)


def test_the_command_is_kept(compare, invented, tmp_path):
    assert compare(tmp_path / "out", "vae", "circle", 1, "--fresh").code == 0
    command = json.loads((tmp_path / "out" / "study.json").read_text())["command"]
    assert command.startswith("python -m bench compare -m vae -d circle")
    assert "--fresh" not in command
