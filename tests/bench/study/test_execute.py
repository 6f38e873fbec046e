"""A study in its folder: what is run, kept, resumed, refused, and the same however it came about."""

import dataclasses
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from bench.execution.scheduler import Execution
from bench.store import tables
from bench.store.records import RunResult
from bench.study import execute

ROOT = Path(__file__).parents[2]
SMALL = ("--size", "40", "--test-size", "50", "--max-flops", "1e7")


def command(*args, jobs=1):
    return [sys.executable, "-m", "bench", "compare", *SMALL, "--jobs", str(jobs), *map(str, args)]


def in_subprocess(*args, jobs=1):
    run = subprocess.run(command(*args, jobs=jobs), capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    return run.returncode, run.stdout, run.stderr


def run_files(folder):
    return {path.name: path.read_bytes() for path in (folder / "runs").iterdir()}


def same_values(first, second):
    for one, other in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study run by two workers, never to be changed."""
    folder = tmp_path_factory.mktemp("studies") / "whole"
    code, out, err = in_subprocess("-m", "vae,mapa", "-d", "circle", "--seeds", 2, "--out", folder, jobs=2)
    assert (code, "Traceback" in err) == (0, False), err
    return folder, out, err


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of that study, to be changed."""
    folder = tmp_path / "copy"
    for path in whole[0].rglob("*"):
        target = folder / path.relative_to(whole[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.write_bytes(path.read_bytes())
    return folder


def test_what_a_study_leaves(whole):
    folder, out, err = whole
    names = {path.name for path in folder.iterdir()}
    kept = ("runs", "measurements", "diagnostics", "work")
    tables = {f"{name}.{kind}" for name in kept for kind in ("csv", "parquet")}
    tables |= {"densities.parquet", "posteriors.parquet", "signals.parquet", "references.parquet"}
    assert names == tables | {"study.json", "study.toml", "log.txt", "runs", "figures", "report.html", "report.md"}
    assert len(run_files(folder)) == 4
    assert str(folder / "report.html") in out
    assert "[4/4]" in err


def test_what_is_known_of_a_study(whole):
    info = json.loads((whole[0] / "study.json").read_text())
    assert info["schema"] == tables.SCHEMA
    assert info["settings"]["methods"] == ["vae", "mapa"]
    assert info["settings"]["jobs"] == 2
    assert set(info["methods"]) == {"vae", "mapa"}
    assert info["datasets"]["circle"]["latent_dim"] == 1
    assert info["provenance"]["started"] <= info["provenance"]["finished"]


def test_workers_and_this_process_find_the_same(whole, tmp_path, compare, in_process, values):
    assert compare(tmp_path / "here", "vae,mapa", "circle", 2).code == 0
    assert len(in_process) == 4
    same_values(values(tmp_path / "here"), values(whole[0]))


def test_one_worker_and_two_find_the_same_and_quiet_is_quiet(whole, tmp_path, compare, values):
    end = compare(tmp_path / "one", "vae,mapa", "circle", 2)
    assert (end.code, end.out, end.err) == (0, "", "")
    same_values(values(tmp_path / "one"), values(whole[0]))
    assert tables.read_table(whole[0], "runs")["concurrent"].all()
    assert not tables.read_table(tmp_path / "one", "runs")["concurrent"].any()


def test_the_same_again_runs_nothing(copy, compare, in_process, tree):
    before = tree(copy)
    assert compare(copy, "vae,mapa", "circle", 2).code == 0
    assert in_process == []
    after = tree(copy)
    volatile = {"study.json", "study.toml", "log.txt"}
    assert {k: v for k, v in after.items() if k not in volatile} == {
        k: v for k, v in before.items() if k not in volatile
    }
    first, second = json.loads(before["study.json"]), json.loads(after["study.json"])
    assert second["provenance"]["started"] == first["provenance"]["started"]
    assert second["provenance"]["finished"] == first["provenance"]["finished"]


def test_what_is_missing_is_run_and_nothing_else(copy, whole, compare, in_process, values):
    kept = run_files(copy)
    lost = sorted(kept)[:2]
    for name in lost:
        (copy / "runs" / name).unlink()
    assert compare(copy, "vae,mapa", "circle", 2).code == 0
    assert len(in_process) == 2
    after = run_files(copy)
    assert set(after) == set(kept)
    assert all(after[name] == kept[name] for name in set(kept) - set(lost))
    same_values(values(copy), values(whole[0]))


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 1, "rows": []}'])
def test_a_run_cut_short_is_run_again(copy, whole, compare, in_process, values, content):
    path = sorted((copy / "runs").iterdir())[0]
    path.write_bytes(content)
    assert compare(copy, "vae,mapa", "circle", 2).code == 0
    assert len(in_process) == 1
    same_values(values(copy), values(whole[0]))


@pytest.mark.parametrize("name", ["runs.parquet", "measurements.parquet", "runs.csv"])
def test_any_table_that_was_lost_is_written_anew(copy, compare, in_process, tree, name):
    before = tree(copy)
    (copy / name).unlink()
    assert compare(copy, "vae,mapa", "circle", 2).code == 0
    assert name in tree(copy)
    assert in_process == []
    assert tree(copy)[name] == before[name]


def test_another_method_is_added(copy, compare, in_process, values):
    kept = run_files(copy)
    assert compare(copy, "untrained", "circle", 2).code == 0
    assert in_process == ["circle / untrained / seed 0", "circle / untrained / seed 1"]
    assert kept.items() <= run_files(copy).items()
    assert set(values(copy)[0]["method"]) == {"vae", "mapa", "untrained"}
    assert json.loads((copy / "study.json").read_text())["settings"]["methods"] == ["vae", "mapa", "untrained"]


def test_another_seed_is_added_for_all_methods(copy, compare, in_process, values):
    kept = run_files(copy)
    assert compare(copy, "vae", "circle", 3).code == 0
    assert in_process == ["circle / vae / seed 2", "circle / mapa / seed 2"]
    assert kept.items() <= run_files(copy).items()
    assert len(values(copy)[0]) == 6


def test_another_dataset_is_added(copy, compare, in_process, values):
    assert compare(copy, "vae", "figure8", 1).code == 0
    assert len(in_process) == 4
    assert set(values(copy)[0]["dataset"]) == {"circle", "figure8"}


def test_fewer_methods_and_seeds_drop_nothing(copy, compare, in_process, values):
    before = values(copy)
    assert compare(copy, "vae", "circle", 1).code == 0
    assert in_process == []
    same_values(values(copy), before)


def test_a_study_that_grew_is_one_that_was_whole(whole, tmp_path, compare, in_process, values):
    folder = tmp_path / "grown"
    assert compare(folder, "mapa", "circle", 1).code == 0
    assert compare(folder, "vae", "circle", 2).code == 0
    assert len(in_process) == 4
    same_values(values(folder), values(whole[0]))


CHANGED = (
    ("--size", "41"),
    ("--test-size", "51"),
    ("--max-flops", "2e7"),
    ("--max-seconds", "3"),
    ("--noise", "learned"),
    ("--latent-dim", "1"),
)


@pytest.mark.parametrize(("option", "value"), CHANGED)
def test_other_conditions_are_refused(copy, compare, in_process, unchanged, option, value):
    with unchanged(copy):
        end = compare(copy, "vae,mapa", "circle", 2, option, value)
    assert end.code == 2
    assert end.err.startswith("error: ")
    assert f"holds a study with {option} " in end.err
    assert "--fresh" in end.err
    assert end.err.count("\n") == 1


def test_fresh_sets_aside_and_loses_nothing(copy, compare, in_process, tree):
    before = tree(copy)
    assert compare(copy, "vae", "circle", 1, "--size", "30", "--fresh").code == 0
    aside = copy.with_name("copy.old-1")
    assert tree(aside) == before
    assert len(run_files(copy)) == 1
    first = tree(copy)
    assert compare(copy, "vae", "circle", 1, "--fresh").code == 0
    assert tree(aside) == before
    assert tree(copy.with_name("copy.old-2")) == first


def test_fresh_where_there_is_nothing(tmp_path, compare, in_process):
    assert compare(tmp_path / "new", "vae", "circle", 1, "--fresh").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_fresh_tells_where_the_old_results_are(copy, cli, in_process, monkeypatch):
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder)
    end = cli("compare", *SMALL, "-m", "vae", "-d", "circle", "--seeds", 1, "--out", copy, "--fresh")
    assert end.code == 0
    assert "copy.old-1" in end.err


@pytest.mark.parametrize("options", [(), ("--fresh",)])
def test_a_folder_of_something_else_is_left_alone(tmp_path, compare, in_process, unchanged, options):
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    with unchanged(tmp_path):
        end = compare(folder, "vae", "circle", 1, *options)
    assert end.code == 2
    assert "cat.jpg" in end.err
    assert end.err.count("\n") == 1


def test_a_folder_with_a_readme_is_taken(tmp_path, compare, in_process):
    (tmp_path / "README.md").write_text("results go here")
    assert compare(tmp_path, "untrained", "circle", 1).code == 0
    assert (tmp_path / "README.md").read_text() == "results go here"


@pytest.mark.parametrize("options", [(), ("--fresh",)])
@pytest.mark.parametrize("below", ["", "under"])
def test_a_file_is_no_folder(tmp_path, compare, in_process, unchanged, options, below):
    (tmp_path / "file").write_text("text")
    with unchanged(tmp_path):
        end = compare(tmp_path / "file" / below, "vae", "circle", 1, *options)
    assert end.code == 2
    assert end.err.startswith("error: ")
    assert str(tmp_path / "file") in end.err
    assert end.err.count("\n") == 1


def test_a_folder_that_cannot_be_written_to(tmp_path, compare, in_process, monkeypatch, unchanged):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    folder = tmp_path / "locked"
    folder.mkdir()
    monkeypatch.setattr(tables.tempfile, "mkstemp", refuse)
    with unchanged(tmp_path):
        end = compare(folder, "vae", "circle", 1)
    assert end.code == 2
    assert end.err == f"error: {folder} cannot be written to: Permission denied\n"


@pytest.mark.parametrize("schema", [0, 1, 3, "2", None])
def test_another_schema_is_refused_by_name(copy, compare, in_process, unchanged, schema):
    info = json.loads((copy / "study.json").read_text())
    (copy / "study.json").write_text(json.dumps({**info, "schema": schema}))
    with unchanged(copy):
        end = compare(copy, "vae,mapa", "circle", 2)
    assert end.code == 2
    assert "schema" in end.err
    assert str(copy) in end.err


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"schema": 1}', '{"schema": 1, "settings": []}'])
def test_a_study_file_that_is_none_is_refused(copy, compare, in_process, unchanged, content):
    (copy / "study.json").write_text(content)
    with unchanged(copy):
        end = compare(copy, "vae,mapa", "circle", 2)
    assert end.code == 2
    assert end.err.startswith("error: ")
    assert end.err.count("\n") == 1


