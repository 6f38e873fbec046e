"""A study in its folder: what is run, kept, resumed, refused, and the same however it came about."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from bench.common.errors import InterruptedStudyError
from bench.config.fields import choices, fields
from bench.config.schema import Conditions, Execution, Settings
from bench.registry import fingerprints
from bench.store import files, run_files, tables
from bench.store.locks import RunLocks
from bench.store.records import Cost, RunResult
from bench.store.schema import SCHEMA
from bench.study.execute import execute, longest_first
from bench.study.folder import united
from bench.study.log import Silent
from bench.study.plan import resolve
from datasets import HELD_OUT

ROOT = Path(__file__).parents[3]
SMALL = ("--n-train", "40", "--n-test", "50", "--max-flops", "1e7")
VOLATILE = {"study.json", "study.toml", "log.txt"}


def contents_of_runs(folder):
    return {path.name: path.read_bytes() for path in (folder / "runs").iterdir()}


def same_values(first, second):
    for one, other in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def runs_of(**settings):
    return resolve(Settings(**settings)).runs


@pytest.mark.usefixtures("full_evaluation")
def test_a_study_by_two_workers_from_the_command_line(tmp_path, compare, in_process, values):
    """What it leaves and says; this process finds the same values."""
    folder = tmp_path / "whole"
    asked = ("-m", "vae,untrained", "-d", "circle", "--seeds", "1", *SMALL)
    command = [sys.executable, "-m", "bench", "compare", *asked, "--jobs", "2", "--out", str(folder)]
    end = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert (end.returncode, "Traceback" in end.stderr) == (0, False), end.stderr
    both = ("runs", "measurements", "diagnostics", "work")
    parquet = ("densities", "posteriors", "signals", "images", "references")
    names = {f"{name}.{kind}" for name in both for kind in ("csv", "parquet")} | {f"{name}.parquet" for name in parquet}
    names |= {"study.json", "study.toml", "log.txt", "runs", "figures", "report.html", "report.md"}
    assert {path.name for path in folder.iterdir()} == names
    assert len(contents_of_runs(folder)) == 2
    assert str(folder / "report.html") in end.stdout
    lines = end.stderr.splitlines()
    assert all(text in lines[0] for text in ("2 runs", "2 at a time"))
    done = [line for line in lines if re.match(r"\[\d/2\] circle / (vae|untrained) / seed 0: test_ll -", line)]
    assert [line[1] for line in done] == ["1", "2"]
    timed = [line.partition(":")[0] for line in lines if line.endswith(", fitted alone")]
    assert timed == ["circle / vae / seed 0", "circle / untrained / seed 0"]
    info = json.loads((folder / "study.json").read_text())
    assert (info["schema"], info["settings"]["methods"]) == (SCHEMA, ["vae", "untrained"])
    assert {name: about["role"] for name, about in info["methods"].items()} == {"vae": "method", "untrained": "floor"}
    assert info["datasets"]["circle"]["latent_dim"] == 1
    assert info["provenance"]["started"] <= info["provenance"]["finished"]
    end = compare(tmp_path / "here", "vae,untrained")
    assert (end.code, end.out, end.err, len(in_process)) == (0, "", "", 2)
    same_values(values(tmp_path / "here"), values(folder))
    contended = [tables.read_table(each, "runs")["concurrent"].tolist() for each in (tmp_path / "here", folder)]
    assert contended == [[False] * 2, [False] * 2]


def test_the_same_again_runs_nothing(study, compare, invented, tree):
    before = tree(study)
    assert compare(study, "vae,mapa", "circle", 2).code == 0
    assert invented == []
    after = tree(study)
    assert {k: v for k, v in after.items() if k not in VOLATILE} == {
        k: v for k, v in before.items() if k not in VOLATILE
    }
    first, second = (json.loads(each["study.json"])["provenance"] for each in (before, after))
    assert (second["started"], second["finished"]) == (first["started"], first["finished"])


def test_what_is_missing_is_run_and_nothing_else(study, compare, invented, values):
    before, kept = values(study), contents_of_runs(study)
    lost = sorted(kept)[:2]
    for name in lost:
        (study / "runs" / name).unlink()
    assert compare(study, "vae,mapa", "circle", 2).code == 0
    assert len(invented) == 2
    after = contents_of_runs(study)
    assert set(after) == set(kept)
    assert all(after[name] == kept[name] for name in set(kept) - set(lost))
    same_values(values(study), before)


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 100, b'{"schema": 1, "rows": []}', b'{"schema": 2, "rows": ['])
def test_a_run_cut_short_is_run_again(study, compare, invented, values, content):
    before, path = values(study), sorted((study / "runs").iterdir())[0]
    path.write_bytes(content)
    assert compare(study, "vae,mapa", "circle", 2).code == 0
    assert len(invented) == 1
    same_values(values(study), before)


@pytest.mark.parametrize("name", ["runs.parquet", "measurements.parquet", "runs.csv"])
def test_any_table_that_was_lost_is_written_anew(study, compare, invented, tree, name):
    before = tree(study)
    (study / name).unlink()
    assert compare(study, "vae,mapa", "circle", 2).code == 0
    assert invented == []
    assert tree(study)[name] == before[name]


@pytest.mark.parametrize(
    ("asked", "ran", "total"),
    [
        (("untrained", "circle", 2), ["circle / untrained / seed 0", "circle / untrained / seed 1"], 6),
        (("vae", "circle", 3), ["circle / vae / seed 2", "circle / mapa / seed 2"], 6),
        (("vae", "figure8", 1), [f"figure8 / {m} / seed {k}" for k in (0, 1) for m in ("vae", "mapa")], 8),
        (("vae", "circle", 1), [], 4),
        (("vae,vae", "circle,circle", 1), [], 4),
    ],
    ids=["method", "seed", "dataset", "fewer", "twice"],
)
def test_a_study_is_added_to_and_nothing_is_dropped(study, compare, invented, asked, ran, total):
    kept = contents_of_runs(study)
    assert compare(study, *asked).code == 0
    assert invented == ran
    assert kept.items() <= contents_of_runs(study).items()
    assert len(tables.read_table(study, "runs")) == total
    methods = list(dict.fromkeys(["vae", "mapa", *asked[0].split(",")]))
    assert json.loads((study / "study.json").read_text())["settings"]["methods"] == methods


def test_a_study_that_grew_is_one_that_was_whole(study, tmp_path, compare, invented, values):
    assert compare(tmp_path / "grown", "mapa", "circle", 1).code == 0
    assert compare(tmp_path / "grown", "vae", "circle", 2).code == 0
    assert len(invented) == 4
    same_values(values(tmp_path / "grown"), values(study))


def another(field):
    """A value of a condition that is not the study's."""
    of_lists = {"hidden": "32,32", "latent_dim": "1"}
    options = [each for each in choices(field) if each != field.default]
    return of_lists.get(field.name) or (options[0] if options else "3")


