"""How far a study is: what is counted, how long is left, and that nothing is written."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from msgspec import structs

from bench.config.schema import Execution, SweepSettings
from bench.registry import fingerprints
from bench.store import run_files
from bench.store.locks import RunLocks
from bench.store.records import Cost, RunResult
from bench.study import status
from bench.study.execute import execute
from bench.study.folder import held
from bench.study.log import Silent
from bench.study.plan import resolve


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def folder(kept, tmp_path, compare, invented):
    """A study of two datasets, two methods and three seeds."""
    if not (kept / "out").exists():
        assert compare(kept / "out", "vae,untrained", "circle,torus", 3).code == 0
    return shutil.copytree(kept / "out", tmp_path / "out")


@pytest.fixture
def show(cli, unchanged, tmp_path):
    """What `status` shows of a folder, as words line by line, with nothing written."""

    def run(folder):
        with unchanged(tmp_path):
            end = cli("status", folder)
        assert (end.code, end.err) == (0, "")
        return [" ".join(line.split()) for line in end.out.splitlines()]

    return run


def specs(folder):
    return {spec.name: spec for spec in resolve(held(folder).settings).runs}


def lose(folder, *names):
    for name in names:
        run_files.run_path(folder, specs(folder)[name]).unlink()


def replace(folder, name, **fields):
    run_files.write_run(folder, RunResult(specs(folder)[name], **fields))


def test_all_done(folder, show):
    assert show(folder)[-5:] == [
        "circle vae 3 –",
        "circle untrained 3 –",
        "torus vae 3 –",
        "torus untrained 3 –",
        "12 runs: 12 done",
    ]


def test_a_packed_study_has_no_files_of_runs(folder, show):
    shutil.rmtree(folder / "runs")
    assert show(folder)[-1] == "12 runs: 12 done"


def test_every_state(folder, show):
    replace(folder, "circle / vae / seed 1", status="failed", message="NotFiniteError: [red]nan[/red]\nat step 3")
    replace(folder, "torus / vae / seed 0", status="timeout", message="")
    replace(folder, "torus / vae / seed 1", status="skipped", message="too wide")
    lose(folder, "circle / vae / seed 2", "torus / untrained / seed 0", "torus / untrained / seed 1")
    with RunLocks(folder) as locks:
        assert locks.take(specs(folder)["circle / vae / seed 2"].key)
        lines = show(folder)
        runs = status.read(folder).runs
    states = {run.spec.name: run.state for run in runs if run.state != "done"}
    assert states == {
        "circle / vae / seed 1": "failed",
        "torus / vae / seed 0": "timeout",
        "torus / vae / seed 1": "skipped",
        "circle / vae / seed 2": "running",
        "torus / untrained / seed 0": "missing",
        "torus / untrained / seed 1": "missing",
    }
    assert "circle / vae / seed 1: failed - NotFiniteError: [red]nan[/red] at step 3" in lines
    assert "torus / vae / seed 0: timeout - no reason given" in lines
    counts = "6 done, 1 failed, 1 skipped, 1 timeout, 1 running, 2 missing"
    assert lines[-1] == f"12 runs: {counts}; time left: about 9 s, estimated with 1 at a time"


def test_a_lock_of_a_dead_process_is_not_running(folder):
    lose(folder, "circle / vae / seed 0")
    (folder / "locks").mkdir()
    (folder / "locks" / f"{specs(folder)['circle / vae / seed 0'].key}.json").write_text(
        '{"host": "x", "process": 1, "since": "then"}'
    )
    assert [run.state for run in status.read(folder).runs].count("missing") == 1


def test_the_time_left_is_the_median_of_the_method_shared_by_those_that_run(folder, show):
    for seed, seconds in enumerate((1.0, 10.0, 100.0)):
        replace(folder, f"circle / vae / seed {seed}", cost=Cost(wall_s=seconds), evaluation_s=2.0)
        replace(folder, f"circle / untrained / seed {seed}", cost=Cost(wall_s=0.0), evaluation_s=30.0)
    lose(folder, *(f"torus / {method} / seed {seed}" for method in ("vae", "untrained") for seed in range(3)))
    assert show(folder)[-1].endswith("time left: about 2.1 min, estimated with 1 at a time")  # 3 * 12 + 3 * 30 s
    with RunLocks(folder) as locks:
        for seed in range(3):
            assert locks.take(specs(folder)[f"torus / vae / seed {seed}"].key)
        lines = show(folder)
    assert "torus vae 3 about 36 s" in lines
    assert "torus untrained 3 about 90 s" in lines
    assert lines[-1].endswith("3 running, 3 missing; time left: about 2.1 min, estimated with 1 at a time")


def test_the_seeds_of_a_block_run_as_one_program(folder, show):
    """Each has its share of the seconds, so that two programs halve the time whatever their seeds."""
    spec = next(iter(specs(folder).values()))
    runs = [
        status.Run(structs.replace(spec, seed=seed, block=10), "running" if seed < 20 else "missing", None)
        for seed in range(30)
    ]
    assert status.TimeLeft(runs).at_a_time == 2


def test_no_time_is_told_where_none_is_known(folder, show):
    lose(folder, *(f"{dataset} / vae / seed {seed}" for dataset in ("circle", "torus") for seed in range(3)))
    lines = show(folder)
    assert "circle vae 3 unknown" in lines
    assert "time left: unknown" in lines[-1]


def test_a_run_that_failed_tells_nothing_of_the_time(folder):
    for seed in range(3):
        replace(folder, f"circle / vae / seed {seed}", status="failed", cost=Cost(wall_s=1000.0))
    lose(folder, "torus / vae / seed 0")
    runs = status.read(folder).runs
    assert status.TimeLeft(runs).seconds(runs) == 3.0


def test_results_of_other_code_do_not_count(folder, show, monkeypatch):
    other = fingerprints.Fingerprint("other", ())
    monkeypatch.setattr(fingerprints.Fingerprints, "of", lambda *_: other)
    lines = show(folder)
    assert lines[-2].startswith("12 runs: 12 missing; time left: unknown")
    assert lines[-1].startswith("12 results of other code")


def test_a_run_cut_short_is_missing(folder, show):
    path = run_files.run_path(folder, specs(folder)["circle / vae / seed 0"])
    path.write_bytes(path.read_bytes()[:50])
    assert show(folder)[-1].startswith("12 runs: 11 done, 1 missing")


def test_labels_are_shown_as_they_are(tmp_path, compare, invented, show):
    assert compare(tmp_path / "[red]out", "vae[steps=5]", "circle[n_train=30]", 1).code == 0
    lines = show(tmp_path / "[red]out")
    assert lines[0] == str(tmp_path / "[red]out")
    assert "circle[n_train=30] vae[steps=5] 1 –" in lines


def test_a_tuned_study_and_one_of_another_command(tmp_path, compare, cli, invented, show):
    (tmp_path / "tuned.json").write_text(json.dumps({"datasets": {"circle": {"vae": {"steps": 7}}}}))
    assert compare(tmp_path / "out", "vae", "circle", 1, "--tuned", tmp_path / "tuned.json").code == 0
    assert show(tmp_path / "out")[-1] == "1 run: 1 done"
    small = {"n_train": 20, "n_test": 20}
    settings = SweepSettings(methods=("vae",), datasets=("circle", "torus"), seeds=1, **small)
    execute(resolve(settings, (("torus", "vae"),)), tmp_path / "sweep", Execution(), Silent(), "sweep")
    assert show(tmp_path / "sweep")[2:] == ["torus vae 1 –", "1 run: 1 done"]


@pytest.fixture
def opened(monkeypatch):
    """The names of the runs whose files are read."""
    names, read = [], run_files.read_run

    def reading(folder, spec, key=None):
        names.append(spec.name)
        return read(folder, spec, key)

    monkeypatch.setattr(run_files, "read_run", reading)
    return names


def test_runs_that_the_table_has_are_not_read_again(folder, show, opened):
    lines = show(folder)
    assert lines[-1] == "12 runs: 12 done"
    assert opened == []
    (folder / "runs.parquet").unlink()
    assert show(folder) == lines
    assert len(opened) == 12


def test_files_that_changed_since_the_table_was_made_are_read(folder, show, opened):
    replace(folder, "circle / vae / seed 1", status="failed", message="too slow")
    replace(folder, "torus / vae / seed 1", cost=Cost(wall_s=5.0))
    lines = show(folder)
    assert lines[-1] == "12 runs: 11 done, 1 failed"
    assert opened == ["circle / vae / seed 1", "torus / vae / seed 1"]


def test_code_is_followed_once_for_each_pair_and_each_module(folder, monkeypatch):
    of, parsed, asked, sources = fingerprints.Fingerprints.of, fingerprints.ast.parse, [], []

    def counted(self, method, dataset):
        asked.append((method.name, dataset.name))
        return of(self, method, dataset)

    monkeypatch.setattr(fingerprints.Fingerprints, "of", counted)
    monkeypatch.setattr(fingerprints.ast, "parse", lambda source: sources.append(source) or parsed(source))
    fingerprints._parsed.cache_clear()
    status.read(folder)
    assert sorted(asked) == [(m, d) for m in ("untrained", "vae") for d in ("circle", "torus")]
    assert 0 < len(sources) == len(set(sources))


def test_the_usual_time_of_a_method_is_found_once(folder, monkeypatch):
    lose(folder, *(f"circle / {method} / seed {seed}" for method in ("vae", "untrained") for seed in range(3)))
    runs, found = status.read(folder).runs, []
    monkeypatch.setattr(status, "median", lambda seconds: found.append(seconds) or 2.0)
    left = status.TimeLeft(runs)
    assert left.seconds(runs) == left.seconds(iter(runs)) == 12.0
    assert len(found) == 2


def edit(act):
    def edited(folder):
        info = json.loads((folder / "study.json").read_text())
        act(info)
        (folder / "study.json").write_text(json.dumps(info))

    return edited


def content(text):
    return lambda folder: (folder / "study.json").write_text(text)


REFUSED = [
    (lambda folder: (folder / "study.json").unlink(), "holds no study: there is no study.json in it"),
    (content(""), "study.json cannot be read"),
    (content("[]"), "study.json is damaged"),
    (edit(lambda info: info.update(schema=99)), "has schema 99, but this version reads schema"),
    (edit(lambda info: info.pop("settings")), "study.json is damaged"),
    (edit(lambda info: info.pop("tuned")), "study.json is damaged"),
    (edit(lambda info: info.pop("kind")), "study.json is damaged"),
    (edit(lambda info: info.update(kind="dance")), "study.json is damaged"),
    (edit(lambda info: info.update(kind="report")), "is a report over several studies, not a study"),
    (edit(lambda info: info.update(tuned={"file": "no.json"})), "tuned/no.json cannot be read"),
    (edit(lambda info: info.update(tuned={"file": "../../no.json"})), "tuned/no.json cannot be read"),
    (edit(lambda info: info["settings"].update(datasets=[["circle"]])), "study.json is damaged"),
    (edit(lambda info: info["settings"].update(seeds="3")), "study.json is damaged"),
    (edit(lambda info: info["settings"].update(set=[3])), "study.json is damaged"),
    (edit(lambda info: info["settings"].update(methods=["vea"])), "unknown method 'vea' - did you mean 'vae'?"),
    (edit(lambda info: info["settings"].update(plugins=["/no/mine.py"])), "plugin /no/mine.py is not a file"),
]


@pytest.mark.parametrize(("act", "message"), REFUSED)
def test_what_is_no_study_is_refused(folder, cli, unchanged, act, message):
    act(folder)
    with unchanged(folder):
        end = cli("status", folder)
    assert (end.code, end.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", end.err)
    assert message in end.err


@pytest.mark.parametrize("args", [(), ("nowhere",), ("file",), (".",), ("a", "b"), ("--json", ".")])
def test_folders_that_do_not_fit(cli, tmp_path, monkeypatch, unchanged, args):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    with unchanged(tmp_path):
        end = cli("status", *args)
    assert (end.code, end.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", end.err)


def test_a_study_is_looked_at_without_torch(folder):
    """What its data and roles are stands in study.json."""
    code = (
        f"import sys; from pathlib import Path; from bench.study import status; s = status.read(Path({str(folder)!r}))"
    )
    code += "; print(len(s.runs), sum(run.state == 'done' for run in s.runs), 'torch' in sys.modules)"
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert end.stdout == "12 12 False\n"