def test_new_code_runs_the_runs_anew(copy, compare, in_process, monkeypatch):
    kept = run_files(copy)
    monkeypatch.setattr(execute, "code_version", lambda _: "other")
    assert compare(copy, "vae,mapa", "circle", 2).code == 0
    assert len(in_process) == 4
    assert kept.items() <= run_files(copy).items()
    assert len(tables.read_table(copy, "runs")) == 4


def finished(folder):
    return len(list((folder / "runs").glob("*.json"))) if (folder / "runs").exists() else 0


def test_an_interrupted_study_is_resumed(tmp_path, cli, compare, in_process, values, monkeypatch):
    args = ("-m", "vae", "-d", "circle", "--seeds", 4, "--max-flops", "1e9")
    folder = tmp_path / "stopped"
    with subprocess.Popen(
        command(*args, "--out", folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        while not finished(folder) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    done = finished(folder)
    assert 1 <= done < 4
    assert done <= len(tables.read_table(folder, "runs")) <= done + 1
    assert (folder / "measurements.csv").exists()
    assert not list(folder.rglob("*.tmp"))
    resume = shlex.split(err.strip().splitlines()[-1])
    assert resume[:4] == ["python", "-m", "bench", "compare"]
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder)
    again = cli(*resume[3:])
    assert again.code == 0
    assert f"{4 - done} runs to run ({done} are there already)" in again.err
    assert len(in_process) == 4 - done
    assert compare(tmp_path / "straight", "vae", "circle", 4, "--max-flops", "1e9").code == 0
    same_values(values(folder), values(tmp_path / "straight"))


def plugin(path, name, act):
    """A plugin file whose method does no more than `act` before it would first yield."""
    path.write_text(f"""
import os
import time
from dataclasses import dataclass

@dataclass(frozen=True)
class Acts:
    def fit(self, task):
        {act}
        yield

METHODS = {{"{name}": Acts}}
""")
    return path


def test_a_worker_that_dies_costs_its_run(tmp_path, compare):
    dies = plugin(tmp_path / "dies.py", "dies", "os._exit(1)")
    end = compare(tmp_path / "out", "dies,untrained", "circle", 1, "--plugin", dies)
    assert (end.code, end.err) == (1, "")
    runs = tables.read_table(tmp_path / "out", "runs").set_index("method")
    assert runs["status"].to_dict() == {"dies": "failed", "untrained": "done"}
    assert runs["message"]["dies"] == "the process died (exit code 1), in each of 2 attempts"


def test_limits_on_runs(tmp_path, compare):
    """Of time, of memory, and within them; what they ended is told to be run again."""
    hangs = plugin(tmp_path / "hangs.py", "hangs", "time.sleep(600)")
    grows = plugin(tmp_path / "grows.py", "grows", "kept = [bytearray(os.urandom(1000) * 1000) for _ in range(10**9)]")
    plugins = ("--plugin", hangs, "--plugin", grows)
    limits = ("--run-timeout", 30, "--run-memory", "1.5GB")
    end = compare(tmp_path / "out", "untrained,hangs,grows", "circle", 1, *plugins, *limits)
    assert end.code == 1
    runs = tables.read_table(tmp_path / "out", "runs").set_index("method")
    assert runs["status"].to_dict() == {"untrained": "done", "hangs": "timeout", "grows": "failed"}
    assert "by --run-timeout 30" in runs["message"]["hangs"]
    assert "used more than 1.5 GB" in runs["message"]["grows"]
    settings = json.loads((tmp_path / "out" / "study.json").read_text())["settings"]
    assert (settings["run_timeout"], settings["run_memory"]) == (30.0, 1_500_000_000)


def test_workers_do_not_outlive_a_study_that_is_killed(tmp_path):
    lingers = plugin(tmp_path / "lingers.py", "lingers", "time.sleep(600)")
    args = ("-m", "untrained,lingers", "-d", "circle", "--seeds", 1, "--plugin", lingers)
    with subprocess.Popen(command(*args, "--out", tmp_path / "out"), stderr=subprocess.PIPE, cwd=ROOT) as process:
        while not finished(tmp_path / "out") and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        # Every worker holds this pipe open: that it ends means that they have.
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


class Impatient(execute.Silent):
    """Interrupts a study while it is told of a run, rather than while it waits for one."""

    def finish(self, result):
        raise KeyboardInterrupt


def stopped_between_runs(specs, *_):
    yield RunResult(specs[0], message="finished")
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("runs", "progress"),
    [(stopped_between_runs, execute.Silent()), (lambda specs, *_: map(RunResult, specs), Impatient())],
)
def test_an_interrupted_study_keeps_its_tables_wherever_it_was(tmp_path, monkeypatch, runs, progress):
    monkeypatch.setattr(execute, "_run_all", runs)
    settings = execute.Settings(("vae",), ("circle",), size=40, validation_size=40, test_size=50)
    with pytest.raises(execute.InterruptedStudyError, match="interrupted"):
        execute.run(settings, tmp_path / "out", Execution(), progress, "a command")
    assert len(tables.read_table(tmp_path / "out", "runs")) == 1
    assert finished(tmp_path / "out") == 1