@pytest.mark.parametrize("field", [each for each in fields(Conditions) if each.name != "device"], ids=lambda f: f.name)
def test_other_conditions_are_refused(study, compare, invented, unchanged, field):
    with unchanged(study):
        end = compare(study, "vae,mapa", "circle", 2, field.flag, another(field))
    assert (end.code, end.err.count("\n"), invented) == (2, 1, [])
    assert f"holds a study with {field.flag} " in end.err
    assert "--fresh" in end.err


def test_fresh_sets_aside_and_loses_nothing(study, compare, tree):
    before = tree(study)
    assert compare(study, "vae", "circle", 1, "--n-train", "30", "--fresh").code == 0
    aside = study.with_name("copy.old-1")
    assert tree(aside) == before
    assert len(contents_of_runs(study)) == 1
    first = tree(study)
    assert compare(study, "vae", "circle", 1, "--fresh").code == 0
    assert tree(aside) == before
    assert tree(study.with_name("copy.old-2")) == first


def test_fresh_leaves_a_folder_in_which_another_process_makes_a_run(study, compare, unchanged):
    with RunLocks(study) as held:
        assert held.take("0" * 16)
        with unchanged(study):
            end = compare(study, "vae", "circle", 1, "--fresh")
    assert end.code == 2
    assert f"another process is making 1 run in {study}" in end.err