def test_the_runs_of_a_study():
    from bench.registry.registry import registry

    settings = execute.Settings(("vae", "mapa"), ("circle", "torus"), seeds=2)
    specs = list(execute.runs(settings, registry()))
    assert [(s.dataset, s.seed, s.method) for s in specs] == [
        (d, k, m) for d in ("circle", "torus") for k in (0, 1) for m in ("vae", "mapa")
    ]
    assert len({spec.key for spec in specs}) == 8
    assert {spec.key for spec in execute.runs(dataclasses.replace(settings, seeds=3), registry())} > {
        s.key for s in specs
    }


def test_names_asked_for_twice_are_run_once(tmp_path, compare, in_process):
    assert compare(tmp_path / "out", "untrained,untrained", "circle,circle", 1).code == 0
    assert in_process == ["circle / untrained / seed 0"]


def test_the_groups_of_datasets(tmp_path, compare, in_process, monkeypatch):
    monkeypatch.setattr(execute, "_run_all", lambda specs, *_: map(RunResult, specs))
    assert compare(tmp_path / "out", "all", "curves, circle", 1).code == 0
    runs = tables.read_table(tmp_path / "out", "runs")
    assert sorted(set(runs["dataset"])) == ["absolute", "circle", "clusters", "figure8", "spiral_dots"]
    assert {"mapa", "vae", "iterative", "oracle", "untrained"} <= set(runs["method"])


def test_labels_stand_for_methods_and_datasets_of_their_own(tmp_path, compare, in_process):
    out = tmp_path / "out"
    methods, datasets = "vae,vae[batch_size=5, steps=2]", "circle,circle[size=30,noise=4e-2]"
    assert compare(out, methods, datasets, 1, "--set", "vae.steps=3").code == 0
    assert in_process[1::2] == [
        "circle / vae[steps=2,batch_size=5] / seed 0",
        "circle[noise=0.04,size=30] / vae[steps=2,batch_size=5] / seed 0",
    ]
    runs = tables.read_table(out, "runs").set_index(["dataset", "method"])
    assert runs["p_steps"].tolist() == [3, 2, 3, 2]
    assert runs["p_batch_size"].tolist() == [100, 5, 100, 5]
    passes = runs.xs("vae", level="method")["decoder_passes"]
    assert passes.to_dict() == {"circle": 3 * 40, "circle[noise=0.04,size=30]": 3 * 30}
    info = json.loads((out / "study.json").read_text())
    assert info["settings"]["parameters"] == {"vae": {"steps": 3}}
    assert info["datasets"]["circle[noise=0.04,size=30]"]["expected_log_prob"] is None
    assert compare(out, methods, datasets, 1, "--set", "vae.steps=3").code == 0
    assert len(in_process) == 4