def test_fresh_says_where_the_old_results_are_if_there_are_any(study, cli, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder)
    args = ("compare", *SMALL, "-m", "vae", "-d", "circle", "--seeds", 1, "--fresh")
    told = cli(*args, "--out", study)
    assert (told.code, "copy.old-1" in told.err) == (0, True)
    told = cli(*args, "--out", tmp_path / "new")
    assert (told.code, "old" in told.err) == (0, False)
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "copy.old-1", "new"}


@pytest.mark.parametrize("options", [(), ("--fresh",)])
@pytest.mark.parametrize(("out", "named"), [("photographs", "cat.jpg"), ("file", "file"), ("file/under", "file")])
def test_a_folder_of_something_else_is_left_alone(tmp_path, compare, invented, unchanged, options, out, named):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "file").write_text("text")
    with unchanged(tmp_path):
        end = compare(tmp_path / out, "vae", "circle", 1, *options)
    assert (end.code, end.err.count("\n"), invented) == (2, 1, [])
    assert named in end.err


def test_a_folder_with_a_readme_is_taken(tmp_path, compare, invented):
    (tmp_path / "README.md").write_text("results go here")
    assert compare(tmp_path, "untrained", "circle", 1).code == 0
    assert (tmp_path / "README.md").read_text() == "results go here"


def test_a_folder_that_cannot_be_written_to(tmp_path, compare, invented, monkeypatch, unchanged):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with unchanged(tmp_path):
        end = compare(tmp_path / "out", "vae", "circle", 1)
    assert (end.code, end.err) == (2, f"error: {tmp_path / 'out'} cannot be written to: Permission denied\n")


@pytest.mark.parametrize("schema", [0, SCHEMA - 1, SCHEMA + 1, "2", None])
def test_another_schema_is_refused_by_name(study, compare, unchanged, schema):
    info = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**info, "schema": schema}))
    with unchanged(study):
        end = compare(study, "vae,mapa", "circle", 2)
    assert end.code == 2
    assert all(text in end.err for text in (repr(schema), str(SCHEMA), str(study)))


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"schema": 1}', f'{{"schema": {SCHEMA}}}'])
def test_a_description_that_is_none_is_refused(study, compare, invented, unchanged, content):
    (study / "study.json").write_text(content)
    with unchanged(study):
        end = compare(study, "vae,mapa", "circle", 2)
    assert (end.code, end.err.count("\n"), invented) == (2, 1, [])


def test_new_code_runs_the_runs_anew(study, compare, invented, monkeypatch):
    kept = contents_of_runs(study)
    other = fingerprints.Fingerprint("other", ())
    monkeypatch.setattr(fingerprints.Fingerprints, "of", lambda *_: other)
    assert compare(study, "vae,mapa", "circle", 2).code == 0
    assert len(invented) == 4
    assert kept.items() <= contents_of_runs(study).items()
    assert len(tables.read_table(study, "runs")) == 4


def test_a_server_begins_early_if_runs_are_missing(tmp_path, invented, begun):
    """Not for a study that is complete. What else there is to do is done after each run."""
    done = []
    for seeds, servers in ((1, 1), (1, 1), (3, 2)):
        plan = resolve(Settings(methods=("vae",), datasets=("circle",), seeds=seeds))
        execute(plan, tmp_path, Execution(jobs=1), Silent(), "a command", lambda: done.append(len(invented)))
        assert len(begun) == servers
        assert done == [*range(1, seeds + 1)]


def test_how_runs_are_executed_reaches_the_scheduler_and_not_the_study(tmp_path, compare, monkeypatch):
    given = []

    def one(specs, how, _):
        given.append(how)
        yield from map(RunResult, specs)

    monkeypatch.setattr("bench.execution.scheduler.run_all", one)
    options = ("--run-timeout", "2.5", "--run-memory", "1.5GB", "--retry-failed")
    assert compare(tmp_path / "out", "vae", "circle", 1, *options).code == 0
    assert given == [Execution(jobs=1, run_timeout=2.5, run_memory=1_500_000_000, retry_failed=True)]
    settings = json.loads((tmp_path / "out" / "study.json").read_text())["settings"]
    assert not settings.keys() & {field.name for field in fields(Execution)}


STATES = ("done", "failed", "timeout", "skipped")