def test_a_method_by_label_is_the_method_with_that_set(tmp_path, compare, in_process, values):
    assert compare(tmp_path / "label", "vae[steps=3]", "circle", 1).code == 0
    assert compare(tmp_path / "set", "vae", "circle", 1, "--set", "vae.steps=3").code == 0
    first, second = values(tmp_path / "label"), values(tmp_path / "set")
    own = ["method", "key"]
    for one, other in zip(first, second, strict=True):
        left, right = (table.drop(columns=own, errors="ignore") for table in (one, other))
        pd.testing.assert_frame_equal(left, right, check_exact=True)
    assert set(first[1]["method"]) == {"vae[steps=3]"}


def test_other_values_of_set_do_not_mix(tmp_path, compare, in_process, unchanged):
    out = tmp_path / "out"
    assert compare(out, "vae", "circle", 1, "--set", "vae.steps=3").code == 0
    with unchanged(out):
        told = compare(out, "vae", "circle", 1, "--set", "vae.steps=4")
        assert (told.code, told.err.count("\n")) == (2, 1)
        assert "holds a study with --set vae.steps=3, got --set vae.steps=4" in told.err
        assert "got no --set vae;" in compare(out, "vae[batch_size=5]", "circle", 1).err
    assert compare(out, "untrained", "circle", 1).code == 0
    assert json.loads((out / "study.json").read_text())["settings"]["parameters"] == {"vae": {"steps": 3}}
    assert compare(out, "vae", "circle", 1, "--set", "vae.steps=3").code == 0
    assert len(in_process) == 2


def test_only_the_pairs_asked_for_are_run():
    from bench.registry.registry import registry

    pairs = (("circle", "vae"), ("torus", "mapa"))
    settings = execute.Settings(("vae", "mapa"), ("circle", "torus"), seeds=2, first_seed=5, pairs=pairs)
    specs = list(execute.runs(settings, registry()))
    assert [(s.dataset, s.method, s.seed) for s in specs] == [(d, m, k) for d, m in pairs for k in (5, 6)]


def test_a_label_says_sizes():
    from bench.registry.registry import registry

    settings = execute.Settings(("vae",), ("manifold[data_dim=7,latent_dim=3]", "circle[size=30]"), seeds=1)
    first, second = execute.runs(settings, registry())
    assert (first.latent_dim, first.size, first.validation_size) == (3, 500, 500)
    assert (second.latent_dim, second.size, second.validation_size, second.test_size) == (None, 30, 30, 2000)


def test_progress_in_lines(whole):
    lines = whole[2].splitlines()
    assert lines[0] == "4 runs to run, 2 at a time: seconds are contended"
    assert all(re.match(rf"\[{n}/4\] circle / (vae|mapa) / seed [01]: test_ll -", lines[n]) for n in (1, 2, 3, 4))