@pytest.mark.parametrize("retry", [False, True])
def test_what_failed_is_a_row_until_it_is_to_be_run_again(tmp_path, invented, retry):
    plan = resolve(Settings(methods=("vae", "mapa", "iterative", "untrained"), datasets=("circle",), seeds=1))
    found = execute(plan, tmp_path, Execution(), Silent(), "a command")
    for state, result in zip(STATES, found, strict=True):
        result.status, result.message = state, "before"
        run_files.write_run(tmp_path, result)
    after = execute(plan, tmp_path, Execution(jobs=2, retry_failed=retry), Silent(), "a command")
    kept = {state for state, result in zip(STATES, after, strict=True) if result.message == "before"}
    assert kept == ({"done", "skipped"} if retry else set(STATES))


class Impatient(Silent):
    """Interrupts a study while it is told of a run, rather than while it waits for one."""

    def finish(self, result):
        raise KeyboardInterrupt


def stopped_between_runs(specs, *_):
    yield RunResult(specs[0], message="finished")
    raise KeyboardInterrupt


def one_by_one(specs, *_):
    yield from map(RunResult, specs)


@pytest.mark.parametrize(("run_all", "log"), [(stopped_between_runs, Silent()), (one_by_one, Impatient())])
def test_an_interrupted_study_keeps_its_tables_wherever_it_was(tmp_path, monkeypatch, run_all, log):
    monkeypatch.setattr("bench.execution.scheduler.run_all", run_all)
    plan = resolve(Settings(methods=("vae",), datasets=("circle",), n_train=40, n_test=50))
    with pytest.raises(InterruptedStudyError, match="interrupted"):
        execute(plan, tmp_path / "out", Execution(), log, "a command")
    assert len(tables.read_table(tmp_path / "out", "runs")) == len(contents_of_runs(tmp_path / "out")) == 1


def test_a_study_of_several_authors_names_each_once():
    names = ("Ada", None, "Bo", "Ada")
    every = [Settings(datasets=("circle",), author=name) for name in names]
    assert (united(*every).author, united(every[1]).author) == ("Ada, Bo", None)
    assert united(united(*every), every[0]).author == "Ada, Bo"  # as when a study is resumed


def test_what_takes_longest_is_begun_first():
    """The datasets that wait are ordered by what finished runs of methods took there; unknown ones keep their order."""
    runs = runs_of(methods=("mapa", "vae", "oracle"), datasets=("circle", "absolute", "torus"), seeds=2)
    took = {"circle": 1.0, "torus": 9.0}
    found = dict.fromkeys(runs)
    assert longest_first(found) == list(runs)
    for spec in (each for each in runs if each.dataset in took and each.method in ("vae", "oracle")):
        seconds = took[spec.dataset] if spec.method == "vae" else 100.0 - took[spec.dataset]
        found[spec] = RunResult(spec, cost=Cost(wall_s=seconds / 2), evaluation_s=seconds / 2)
    waiting = longest_first(found)
    assert [spec.dataset for spec in waiting if spec.method == "mapa"] == [
        name for name in ("torus", "circle", "absolute") for _ in range(2)
    ]
    assert sorted(waiting, key=runs.index) == [spec for spec in runs if found[spec] is None]


def test_the_runs_of_a_study():
    asked = {"methods": ("vae", "mapa"), "datasets": ("circle", "torus"), "n_train": 20, "n_test": 20}
    specs = runs_of(**asked, seeds=2)
    assert [(s.dataset, s.seed, s.method) for s in specs] == [
        (d, k, m) for d in ("circle", "torus") for k in (0, 1) for m in ("vae", "mapa")
    ]
    assert len({spec.key for spec in specs}) == 8
    assert {spec.key for spec in runs_of(**asked, seeds=3)} > {spec.key for spec in specs}
    pairs = (("circle", "vae"), ("torus", "mapa"))
    chosen = resolve(Settings(**asked, seeds=2, first_seed=5), pairs).runs
    assert [(s.dataset, s.method, s.seed) for s in chosen] == [(d, m, k) for d, m in pairs for k in (5, 6)]


def test_the_groups_of_datasets_and_methods(registry_names):
    methods, datasets = registry_names
    plan = resolve(Settings(methods=("all",), datasets=("curves", " circle".strip(), "curves"), seeds=1))
    assert tuple(plan.methods) == methods
    assert sorted(plan.datasets) == ["absolute", "circle", "clusters", "figure8", "spiral_dots"]
    everything = tuple(resolve(Settings(methods=("vae",), datasets=("all",))).datasets)
    assert everything == tuple(name for name in datasets if name not in HELD_OUT)
    assert set(datasets) - set(everything) == {"random_curve", "random_surface"}


@pytest.fixture
def registry_names():
    from bench.registry.registry import registry

    return tuple(registry().methods), tuple(registry().datasets)


@pytest.mark.parametrize("family", HELD_OUT)
def test_the_seed_of_a_held_out_problem_is_in_the_key_and_in_the_data(family):
    first, again, other = (
        runs_of(methods=("vae",), datasets=(f"{family}[seed={k}]",), n_train=20, n_test=20, seeds=1)[0]
        for k in (1, 1, 2)
    )
    assert first.key == again.key != other.key
    assert first.data == again.data != other.data


def test_labels_stand_for_methods_and_datasets_of_their_own(tmp_path, compare, invented):
    out = tmp_path / "out"
    methods, datasets = "vae,vae[batch_size=5, steps=2]", "circle,circle[noise_variance=4e-2,n_train=30]"
    assert compare(out, methods, datasets, 1, "--set", "vae.steps=3").code == 0
    varied = "circle[n_train=30,noise_variance=0.04]"
    assert invented[1::2] == [f"{d} / vae[steps=2,batch_size=5] / seed 0" for d in ("circle", varied)]
    runs = tables.read_table(out, "runs").set_index(["dataset", "method"])
    assert runs["p_steps"].tolist() == [3, 2, 3, 2]
    assert runs["p_batch_size"].tolist() == [100, 5, 100, 5]
    assert runs["n_train"].tolist() == [40, 40, 30, 30]
    info = json.loads((out / "study.json").read_text())
    assert info["settings"]["set"] == {"vae": {"steps": 3}}
    assert info["datasets"][varied]["expected_log_prob"] is None
    assert compare(out, methods, datasets, 1, "--set", "vae.steps=3").code == 0
    assert len(invented) == 4


def test_a_method_by_label_is_the_method_with_that_set():
    asked = {"datasets": ("circle",), "seeds": 1, "n_train": 20, "n_test": 20}
    (label,) = runs_of(methods=("vae[steps=3]",), **asked)
    (given,) = runs_of(methods=("vae",), set={"vae": {"steps": 3}}, **asked)
    assert msgspec.structs.replace(given, method=label.method) == label
    assert (label.method, label.parameters) == ("vae[steps=3]", (("steps", 3),))


def test_other_values_of_set_do_not_mix(tmp_path, compare, invented, unchanged):
    out = tmp_path / "out"
    assert compare(out, "vae", "circle", 1, "--set", "vae.steps=3").code == 0
    with unchanged(out):
        for given, new in ((("vae", "circle", 1, "--set", "vae.steps=4"), "steps=4"), (("vae[steps=5]",), "nothing")):
            told = compare(out, *given)
            assert (told.code, told.err.count("\n")) == (2, 1)
            assert f"holds a study with --set vae steps=3, got {new};" in told.err
    assert compare(out, "untrained", "circle", 1).code == 0
    assert json.loads((out / "study.json").read_text())["settings"]["set"] == {"vae": {"steps": 3}}
    assert compare(out, "vae", "circle", 1, "--set", "vae.steps=3").code == 0
    assert len(invented) == 2


def test_a_label_states_conditions():
    labels = ("manifold[data_dim=12,latent_dim=3]", "circle[activation=relu,hidden=8x8,n_train=30]")
    first, second = runs_of(methods=("vae",), datasets=labels, seeds=1, n_test=20)
    defaults = msgspec.structs.asdict(Conditions(n_test=20))
    for spec, stated in ((first, {"latent_dim": 3}), (second, {"n_train": 30, "activation": "relu", "hidden": (8, 8)})):
        assert {name: getattr(spec, name) for name in defaults} == defaults | stated
